"""`/v1/models`: the models that a request can name."""

from api.call import Call, Reply
from api.deps import WebDeps
from api.door.catalogue import no_such_model
from api.handlers.operation import Operation
from api.handlers.submitting import reply_of
from api.schemas.models import ModelBody, ModelList
from headrace.config.rules import AUTO


def list_all(web: WebDeps, _call: Call) -> Reply:
    """Every model."""
    return reply_of(ModelList(data=[ModelBody(id=name) for name in _names(web)]))


def read(web: WebDeps, _call: Call, name: str) -> Reply:
    """One model."""
    # A path of any characters takes the slash at its end for one of them.
    named = name.rstrip("/")
    if named not in _names(web) and not web.catalogue.has(named):
        raise no_such_model(named)
    return reply_of(ModelBody(id=named))


def _names(web: WebDeps) -> list[str]:
    return [*web.catalogue.names(), *([AUTO] if web.settings.rules else [])]


OPERATIONS = (
    Operation("get", "/v1/models", list_all, "OpenAI", "List the models", ModelList),
    # A Hugging Face id contains a slash.
    Operation(
        *("get", "/v1/models/{name}", read, "OpenAI", "Read a model", ModelBody), refusals=(404,), takes_slashes=True
    ),
)
