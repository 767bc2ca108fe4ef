"""The worker of an embedding model looks jobs up if a semantic cache names its pool; others may hold them back."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.queues import KEY_PREFIX, Route, Ticket
from headrace.store import Store
from tests.integration.matching import with_semantic_cache
from tests.waiting import until
from workers.worker import Hooks, Worker

Start = Callable[..., Worker]


@pytest.fixture
def start(settings: Settings, store: Store, admission: Admission, request: pytest.FixtureRequest) -> Start:
    """Starts a worker, which is stopped at the end of the test."""

    def begin(pool: str, route: Route = Route.POOL, *, is_on: bool = True, **changes: Any) -> Worker:
        on = with_semantic_cache(settings, **changes) if is_on else settings
        chosen = on.model_copy(update={"pool": pool, "drain_s": 0.0, "openai_api_key": SecretStr("sk")})
        worker = Worker(chosen, route, store, admission, Hooks(lambda: None, lambda: None))
        worker.start(f"{pool}@test")
        request.addfinalizer(worker.stop)
        return worker

    return begin


def is_looking(redis: Redis) -> bool:
    return bool(redis.exists(f"{KEY_PREFIX}looking:embed"))


def test_the_named_pool_s_worker_makes_entries(
    start: Start, ask: Callable[..., Ticket], query: Callable[..., list[tuple[Any, ...]]], redis: Redis
) -> None:
    redis.flushall()
    worker = start("embed")
    until(lambda: is_looking(redis), "it looks")
    ticket = ask()
    until(lambda: query("SELECT job_id FROM cache_entries") == [(ticket.job_id,)], "the job's entry")
    worker.stop()
    assert not is_looking(redis)


@pytest.mark.parametrize(
    ("pool", "route", "is_on"),
    [("chat", Route.POOL, True), ("chat", Route.POOL, False), ("chat", Route.OVERFLOW, True)],
)
def test_no_other_worker_looks(start: Start, redis: Redis, pool: str, route: Route, is_on: bool) -> None:
    redis.flushall()
    worker = start(pool, route, is_on=is_on)
    worker.stop()
    assert not is_looking(redis)


@pytest.mark.parametrize(
    ("route", "on", "looks"),
    [
        (Route.OVERFLOW, {}, True),
        (Route.OVERFLOW, None, False),
        (Route.POOL, {}, False),
        (Route.POOL, {"hold_s": 0.3}, True),
        (Route.POOL, {"hold_s": 0.3, "shadow": True}, False),
    ],
)
def test_workers_that_hold_a_new_job_while_it_is_to_be_looked_up(
    start: Start,
    ask: Callable[..., Ticket],
    lookups: Any,
    monkeypatch: pytest.MonkeyPatch,
    route: Route,
    on: dict[str, Any] | None,
    looks: bool,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("headrace.broker.reuse.Lookups.is_pending", lambda _, job_id: bool(asked.append(job_id)))
    worker = start("chat", route, is_on=on is not None, **(on or {}))
    ticket = ask()
    worker.execute.lookup_hold.wait(ticket.job_id)
    assert asked == ([ticket.job_id] if looks else [])
