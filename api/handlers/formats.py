"""The formats in which a prompt is sent and answered: one for each path that submits in OpenAI's way.

The handlers of these paths and the lines of batches both read requests and write answers by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from api.door.drafts import Accepted
from api.schemas.chat import ChatCompletionBody, ChatRequest
from api.schemas.completions import CompletionBody, CompletionRequest
from api.schemas.embeddings import EmbeddingList, EmbeddingRequest
from api.schemas.response_body import ResponseBody
from api.schemas.response_request import ResponseRequest
from headrace.domain.jobs import Job

#: Makes the body of an answer from a job that has succeeded, and from its accept where that is known.
BodyOf = Callable[[Job, Accepted | None], BaseModel]


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        schema: the model of a request, whose `to_draft` says the same in the core's terms.
        body_of: how an answer to a request is written. Its argument returns the checked request.
    """

    schema: type[Any]
    body_of: Callable[[Callable[[], Any]], BodyOf]


def _completion(read: Callable[[], CompletionRequest]) -> BodyOf:
    return partial(CompletionBody.of, echoed=read().echoed)


def _embeddings(read: Callable[[], EmbeddingRequest]) -> BodyOf:
    return partial(EmbeddingList.of, form=read().encoding_format or "float")


CHAT = Format(ChatRequest, lambda _: ChatCompletionBody.of)
COMPLETION = Format(CompletionRequest, _completion)
EMBEDDINGS = Format(EmbeddingRequest, _embeddings)
RESPONSES = Format(ResponseRequest, lambda _: ResponseBody.of)
#: By the path.
FORMATS: Mapping[str, Format] = {
    "/v1/responses": RESPONSES,
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/embeddings": EMBEDDINGS,
}
