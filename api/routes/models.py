"""`/v1/models`: the models that a request can name."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.door.catalogue import no_such_model
from api.schemas.models import ModelBody, ModelList
from headrace.config.rules import AUTO

blueprint = Blueprint("models", __name__, url_prefix="/v1/models")


@blueprint.get("")
def list_all() -> Response:
    """Every model."""
    caller()
    return answer(ModelList(data=[ModelBody(id=name) for name in _names()]))


# `path`: a Hugging Face id contains a slash.
@blueprint.get("/<path:name>")
def read(name: str) -> Response:
    """One model."""
    caller()
    # A path of any characters takes the slash at its end for one of them.
    named = name.rstrip("/")
    if named not in _names() and not deps().catalogue.has(named):
        raise no_such_model(named)
    return answer(ModelBody(id=named))


def _names() -> list[str]:
    return [*deps().catalogue.names(), *([AUTO] if deps().settings.rules else [])]
