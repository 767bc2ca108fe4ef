"""The formats in which a prompt is sent and answered: one for each path that submits in OpenAI's way.

The views of these paths and the lines of batches both read requests and write answers by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from api.door.drafts import Accepted
from api.schemas.body import validated
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
        restored: makes, from the fields that are left of an answered request (`REPEATED`), one for `body_of`.
        has_tools: an answer has the tools of its request.
    """

    schema: type[Any]
    body_of: Callable[[Callable[[], Any]], BodyOf]
    restored: Callable[[Mapping[str, Any]], Any] = dict
    has_tools: bool = False


def _completion(read: Callable[[], CompletionRequest]) -> BodyOf:
    return partial(CompletionBody.of, echoed=read().echoed)


def _embeddings(read: Callable[[], EmbeddingRequest]) -> BodyOf:
    return partial(EmbeddingList.of, form=read().encoding_format or "float")


def _restored_completion(left: Mapping[str, Any]) -> CompletionRequest:
    if not left.get("echo"):
        return CompletionRequest.model_construct()
    return validated(CompletionRequest, {"echo": True, "prompt": left["prompt"]})


def _restored_embeddings(left: Mapping[str, Any]) -> EmbeddingRequest:
    return EmbeddingRequest.model_construct(encoding_format=left.get("encoding_format"))


CHAT = Format(ChatRequest, lambda _: ChatCompletionBody.of)
COMPLETION = Format(CompletionRequest, _completion, _restored_completion)
EMBEDDINGS = Format(EmbeddingRequest, _embeddings, _restored_embeddings)
RESPONSES = Format(ResponseRequest, lambda _: ResponseBody.of, has_tools=True)
#: By the path.
FORMATS: Mapping[str, Format] = {
    "/v1/responses": RESPONSES,
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/embeddings": EMBEDDINGS,
}
