"""The parts of a web process as fakes, and requests to it without a server."""

from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from werkzeug.test import TestResponse

from api.auth import Authenticator, Callers, CallRates
from api.bodies import Bodies
from api.call import Call, Reply, Step
from api.deps import WebDeps
from api.mounts.flask_app import make_flask_app
from api.mounts.mount import Mount
from headrace.broker.rates import AppRates
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id
from headrace.errors import QueueFull, Unauthenticated
from headrace.store import Store
from tests.web import ApiClient, Web

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
        is_known: False where Postgres must be asked for the key.
        refusal: the early refusal of every submit.
        takes_plain: whether a job may be plain.
        accepted: the reply to a plain job, or its error; None: it is not plain.
        posted: each call that asked for a plain job.
        failure: what a read of a job raises.
        waited: the job and the seconds of each wait.
        released: slots that were given back.
        noted, noted_refusals: what the metrics were told.
        keys_asked: how often a test that answers for Postgres was asked for a key.
    """

    def __init__(self) -> None:
        self.app: App | None = APP
        self.is_known = True
        self.refuses_early = self.takes_plain = True
        self.refusal: QueueFull | None = None
        self.accepted: Any = Reply(202, b'{"id": "job_1"}\n', {"x-job-id": "job_1"})
        self.failure: Exception | None = None
        self.asked, self.posted, self.waited = list[bytes](), list[Call](), list[Any]()
        self.noted, self.released = list[Noted](), 0
        self.noted_refusals = list[str]()
        self.keys_asked = 0
        rates, store = cast(AppRates, None), cast(Store, None)
        self.bodies = Bodies(rates, store, in_flight_bytes=10**6, grace_s=20)
        self.web = SimpleNamespace(
            bodies=self.bodies,
            callers=Callers(cast(Authenticator, self), CallRates(CALLS_PER_MINUTE)),
            metrics=SimpleNamespace(note=self._note, note_refusal=self.noted_refusals.append),
            plain_jobs=SimpleNamespace(batching=SimpleNamespace(post=self._submit), takes=lambda *_: self.takes_plain),
            reader=SimpleNamespace(batching=SimpleNamespace(post=self._find), job_of=self._job_of, read=self.read),
            settings=SimpleNamespace(
                body_limit_bytes=BODY_LIMIT, wait_limit_s=LIMIT_S, cors=SimpleNamespace(origins=())
            ),
            submitter=SimpleNamespace(refusals=self),
            waits=self,
            close=lambda: None,
        )
        web = cast(WebDeps, self.web)
        self.mount = Mount(web, make_flask_app(web), lambda: None)
        self.client = ApiClient(Web(self.mount), "hr-test")

    def authenticate(self, _header: str | None) -> App:
        if self.app is None:
            raise Unauthenticated
        return self.app

    def recall(self, header: str | None) -> App | None:
        return self.authenticate(header) if self.is_known else None

    def last_known(self, _header: str | None) -> None:
        """No key was seen before."""

    def early(self, _app_id: object, raw: bytes) -> QueueFull | None:
        self.asked.append(raw)
        return self.refusal

    def _submit(self, call: Call, tell: Callable[[Any], object], _start: Any) -> None:
        self.posted.append(call)
        accepted = self.accepted
        tell(Reply(202, accepted.body, dict(accepted.headers)) if isinstance(accepted, Reply) else accepted)

    def _find(self, _key: Any, tell: Callable[[Any], object], _start: Any) -> None:
        tell(self.failure)

    def _job_of(self, *_: object) -> Any:
        assert self.failure is not None
        raise self.failure

    def read(self, *_: object) -> Any:
        assert self.failure is not None
        raise self.failure

    def take(self, *_: object) -> Any:
        return SimpleNamespace(release=self._release)

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
        return self.client.open(path, method=method, data=body, **changes)

    def post(self, body: bytes = BODY, **changes: Any) -> TestResponse:
        """A submit."""
        return self.request("POST", "/v1/jobs", body, **changes)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.mount.close()
