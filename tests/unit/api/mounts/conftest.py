"""The parts of a web process as fakes, and requests to it without a server."""

from collections.abc import Callable, Iterable
from io import BytesIO
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from api.auth import Authenticator
from api.bodies.in_flight import Bodies
from api.call import Call, Reply
from api.callers import Callers, CallRates
from api.deps import WebDeps
from api.mounts.fast_path import FastPath
from headrace.broker.app_rates import AppRates
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id
from headrace.errors import QueueFull, Unauthenticated
from headrace.store import Store

BODY = b'{"prompt": "Hi"}'
#: A bucket of ten calls.
CALLS_PER_MINUTE = 60
LIMIT_S = 60.0
BODY_LIMIT = 100_000
APP = App(new_id(), "test", "whsec_test", scopes=frozenset({Scope.SUBMIT, Scope.READ}))
FULL = QueueFull("It is full.", queue="chat.normal", reason="depth", depth=5, cap=5, retry_after_s=3)


class Noted(NamedTuple):
    """What the metrics were told of a request."""

    method: str
    rule: str | None
    status: int
    kind: str


class World:
    """What a request meets.

    Attributes:
        app: whose key it is; None: a bad one.
        refusal: the early refusal of every submit.
        accepted: the reply to a plain job, or its error; None: it is not plain.
        posted: each call that asked for a plain job.
        failure: what a read of a job raises.
        waited: the job and the seconds of each wait.
        released: slots that were given back.
        noted, noted_refusals: what the metrics were told.
        by_flask: the path of each request that Flask got.
    """

    def __init__(self) -> None:
        self.app: App | None = APP
        self.refuses_early = True
        self.refusal: QueueFull | None = None
        self.accepted: Reply | Exception | None = Reply(202, b'{"id": "job_1"}\n', {"x-job-id": "job_1"})
        self.failure: Exception | None = None
        self.asked, self.posted, self.waited = list[bytes](), list[Call](), list[Any]()
        self.noted, self.by_flask, self.released = list[Noted](), list[str](), 0
        self.noted_refusals = list[str]()
        rates, store = cast(AppRates, None), cast(Store, None)
        self.bodies = Bodies(rates, store, in_flight_bytes=10**6, grace_s=20)
        self.web = SimpleNamespace(
            bodies=self.bodies,
            callers=Callers(cast(Authenticator, self), CallRates(CALLS_PER_MINUTE)),
            metrics=SimpleNamespace(note=self._note, note_refusal=self.noted_refusals.append),
            plain_jobs=SimpleNamespace(submit=self._submit),
            reader=self,
            settings=SimpleNamespace(
                body_limit_bytes=BODY_LIMIT, wait_limit_s=LIMIT_S, cors=SimpleNamespace(origins=())
            ),
            submitter=SimpleNamespace(refusals=self),
            waits=self,
        )
        self.mount = FastPath(self._flask, cast(WebDeps, self.web))

    def authenticate(self, _header: str | None) -> App:
        if self.app is None:
            raise Unauthenticated
        return self.app

    def early(self, _app_id: object, raw: bytes) -> QueueFull | None:
        self.asked.append(raw)
        return self.refusal

    def _submit(self, call: Call) -> Reply | None:
        self.posted.append(call)
        if isinstance(self.accepted, Exception):
            raise self.accepted
        return None if self.accepted is None else Reply(202, self.accepted.body, dict(self.accepted.headers))

    def read(self, *_: object) -> Any:
        assert self.failure is not None
        raise self.failure

    def take(self, *_: object) -> Any:
        return SimpleNamespace(release=self._release)

    def _note(self, method: str, rule: str | None, status: int, _took_s: float, *, kind: str) -> None:
        self.noted.append(Noted(method, rule, status, kind))

    def _release(self) -> None:
        self.released += 1

    def follow(self, job_id: object, read: Callable[[], Any], for_s: float, _peer: object) -> Any:
        self.waited.append((job_id, for_s))
        return read()

    def _flask(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        self.by_flask.append(environ["PATH_INFO"])
        return [b"by Flask"]

    def request(self, method: str, path: str, body: bytes = b"", **changes: Any) -> tuple[str, dict[str, str], bytes]:
        """One request. Returns: status line, headers, body."""
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)) if body else ""}
        told: list[Any] = []
        given = {**environ, "wsgi.input": BytesIO(body), **changes}
        sent = b"".join(self.mount(given, lambda *head: told.append(head)))  # type: ignore[arg-type]
        [(status, headers)] = told
        return status, dict(headers), sent

    def post(self, body: bytes = BODY, **changes: Any) -> tuple[str, dict[str, str], bytes]:
        """A submit."""
        return self.request("POST", "/v1/jobs", body, **changes)


@pytest.fixture
def world() -> World:
    return World()
