"""The task that decides: one row a tick, and in the mode `active` leases that say what is wanted."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from headrace import connections
from headrace.config import ScalingSettings
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.errors import LockHeld
from headrace.policies.scaling.decisions import VERSION
from headrace.store import Store
from headrace.store.fleet import workers
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps

STATES = (
    "SELECT CASE WHEN drain_at IS NOT NULL THEN 'draining' WHEN ready_at IS NOT NULL THEN 'ready' ELSE 'wanted' END,"
    " count(*) FROM hosts WHERE ended_at IS NULL GROUP BY 1"
)


@pytest.fixture
def want(deps: ControlDeps, query: Any) -> Callable[..., ControlDeps]:
    """The pool `chat` shall have this number of hosts; a tick comes at once."""

    def fix(count: int, mode: str = "active", max_hosts: int = 6) -> ControlDeps:
        query("UPDATE decisions SET at = at - interval '1 minute'")
        values = {"mode": mode, "actuator": "command", "policy": "fixed", "fixed_hosts": count}
        settings = ScalingSettings(min_hosts=0, max_hosts=max_hosts, **values)
        return replace(deps, settings=deps.settings.model_copy(update={"scaling": settings}))

    return fix


@pytest.fixture
def states(query: Any) -> Callable[[], dict[str, int]]:
    return lambda: dict(query(STATES))


@pytest.fixture
def observed(query: Any) -> None:
    """The pool was observed just now."""
    query(
        "INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts)"
        " SELECT 'chat.' || lane, now() - n * interval '5 seconds', 0, 0, 0, 0, 0, 0, 8, 1"
        " FROM unnest(ARRAY['high', 'normal', 'low', 'batch']) lane, generate_series(0, 120) n"
    )


@pytest.fixture
def become_ready(deps: ControlDeps, query: Any) -> Callable[[], None]:
    """Every ordered host becomes ready, with a worker on it."""

    def start() -> None:
        for (host_id,) in query("SELECT id FROM hosts WHERE ready_at IS NULL AND ended_at IS NULL"):
            with deps.store.begin() as db:
                workers.register(db, WorkerInfo(new_id(), "gpu", host_id, "chat", "simulator", "m", 8), 10.0)
        query("UPDATE hosts SET ordered_at = now(), ready_at = now() WHERE ready_at IS NULL")

    return start


@pytest.mark.usefixtures("observed")
def test_a_decision_writes_leases_and_its_row_says_all(want: Any, states: Any, query: Any) -> None:
    autoscale(want(3))
    assert states() == {"wanted": 3}
    [(decision_id, *row)] = query("SELECT id, mode, hosts, target, action, policy, version, applied_at FROM decisions")
    assert row == ["active", 0, 3, "up", "fixed", VERSION, None]
    assert query("SELECT DISTINCT decision_id FROM hosts") == [(decision_id,)]
    assert autoscale(want(3))["chat"].target == 3
    assert states() == {"wanted": 3}


@pytest.mark.usefixtures("observed")
def test_while_the_provider_accepts_no_order_none_is_added(want: Any, states: Any, query: Any) -> None:
    autoscale(want(3))
    autoscale(want(5))
    assert states() == {"wanted": 3}
    query("UPDATE hosts SET ordered_at = now()")
    autoscale(want(5))
    assert query("SELECT count(*) FROM hosts") == [(5,)]


@pytest.mark.usefixtures("observed")
def test_advice_moves_no_host(want: Any, states: Any, query: Any) -> None:
    autoscale(want(3, mode="advisory"))
    assert states() == {}
    assert query("SELECT target, action, applied_at FROM decisions") == [(3, "up", None)]


@pytest.mark.usefixtures("observed")
def test_hosts_are_drained_and_called_back_before_any_is_ordered(
    want: Any, states: Any, query: Any, become_ready: Any
) -> None:
    autoscale(want(4))
    become_ready()
    autoscale(want(2))
    assert states() == {"draining": 2, "ready": 2}
    assert query("SELECT applied_at IS NOT NULL FROM decisions WHERE action = 'down'") == [(True,)]
    autoscale(want(3))
    assert states() == {"draining": 1, "ready": 3}
    assert query("SELECT applied_at IS NOT NULL FROM decisions WHERE target = 3") == [(True,)]
    autoscale(want(5))
    assert states() == {"ready": 4, "wanted": 1}
    assert query("SELECT applied_at FROM decisions WHERE target = 5") == [(None,)]


@pytest.mark.usefixtures("observed")
def test_orders_in_flight_never_exceed_the_maximum(want: Any, states: Any, query: Any, become_ready: Any) -> None:
    autoscale(want(4, max_hosts=4))
    become_ready()
    query("UPDATE workers SET lease_until = now() - interval '1 second'")
    assert autoscale(want(4, max_hosts=4))["chat"].target == 4
    assert states() == {"ready": 4}


@pytest.mark.usefixtures("observed")
def test_a_second_tick_within_half_an_interval_decides_nothing(want: Any, query: Any) -> None:
    deps = want(3)
    assert autoscale(deps).keys() == {"chat"}
    query("UPDATE decisions SET at = at - interval '14 seconds'")
    assert autoscale(deps) == {}
    query("UPDATE decisions SET at = at - interval '2 seconds'")
    assert autoscale(deps).keys() == {"chat"}


@pytest.mark.usefixtures("observed")
def test_decisions_go_on_after_the_clock_was_ahead(want: Any, query: Any) -> None:
    deps = want(3)
    autoscale(deps)
    query("UPDATE decisions SET at = at + interval '2 hours'")
    assert autoscale(deps).keys() == {"chat"}


@pytest.fixture
def twins(deps: ControlDeps) -> Iterator[list[Store]]:
    """The connections of two control processes."""
    engines = [connections.postgres(deps.settings) for _ in range(2)]
    yield [Store(engine) for engine in engines]
    for engine in engines:
        engine.dispose()


@pytest.mark.usefixtures("observed")
def test_two_control_processes_with_two_beats_write_one_row_a_tick(
    twins: list[Store], want: Any, states: Any, query: Any
) -> None:
    barrier = Barrier(len(twins))

    def tick(deps: ControlDeps) -> int:
        barrier.wait(10)
        made = 0
        for _ in range(2):
            with suppress(LockHeld):
                made += len(autoscale(deps))
        return made

    with ThreadPoolExecutor(len(twins)) as threads:
        for count in range(1, 6):
            deps = want(count)
            assert sum(threads.map(tick, [replace(deps, store=store) for store in twins])) == 1
            query("UPDATE hosts SET ordered_at = now() WHERE ordered_at IS NULL")
    assert states() == {"wanted": 5}
    assert query("SELECT target FROM decisions ORDER BY id") == [(1,), (2,), (3,), (4,), (5,)]


def idle_under(deps: ControlDeps, policy: str = "reactive") -> ControlDeps:
    """This policy decides; the pool is idle, so that it removes hosts if it can."""
    values = {"mode": "active", "actuator": "command", "policy": policy, "min_hosts": 0}
    return replace(deps, settings=deps.settings.model_copy(update={"scaling": ScalingSettings(**values)}))


@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize("policy", ["reactive", "predictive", "schedule"])
def test_no_host_is_removed_after_ten_minutes_without_beat(
    want: Any, states: Any, query: Any, become_ready: Any, policy: str
) -> None:
    deps = want(3)
    autoscale(deps)
    become_ready()
    query("UPDATE queue_samples SET at = at - interval '11 minutes'")
    query("UPDATE decisions SET at = at - interval '11 minutes', applied_at = now() - interval '11 minutes'")
    assert autoscale(idle_under(deps, policy))["chat"].target == 3
    assert states() == {"ready": 3}


@pytest.mark.usefixtures("observed")
def test_only_an_applied_change_starts_the_cooldown(want: Any, states: Any, query: Any, become_ready: Any) -> None:
    deps = idle_under(want(3))
    autoscale(want(3))
    become_ready()
    # The provider has accepted nothing yet: no cooldown.
    query("UPDATE decisions SET at = at - interval '1 minute'")
    assert autoscale(deps)["chat"].target == 2
    query("UPDATE decisions SET at = at - interval '1 minute'")
    assert "cools down" in autoscale(deps)["chat"].reason
    query("UPDATE decisions SET at = at - interval '1 minute', applied_at = NULL")
    assert autoscale(deps)["chat"].target == 1
    assert states() == {"draining": 2, "ready": 1}
