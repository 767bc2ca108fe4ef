"""One key at two API processes at once: one job, whichever commits, and no caller waits longer than it must."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.domain.apps import App
from headrace.domain.queues import KEY_PREFIX
from headrace.store import Store, apps
from headrace.store.jobs.insertion import PATIENCE_S
from headrace.tables import jobs
from tests.web import ApiClient, Web

GOOD = {"prompt": "Why is the sky blue?"}
#: A lock that a held commit waits for.
GATE = 4711
DEADLINE_S = 20
#: Waits in the transaction of such a job, after its key was taken and before the commit.
TRIGGER = f"""
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sampling->>'seed' = '4711' THEN PERFORM pg_advisory_xact_lock_shared({GATE}); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hold AFTER INSERT ON job_texts FOR EACH ROW EXECUTE FUNCTION hold();
"""
#: The body whose commit is held.
HELD = {**GOOD, "seed": 4711}


class Gate:
    """Holds back the commits of requests with the body `HELD`, until it is opened."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._db = engine.connect()
        self._db.execute(sa.select(sa.func.pg_advisory_lock(GATE)))
        self._db.commit()

    def open(self) -> None:
        self._db.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        self._db.commit()

    def holds_one(self) -> None:
        """Return once a commit is held."""
        waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :gate AND NOT granted")
        deadline = time.monotonic() + DEADLINE_S
        while not self._db.scalar(waiting, {"gate": GATE}):
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)
        self._db.commit()

    def close(self) -> None:
        self.open()
        self._db.close()


@pytest.fixture
def gate(engine: sa.Engine) -> Iterator[Gate]:
    with engine.begin() as db:
        db.execute(sa.text(TRIGGER))
    gate = Gate(engine)
    yield gate
    gate.close()
    with engine.begin() as db:
        db.execute(sa.text("DROP TRIGGER hold ON job_texts; DROP FUNCTION hold()"))


Clients = tuple[ApiClient, ApiClient]


@pytest.fixture
def clients(build_web: Callable[..., Web], client_of: Any, key: str) -> Clients:
    """Of two API processes: nothing is shared between them but the servers behind."""
    first, second = (client_of(key, build_web()) for _ in range(2))
    return first, second


def post(client: ApiClient, body: dict[str, Any] = HELD, key: str | None = "a") -> Any:
    return client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key} if key else {})


def count(store: Store) -> int | None:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(jobs))


def test_the_second_is_answered_with_the_firsts_job_as_soon_as_that_is_durable(
    clients: Clients, gate: Gate, store: Store, redis: Redis
) -> None:
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, clients[0])
        gate.holds_one()
        second = threads.submit(post, clients[1])
        threading.Timer(0.5, gate.open).start()
        answers = [first.result(DEADLINE_S), second.result(DEADLINE_S)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].get_json()["id"] == answers[1].get_json()["id"]
    assert "Idempotent-Replayed" not in answers[0].headers
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert count(store) == 1
    assert redis.hlen(f"{KEY_PREFIX}waiting") == 1, "the second gave its place back"


def test_another_body_is_refused_as_soon_as_the_first_is_durable(clients: Clients, gate: Gate, store: Store) -> None:
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, clients[0])
        gate.holds_one()
        second = threads.submit(post, clients[1], GOOD)
        threading.Timer(0.5, gate.open).start()
        assert first.result(DEADLINE_S).status_code == 202
        refused = second.result(DEADLINE_S)
    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert count(store) == 1


def test_whoever_waits_too_long_is_told_to_come_back(
    clients: Clients, gate: Gate, store: Store, app: App, redis: Redis
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"requests_per_minute": 60})
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(post, clients[0])
        gate.holds_one()
        began = time.monotonic()
        second = post(clients[1])
        waited_s = time.monotonic() - began
        error = second.get_json()["error"]
        assert (second.status_code, error["code"], error["type"]) == (
            409,
            "idempotency_in_progress",
            "idempotency_error",
        )
        assert second.headers["Retry-After"] == "1"
        assert PATIENCE_S <= waited_s < PATIENCE_S + 2

        # No other call waits with it, and its tries have not used up its app's minute.
        unkeyed = post(clients[1], GOOD, key=None)
        assert unkeyed.status_code == 202
        assert int(unkeyed.headers["x-ratelimit-remaining-requests"]) > 40
        gate.open()
        assert first.result(DEADLINE_S).status_code == 202
    again = post(clients[1])
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.get_json()["id"] == first.result().get_json()["id"]
    assert count(store) == redis.hlen(f"{KEY_PREFIX}waiting") == 2


def test_a_key_that_came_to_another_path_is_refused(clients: Clients) -> None:
    assert post(clients[0], {"prompt": "Hi"}).status_code == 202
    other = clients[1].post("/v1/responses", json={"input": "Hi", "background": True}, headers={"Idempotency-Key": "a"})
    assert (other.status_code, other.get_json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert "another body or path. Use a new key." in other.get_json()["error"]["message"]


def test_a_deleted_jobs_key_makes_no_second_job(clients: Clients, store: Store) -> None:
    made = post(clients[0], GOOD).get_json()["id"]
    clients[0].post(f"/v1/jobs/{made}/cancel")
    assert clients[0].delete(f"/v1/jobs/{made}").status_code == 200
    assert post(clients[1], GOOD).status_code == 404
    assert count(store) == 1
