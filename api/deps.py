"""The dependencies of the routes: `create_app` makes them once, and the running Flask app holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from flask import Response, current_app, g, request
from pydantic import BaseModel
from redis import Redis

from api.bodies.in_flight import Bodies
from api.calls import Callers
from api.door.catalogue import Catalogue
from api.door.submit import Submitter
from api.metrics import WebMetrics
from api.readiness import Readiness
from api.reading.reader import Reader
from api.reading.slots import Slots
from api.reading.waits import Waits
from api.schemas.body import validated
from api.schemas.logprobs import Fragments
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.errors import InvalidRequest
from headrace.store import Store

Query = TypeVar("Query", bound=BaseModel)

EXTENSION = "headrace"
#: Names in a request's environment what failed before Flask saw it: a `Failed`.
FAILED = "headrace.failed"


class Failed(NamedTuple):
    """What failed before Flask saw the request. It must not be tried again: the job may exist, or the wait may be over.

    Attributes:
        began: when the request did, on the monotonic clock.
        request_id: for the log, and for the caller.
        waits: whether it waited for the end of a job.
    """

    error: Exception
    began: float
    request_id: str
    waits: bool = False


@dataclass(slots=True)
class Due:
    """Calls that a request uses at its end; a job that it makes cancels them."""

    app: App
    calls: int


@dataclass(frozen=True, slots=True)
class WebDeps:
    """The parts of the web process.

    Attributes:
        redis: closed last; the other parts have it too.
    """

    settings: Settings
    redis: Redis
    store: Store
    admission: Admission
    catalogue: Catalogue
    forecast: Forecast
    callers: Callers
    bodies: Bodies
    submitter: Submitter
    reader: Reader
    waits: Waits
    streams: Streams
    metrics: WebMetrics
    usage_slots: Slots
    readiness: Readiness

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.waits.close()
        self.forecast.close()
        self.submitter.refusals.counts.close()
        self.store.close()
        self.redis.connection_pool.disconnect()


def deps() -> WebDeps:
    """The dependencies of the app that serves this request."""
    return cast(WebDeps, current_app.extensions[EXTENSION])


def caller(*, submits: bool = False) -> App:
    """The app that calls. Every route under /v1 must begin with this.

    Args: submits: as in `Callers.admit`.
    Raises: as `Callers.admit`. Any error that the request has met before Flask saw it.
    """
    # Taken out, since the error's frames hold the environment.
    failed: Failed | None = request.environ.pop(FAILED, None)
    if failed is not None:
        raise failed.error
    app = deps().callers.admit(request.headers.get("Authorization"), request.method, submits=submits)
    g.due = Due(app, 1 if submits else 0)
    return app


def query(schema: type[Query]) -> Query:
    """The checked query string. Raises: InvalidRequest."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidRequest(f"'{name[:80]}' is given twice.", param=name[:80])
    return validated(schema, request.args.to_dict())


def json_of(body: BaseModel) -> str:
    """A model as JSON, with a newline at its end."""
    # Straight from the model: through a dict it takes twice as long.
    fragments = Fragments()
    return fragments.filled(body.model_dump_json(context=fragments)) + "\n"


def answer(
    body: BaseModel, status: int = 200, *, job_id: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A model as JSON; `job_id` becomes the header `x-job-id`, which every shape of body shares."""
    response = Response(json_of(body), status, mimetype="application/json")
    if job_id is not None:
        response.headers["x-job-id"] = job_id
    response.headers.update(headers or {})
    return response
