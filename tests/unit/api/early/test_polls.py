"""Polls before Flask: the usual ones are answered, and all else is handed on as it came."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.auth import Authenticator
from api.calls import Callers, CallRates
from api.deps import FAILED, Failed, WebDeps
from api.early.polls import EarlyPolls
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id, show_id
from headrace.errors import NotFound, PermissionDenied, StoreUnavailable, Unauthenticated

APP = App(new_id(), "test", "whsec_test", scopes=frozenset({Scope.READ}))
JOB_ID = new_id()
PATH = f"/v1/jobs/{show_id(JOB_ID)}"
LIMIT_S = 60

#: A bucket of ten calls.
CALLS_PER_MINUTE = 60


class World:
    """What polls stand on.

    Attributes:
        app: whose key it is; None: a bad one.
        failure: what a read raises.
        waited: the app, the job and the seconds of each wait.
        handed_on: the error of each request that Flask got.
        noted: what the metrics were told.
    """

    def __init__(self) -> None:
        self.app: App | None = APP
        self.rates = CallRates(CALLS_PER_MINUTE)
        self.failure: Exception = NotFound("No such job.")
        self.waited, self.handed_on, self.noted = list[Any](), list[Any](), list[Any]()
        metrics = SimpleNamespace(note=lambda handled, took_s: self.noted.append(handled))
        callers, settings = Callers(cast(Authenticator, self), self.rates), SimpleNamespace(wait_limit_s=LIMIT_S)
        parts = SimpleNamespace(callers=callers, reader=self, waits=self, settings=settings, metrics=metrics)
        self.polls = EarlyPolls(self._flask, cast(WebDeps, parts))

    def authenticate(self, _header: str | None) -> App:
        if self.app is None:
            raise Unauthenticated
        return self.app

    def until_ended(self, app_id: object, job_id: object, read: Callable[[], Any], wait_s: float, _peer: object) -> Any:
        self.waited.append((app_id, job_id, wait_s))
        return read()

    def read(self, *_: object) -> Any:
        raise self.failure

    def _flask(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        failed: Failed | None = environ.get(FAILED)
        self.handed_on.append(None if failed is None else failed.error)
        return [b"by the routes"]

    def get(self, query: str = "", **changes: str) -> bytes:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": PATH, "QUERY_STRING": query, "SERVER_NAME": "x", **changes}
        return b"".join(self.polls(environ, lambda *_: lambda _: None))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("query", "wait_s"), [("", 0), ("wait=0", 0), ("wait=30", 30), ("wait=0.25", 0.25)])
def test_a_poll_waits_as_long_as_it_says(world: World, query: str, wait_s: float) -> None:
    world.get(query)
    assert world.waited == [(APP.id, JOB_ID, wait_s)]


@pytest.mark.parametrize("failure", [NotFound("No such job."), StoreUnavailable("It is away."), ValueError("A bug.")])
def test_what_goes_wrong_is_said_by_the_route_which_does_not_wait_again(world: World, failure: Exception) -> None:
    world.failure = failure
    assert world.get("wait=30") == b"by the routes"
    assert world.handed_on == [failure]


@pytest.mark.parametrize(
    "changes",
    [
        {"PATH_INFO": "/v1/jobs"},
        {"PATH_INFO": f"{PATH}/"},
        {"PATH_INFO": f"{PATH}\n"},
        {"PATH_INFO": f"{PATH}0"},
        {"PATH_INFO": PATH.upper().replace("/V1/JOBS/JOB_", "/v1/jobs/job_")},
        {"PATH_INFO": PATH.replace("job_", "resp_")},
        {"PATH_INFO": PATH.replace("/v1/jobs/job_", "/v1/responses/resp_")},
        {"REQUEST_METHOD": "HEAD"},
        {"REQUEST_METHOD": "DELETE"},
        {"query": f"wait={LIMIT_S + 1}"},
        {"query": "wait=-1"},
        {"query": "wait=1e3"},
        {"query": "wait=nan"},
        {"query": "wait="},
        {"query": "wait=1&wait=2"},
        {"query": "wait=1&other=2"},
        {"query": "wait=\u0661"},
        {"CONTENT_LENGTH": "2"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
    ],
    ids=str,
)
def test_any_other_request_is_handed_on_untouched(world: World, changes: dict[str, str]) -> None:
    assert world.get(**changes) == b"by the routes"
    assert (world.waited, world.handed_on) == ([], [None])


@pytest.mark.parametrize("app", [None, App(APP.id, "test", "whsec_test", scopes=frozenset({Scope.SUBMIT}))], ids=repr)
def test_a_key_that_may_not_read_is_refused_by_the_routes(world: World, app: App | None) -> None:
    world.app = app
    assert world.get() == b"by the routes"
    [error] = world.handed_on
    assert isinstance(error, Unauthenticated if app is None else PermissionDenied)
    assert world.waited == []


def test_polls_above_the_rate_are_refused_before_flask(world: World) -> None:
    for _ in range(10):
        world.get()
    handed_on = len(world.handed_on)
    assert b'"reason":"calls_per_minute"' in world.get()
    assert len(world.handed_on) == handed_on
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.refusal) == ("/v1/jobs/<public_id>", 429, "calls_per_minute")
