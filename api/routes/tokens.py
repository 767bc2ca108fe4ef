"""`/tokenize` and `/detokenize`: a text's tokens by a model's own tokenizer, and back, as in vLLM's own server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Response

from api.calls import caller, parts
from api.door.catalogue import Model
from api.routes.operations import QUESTION, READ_BODY, describes
from api.routes.replies import reply_of
from api.routes.requests import checked_body
from api.schemas.tokens import DetokenizeBody, DetokenizeRequest, TokenizeBody, TokenizeRequest
from headrace.domain.prompts import storable
from headrace.errors import InvalidRequest
from headrace.policies.tokens import LONG_CHARS, InputTokenizer, PromptTokenizer

ROUTES = Blueprint("tokens", __name__)
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "text": {"prompt": QUESTION, "return_token_strs": True},
    "conversation": {"messages": [{"role": "user", "content": QUESTION}]},
}


@ROUTES.post("/tokenize")
@describes(
    "vLLM",
    "Turn a text into a model's tokens",
    TokenizeBody,
    body=TokenizeRequest,
    examples=EXAMPLES,
    refusals=READ_BODY,
)
def tokenize() -> Response:
    """Returns the tokens of a text, or of a conversation as the model is given it."""
    asked = checked_body(TokenizeRequest)
    model, tokenizer = _of(asked.model)
    with _in_turn(asked.chars):
        if asked.messages is None:
            ids = tokenizer.encode_text(asked.prompt or "", adds_special=asked.add_special_tokens)
        else:
            ids = tokenizer.encode(asked.turns, None, asked.variables)
        spelled = list(map(storable, tokenizer.spell(ids))) if asked.return_token_strs else None
    return reply_of(TokenizeBody(count=len(ids), max_model_len=model.max_model_tokens, tokens=ids, token_strs=spelled))


@ROUTES.post("/detokenize")
@describes(
    "vLLM",
    "Turn a model's tokens into a text",
    DetokenizeBody,
    body=DetokenizeRequest,
    examples={"text": {"tokens": [72, 105]}},
    refusals=READ_BODY,
)
def detokenize() -> Response:
    """Returns the text of these tokens."""
    asked = checked_body(DetokenizeRequest)
    _, tokenizer = _of(asked.model)
    with _in_turn(len(asked.tokens)):
        tokenizer.spell(asked.tokens)  # Raises for an id that the model does not have.
        text = tokenizer.decode(asked.tokens)
    return reply_of(DetokenizeBody(prompt=storable(text)))


def _of(name: str | None) -> tuple[Model, PromptTokenizer]:
    """Returns the model and its tokenizer. Raises: InvalidRequest: its tokens are not known here. ModelNotFound."""
    web = parts()
    model = web.catalogue.find(name)
    if isinstance(model.tokenizer, InputTokenizer):
        message = f"The model '{model.name}' makes embeddings: the usage of POST /v1/embeddings has its tokens."
        raise InvalidRequest(message, param="model")
    if web.settings.pools[model.pool].is_paid:
        message = f"The paid API alone answers for '{model.name}', and does not tell its tokens."
        raise InvalidRequest(message, param="model")
    return model, model.tokenizer


@contextmanager
def _in_turn(size: int) -> Iterator[None]:
    """Lets a few long texts through at once, apps in turn, as where prompts are counted."""
    if size <= LONG_CHARS:
        yield
        return
    with parts().catalogue.long_counts.hold(caller().id):
        yield
