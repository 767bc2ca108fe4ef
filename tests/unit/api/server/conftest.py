"""The parts of a web process as fakes, and requests to it without a server."""

import io
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from werkzeug.test import TestResponse

from api.app import WebServer
from api.auth import Authenticator, Callers, CallRates
from api.bodies import Bodies
from api.calls import turn
from api.deps import WebDeps
from api.door.drafts import Accepted, Draft, Sent
from api.turns import Step
from headrace.broker.rates import AppRates
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import QueueFull, Unauthenticated
from headrace.store import Store
from tests.web import ApiClient, Web

BODY = b'{"prompt": "Hi"}'
#: A bucket of ten calls.
CALLS_PER_MINUTE = 60
LIMIT_S = 60.0
BODY_LIMIT = 100_000
APP = App(new_id(), "test", "whsec_test", scopes=frozenset({Scope.SUBMIT, Scope.READ}))
ACCEPTED = Accepted(new_id(), JobState.QUEUED, Lane.NORMAL, "chat.normal", datetime.now(UTC), 64, 30.0, 1, 1)
FULL = QueueFull("It is full.", queue="chat.normal", reason="depth", depth=5, cap=5, retry_after_s=3)


class Noted(NamedTuple):
    """What the metrics were told of a request."""

    method: str
    rule: str | None
    status: int
    kind: str


class Submitted(NamedTuple):
    """What the door was asked for by one submit."""

    draft: Draft
    app: App
    idempotency: Idempotency | None
    sent: Sent


class _Noting(io.BytesIO):
    """A body that notes when it is read."""

    def __init__(self, body: bytes, note: Callable[[], object]) -> None:
        super().__init__(body)
        self._note = note

    def read(self, size: int | None = -1, /) -> bytes:
        self._note()
        return super().read(size)


class World:
    """What a request meets.

    Attributes:
        app: whose key it is; None: a bad one.
        is_known: False where Postgres must be asked for the key.
        accepted: how the door accepts every submit, or its error.
        meanwhile: called within each submit.
        submitted: every submit that reached the door.
        failure: what a read of a job raises.
        waited: the job and the seconds of each wait.
        released: slots that were given back.
        closing: what each submit leaves to be done at its end.
        noted, noted_refusals: what the metrics were told.
        keys_asked: how often a test that answers for Postgres was asked for a key.
        bodies_read: how many bodies the server began to read.
    """

    def __init__(self) -> None:
        self.app: App | None = APP
        self.is_known = True
        self.accepted: Accepted | Exception = ACCEPTED
        self.meanwhile: Callable[[], object] = lambda: None
        self.failure: Exception | None = None
        self.submitted, self.waited = list[Submitted](), list[Any]()
        self.noted, self.released = list[Noted](), 0
        self.noted_refusals = list[str]()
        self.closing = list[Callable[[], object]]()
        self.keys_asked = self.bodies_read = 0
        rates, store = cast(AppRates, None), cast(Store, None)
        self.bodies = Bodies(rates, store, in_flight_bytes=10**6, grace_s=20)
        self.web = SimpleNamespace(
            plugins=(),
            bodies=self.bodies,
            callers=Callers(cast(Authenticator, self), CallRates(CALLS_PER_MINUTE)),
            metrics=SimpleNamespace(note=self._note, note_refusal=self.noted_refusals.append),
            reader=SimpleNamespace(read=self.read),
            settings=SimpleNamespace(
                body_limit_bytes=BODY_LIMIT, wait_limit_s=LIMIT_S, cors=SimpleNamespace(origins=())
            ),
            submitter=SimpleNamespace(submit=self.submit),
            vacancies=SimpleNamespace(find=lambda *_: None),
            waits=self,
            close=lambda: None,
        )
        self.server = WebServer(cast(WebDeps, self.web))
        self.client = ApiClient(Web(self.server), "hr-test")

    def authenticate(self, _header: str | None) -> App:
        if self.app is None:
            raise Unauthenticated
        return self.app

    def recall(self, header: str | None) -> App | None:
        return self.authenticate(header) if self.is_known else None

    def last_known(self, _header: str | None) -> None:
        """No key was seen before."""

    def submit(self, draft: Draft, app: App, idempotency: Idempotency | None, sent: Sent) -> Accepted:
        self.submitted.append(Submitted(draft, app, idempotency, sent))
        turn().closing += self.closing
        self.meanwhile()
        if isinstance(self.accepted, Exception):
            raise self.accepted
        return self.accepted

    def read(self, *_: object) -> Any:
        assert self.failure is not None
        raise self.failure

    def take(self, *_: object) -> Any:
        return SimpleNamespace(release=self._release, hand_over=lambda: None)

    @contextmanager
    def hold(self, *_: object) -> Iterator[Any]:
        yield self.take()

    def _note(self, method: str, rule: str | None, status: int, _took_s: float, *, kind: str) -> None:
        self.noted.append(Noted(method, rule, status, kind))

    def _release(self) -> None:
        self.released += 1

    def follow(
        self, job_id: object, read: Callable[[], Any], for_s: float, _wake: object
    ) -> Generator[Step, None, Any]:
        self.waited.append((job_id, for_s))
        yield Step(b"", 0.0)
        return read()

    def request(self, method: str, path: str, body: bytes = b"", **changes: Any) -> TestResponse:
        """One request."""
        stream = _Noting(body, self._note_read)
        return self.client.open(path, method=method, input_stream=stream, content_length=len(body), **changes)

    def _note_read(self) -> None:
        self.bodies_read += 1

    def post(self, body: bytes = BODY, **changes: Any) -> TestResponse:
        """A submit."""
        return self.request("POST", "/v1/jobs", body, **changes)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.server.close()
