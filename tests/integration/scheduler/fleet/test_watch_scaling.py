"""What goes wrong with the scaling of hosts is told of once, and so is its end, in the log and to a webhook."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr

from headrace import connections
from headrace.config import BudgetSettings
from headrace.errors import LockHeld
from headrace.policies.webhooks import new_secret
from headrace.store import Store
from scheduler.deps import ControlDeps
from scheduler.fleet.watch_scaling import UNOBSERVED_INTERVALS, watch_scaling

HOOK = "https://operator.example/hook"
AT_MAXIMUM = (
    "INSERT INTO decisions (pool, mode, hosts, target, reason, inputs) VALUES ('chat', 'active', 6, 6, 'hold', '{}')"
)
TOLD = "SELECT event, data ->> 'state' FROM deliveries ORDER BY id"


@pytest.fixture
def old(active: ControlDeps) -> ControlDeps:
    """Of a process that has run for long."""
    return replace(active, made_at=-math.inf)


@pytest.fixture
def watched(old: ControlDeps) -> ControlDeps:
    """The operator has a webhook."""
    budgets = BudgetSettings(webhook_url=HOOK, webhook_secret=SecretStr(new_secret()))
    return replace(old, settings=old.settings.model_copy(update={"budgets": budgets}))


@pytest.fixture
def observe(query: Any) -> Callable[..., None]:
    """Writes a sample of the pool that is so old."""

    def sample(age_s: float = 0, *, offered: int = 0, refused: int = 0, spilled: int = 0) -> None:
        query(
            "INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots,"
            " hosts, offered, spilled) VALUES ('chat.normal', clock_timestamp() - make_interval(secs => :age_s),"
            " 0, 0, 0, :refused, 0, 0, 8, 1, :offered, :spilled)",
            age_s=age_s,
            offered=offered,
            refused=refused,
            spilled=spilled,
        )

    return sample


@pytest.fixture
def lasts(query: Any) -> Callable[[str], None]:
    """Everything that lasts began so much earlier, and was seen until now."""
    return lambda age: query(f"UPDATE scaling_alerts SET began_at = began_at - interval '{age}'")


def test_missing_observations_are_told_of_once_and_so_is_their_end(
    watched: ControlDeps, observe: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    observe(14)
    assert watch_scaling(watched) == 0
    query("UPDATE queue_samples SET at = at - interval '2 seconds'")
    with caplog.at_level(logging.INFO):
        assert [watch_scaling(watched) for _ in range(3)] == [1, 0, 0]
        observe()
        assert [watch_scaling(watched) for _ in range(3)] == [1, 0, 0]
    assert query(TOLD) == [("scaling.unobserved", "began"), ("scaling.unobserved", "ended")]
    levels = [(each.message, each.levelname) for each in caplog.records]
    assert levels == [("scaling_unobserved", "WARNING"), ("scaling_unobserved", "INFO")]
    [(url, data)] = query("SELECT url, data FROM deliveries WHERE data ->> 'state' = 'began'")
    assert (url, data["pool"], data["age_s"]) == (HOOK, "chat", pytest.approx(16, abs=1))


def test_a_system_that_has_just_started_has_three_intervals_for_its_first_observation(
    watched: ControlDeps, lasts: Any, query: Any
) -> None:
    assert watch_scaling(watched) == 0
    lasts("16 seconds")
    assert watch_scaling(watched) == 1


def test_a_system_that_has_started_again_has_three_intervals_for_its_first_observation(
    watched: ControlDeps, observe: Any
) -> None:
    observe(86400)
    bound_s = UNOBSERVED_INTERVALS * watched.settings.observe_every_s
    assert watch_scaling(replace(watched, made_at=time.monotonic())) == 0
    assert watch_scaling(replace(watched, made_at=time.monotonic() - bound_s)) == 1


def test_a_start_of_the_watch_ends_no_alert(watched: ControlDeps, observe: Any) -> None:
    observe(60)
    assert watch_scaling(watched) == 1
    assert watch_scaling(replace(watched, made_at=time.monotonic())) == 0


def test_each_host_that_is_written_off_is_told_of_once(
    watched: ControlDeps, observe: Any, want: Any, query: Any
) -> None:
    observe()
    ids = want(2)
    assert watch_scaling(watched) == 0
    query("UPDATE hosts SET drain_at = now(), end_reason = 'written_off'")
    assert [watch_scaling(watched), watch_scaling(watched)] == [2, 0]
    query("UPDATE hosts SET drain_at = now() - interval '25 hours'")
    assert [watch_scaling(watched), watch_scaling(watched)] == [0, 0]
    rows = query("SELECT event, data ->> 'host', data ->> 'state' FROM deliveries")
    assert sorted(rows) == sorted(("scaling.host_written_off", host_id, "began") for host_id in ids)


def test_a_pool_at_its_maximum_that_refuses_for_ten_minutes_is_told_of(
    watched: ControlDeps, observe: Any, lasts: Any, query: Any
) -> None:
    query(AT_MAXIMUM)
    observe()
    assert watch_scaling(watched) == 0
    observe(refused=3)
    assert watch_scaling(watched) == 0
    lasts("9 minutes 50 seconds")
    assert watch_scaling(watched) == 0
    lasts("15 seconds")
    assert [watch_scaling(watched), watch_scaling(watched)] == [1, 0]
    query("UPDATE queue_samples SET refused = 0")
    assert watch_scaling(watched) == 1
    assert query(TOLD) == [("scaling.at_maximum", "began"), ("scaling.at_maximum", "ended")]


def test_refusals_below_the_maximum_or_interrupted_ones_are_not_told_of(
    watched: ControlDeps, observe: Any, lasts: Any, query: Any
) -> None:
    query(AT_MAXIMUM)
    observe(refused=3)
    watch_scaling(watched)
    # No sweep ran meanwhile: it is not known whether it lasted.
    query("UPDATE scaling_alerts SET began_at = began_at - interval '1 hour', seen_at = seen_at - interval '2 minutes'")
    assert watch_scaling(watched) == 0
    query("UPDATE decisions SET hosts = 5")
    watch_scaling(watched)
    lasts("1 hour")
    query("UPDATE decisions SET hosts = 6")
    assert watch_scaling(watched) == 0
    assert query("SELECT count(*) FROM deliveries") == [(0,)]


def test_the_paid_apis_share_of_an_hour_is_told_of_once_until_it_is_well_below_the_bound(
    watched: ControlDeps, observe: Any, query: Any
) -> None:
    observe(4000, offered=1000, spilled=1000)
    observe(1000, offered=100, spilled=50)
    observe(offered=0)
    assert watch_scaling(watched) == 0
    query("UPDATE queue_samples SET spilled = 51 WHERE offered = 100")
    assert [watch_scaling(watched), watch_scaling(watched)] == [1, 0]
    query("UPDATE queue_samples SET spilled = 46 WHERE offered = 100")
    assert watch_scaling(watched) == 0
    query("UPDATE queue_samples SET spilled = 45 WHERE offered = 100")
    assert watch_scaling(watched) == 1
    query("UPDATE queue_samples SET spilled = 49 WHERE offered = 100")
    assert watch_scaling(watched) == 0
    assert query(TOLD) == [("scaling.overflow_share", "began"), ("scaling.overflow_share", "ended")]


def test_without_an_address_an_alert_is_logged_alone(
    old: ControlDeps, observe: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    observe(60)
    assert watch_scaling(old) == 1
    assert query("SELECT count(*) FROM deliveries") == [(0,)]
    assert "scaling_unobserved" in caplog.messages


@pytest.fixture
def twins(watched: ControlDeps) -> Iterator[list[ControlDeps]]:
    """Two control processes, each with connections of its own."""
    engines = [connections.postgres(watched.settings) for _ in range(2)]
    yield [replace(watched, store=Store(engine)) for engine in engines]
    for engine in engines:
        engine.dispose()


def test_two_at_once_tell_once(twins: list[ControlDeps], observe: Any, query: Any) -> None:
    barrier = Barrier(len(twins))

    def sweep(deps: ControlDeps) -> int:
        barrier.wait(10)
        with suppress(LockHeld):
            return watch_scaling(deps)
        return 0

    observe(60)
    with ThreadPoolExecutor(len(twins)) as threads:
        assert [sum(threads.map(sweep, twins)) for _ in range(5)] == [1, 0, 0, 0, 0]
    assert query(TOLD) == [("scaling.unobserved", "began")]
