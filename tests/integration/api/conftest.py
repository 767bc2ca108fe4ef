"""The whole API on real servers: in process for most tests, behind a real HTTP server for the SDK."""

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.serving import make_server

from api.app import create_app
from api.deps import EXTENSION
from headrace.admission import Admission, reservations_key
from headrace.broker import list_key
from headrace.config import Settings
from headrace.jobs import JobState, Usage, new_id
from headrace.pricing import Cost
from headrace.queues import lane_queues
from headrace.store import Store, apps, attempts, workers
from headrace.store.apps import App
from headrace.store.attempts import AttemptEnd
from headrace.store.workers import WorkerInfo
from headrace.tables import idempotency_keys, jobs


@pytest.fixture
def build_web(settings: Settings, redis: Redis) -> Iterator[Callable[..., Flask]]:
    """Makes the Flask app, with some settings changed."""
    made: list[Flask] = []

    def build(**changes: Any) -> Flask:
        web = create_app(settings.model_copy(update=changes))
        made.append(web)
        return web

    yield build
    for web in made:
        web.extensions[EXTENSION].close()


@pytest.fixture
def web(build_web: Callable[..., Flask]) -> Flask:
    return build_web()


@pytest.fixture
def make_key(store: Store, settings: Settings) -> Callable[[str], str]:
    """Makes an API key for the app of that name."""

    def make(name: str) -> str:
        with store.begin() as db:
            return apps.make_key(db, apps.ensure(db, name).id, settings.pepper.get_secret_value())

    return make


@pytest.fixture
def key(make_key: Callable[[str], str], app: App) -> str:
    """A key of the app `test`."""
    return make_key(app.name)


@pytest.fixture
def client_of(web: Flask) -> Callable[..., FlaskClient]:
    """A client that sends this key with every request."""

    def make(key: str, web: Flask = web) -> FlaskClient:
        client = web.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        return client

    return make


@pytest.fixture
def client(client_of: Callable[..., FlaskClient], key: str) -> FlaskClient:
    return client_of(key)


@pytest.fixture
def base_url(web: Flask) -> Iterator[str]:
    """The address of a real HTTP server on loopback."""
    server = make_server("127.0.0.1", 0, web, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nothing_enqueued(store: Store, redis: Redis) -> Callable[[], bool]:
    """Whether Postgres has no job and no key, and Redis no message and no reservation."""

    def look() -> bool:
        with store.begin() as db:
            rows = [db.scalar(sa.select(sa.func.count()).select_from(table)) for table in (jobs, idempotency_keys)]
        queues = [*lane_queues("chat"), *lane_queues("overflow")]
        keys = [key for queue in queues for key in (list_key(queue), reservations_key(queue))]
        return rows == [0, 0] and redis.exists(*keys) == 0

    return look


@pytest.fixture
def finish(store: Store, admission: Admission) -> Callable[..., None]:
    """Ends a queued job as a worker would: claims it, finishes it, and announces it."""

    def end(job_id: UUID, text: str = "Because of Rayleigh scattering.", finish_reason: str = "stop") -> None:
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
        with store.begin() as db:
            workers.register(db, worker, 30)
            claim = attempts.claim(db, job_id, 1, worker.id, "simulator")
            assert claim is not None
            cost = Cost(Decimal("0.00000123"), "test-1")
            end = AttemptEnd("succeeded", 0.5, cost, "compute", Usage(9, 7, 2), text, finish_reason, "served")
            attempts.finish(db, claim, JobState.SUCCEEDED, end)
        admission.announce_ended([job_id])

    return end
