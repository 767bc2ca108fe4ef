"""`/tokenize` and `/detokenize`: a text's tokens by a model's own tokenizer, and back, as in vLLM's own server."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.door.catalogue import Model
from api.routes.submission import body
from api.schemas.body import validated
from api.schemas.tokens import DetokenizeBody, DetokenizeRequest, TokenizeBody, TokenizeRequest
from headrace.domain.apps import App
from headrace.domain.prompts import storable
from headrace.errors import InvalidRequest
from headrace.policies.tokens import LONG_CHARS, InputTokenizer, PromptTokenizer

blueprint = Blueprint("tokens", __name__)


@blueprint.post("/tokenize")
def tokenize() -> Response:
    """The tokens of a text, or of a conversation as the model is given it."""
    app = caller()
    asked = validated(TokenizeRequest, body(app))
    model, tokenizer = _of(asked.model)
    with _in_turn(app, asked.chars):
        if asked.messages is None:
            ids = tokenizer.encode_text(asked.prompt or "", adds_special=asked.add_special_tokens)
        else:
            ids = tokenizer.encode(asked.turns, None, asked.variables)
        spelled = list(map(storable, tokenizer.spell(ids))) if asked.return_token_strs else None
    return answer(TokenizeBody(count=len(ids), max_model_len=model.max_model_tokens, tokens=ids, token_strs=spelled))


@blueprint.post("/detokenize")
def detokenize() -> Response:
    """The text of these tokens."""
    app = caller()
    asked = validated(DetokenizeRequest, body(app))
    _, tokenizer = _of(asked.model)
    with _in_turn(app, len(asked.tokens)):
        tokenizer.spell(asked.tokens)  # Raises for an id that the model does not have.
        text = tokenizer.decode(asked.tokens)
    return answer(DetokenizeBody(prompt=storable(text)))


def _of(name: str | None) -> tuple[Model, PromptTokenizer]:
    """The model and its tokenizer. Raises: InvalidRequest: its tokens are not known here. ModelNotFound."""
    model = deps().catalogue.find(name)
    if isinstance(model.tokenizer, InputTokenizer):
        message = f"The model '{model.name}' makes embeddings: the usage of POST /v1/embeddings has its tokens."
        raise InvalidRequest(message, param="model")
    if deps().settings.pools[model.pool].is_paid:
        message = f"The paid API alone answers for '{model.name}', and does not tell its tokens."
        raise InvalidRequest(message, param="model")
    return model, model.tokenizer


@contextmanager
def _in_turn(app: App, size: int) -> Iterator[None]:
    """A few long texts at once, apps in turn, as where prompts are counted."""
    if size <= LONG_CHARS:
        yield
        return
    with deps().catalogue.long_counts.hold(app.id):
        yield
