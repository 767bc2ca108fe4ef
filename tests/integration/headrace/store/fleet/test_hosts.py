"""Leases of hosts: which host costs least to lose, what can be called back, and what workers say of a host."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.fleet import ScalingRecord, WorkerInfo
from headrace.domain.hosts import HostEnd, HostState
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.fleet import decisions, hosts, workers
from headrace.store.fleet.hosts import HostPrice
from tests import one_attempt

PRICE = HostPrice("a100", None)
UP = ScalingRecord("chat", "active", 0, 3, "up", {}, "up")


@pytest.fixture
def order(store: Store, query: Any) -> Callable[[int], list[str]]:
    """Orders hosts; each was requested a minute after the one before, and the provider accepted them."""

    def add(count: int) -> list[str]:
        ids = []
        for _ in range(count):
            query("UPDATE hosts SET requested_at = requested_at - interval '1 minute', ordered_at = requested_at")
            with store.begin() as db:
                decision_id = decisions.add(db, replace(UP, target=count))
                ids += hosts.add_orders(db, "chat", 1, PRICE, decision_id)
        query("UPDATE hosts SET ordered_at = requested_at")
        return ids

    return add


@pytest.fixture
def work_on(store: Store) -> Callable[..., UUID]:
    """Starts a worker on a host, which runs these jobs."""

    def start(host_id: str, tickets: Sequence[Ticket] = (), pool: str = "chat") -> UUID:
        worker = WorkerInfo(new_id(), f"gpu@{host_id}", host_id, pool, "simulator", "m", max_running=8)
        with store.begin() as db:
            workers.register(db, worker, 10.0)
            hosts.note_ready(db, pool)
            for ticket in tickets:
                assert one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker.id, "simulator")
        return worker.id

    return start


def test_the_cheapest_host_is_not_ready_then_has_the_least_to_do(
    store: Store, order: Any, work_on: Any, queued: Any, make_spec: Any
) -> None:
    busy, idle, some, first, last = order(5)
    work_on(busy, [queued() for _ in range(3)])
    work_on(some, [queued()])
    work_on(idle)
    with store.begin() as db:
        assert hosts.cheapest(db, "chat", 9) == [last, first, idle, some, busy]
        assert hosts.cheapest(db, "chat", 2) == [last, first]
        assert [each.tokens_left for each in hosts.work(db, "chat")] == [48, 0, 16, 0, 0]


def test_idle_hosts_go_by_the_end_of_their_paid_hour_then_by_age(
    store: Store, order: Any, work_on: Any, query: Any
) -> None:
    ids = order(4)
    for host_id in ids:
        work_on(host_id)
    for host_id, minutes in zip(ids, (59, 10, 119, 118), strict=True):
        query(
            f"UPDATE hosts SET ordered_at = now() - interval '{minutes} minutes 30 seconds' WHERE id = :id", id=host_id
        )
    with store.begin() as db:
        assert hosts.cheapest(db, "chat", 4) == [ids[0], ids[2], ids[3], ids[1]]


def test_a_host_that_cannot_be_ended_or_serves_nothing_is_not_chosen(
    store: Store, order: Any, work_on: Any, query: Any
) -> None:
    [silent] = order(1)
    query("UPDATE workers SET lease_until = now() WHERE id = :id", id=work_on(silent))
    work_on("a-machine")
    with store.begin() as db:
        [stray] = hosts.strays(db, "chat")
        assert hosts.adopt(db, "chat", stray, PRICE, None) == "a-machine"
        assert hosts.cheapest(db, "chat", 9) == []


def test_a_draining_host_is_called_back_until_it_is_released(
    store: Store, order: Any, work_on: Any, query: Any
) -> None:
    ids = order(5)
    for host_id in ids[:4]:
        work_on(host_id)
    with store.begin() as db:
        assert hosts.drain(db, [*ids[:2], ids[4]], HostEnd.SCALED_DOWN, 7) == sorted([*ids[:2], ids[4]])
        assert hosts.drain(db, [ids[2]], HostEnd.BY_HAND) == [ids[2]]
        assert hosts.drain(db, [ids[2]], HostEnd.SCALED_DOWN, 7) == []
        assert hosts.note_released(db, [ids[0], ids[3]]) == [ids[0]]
    with store.begin() as db:
        assert hosts.call_back(db, "chat", 9) == [ids[1]]
    of_all = query("SELECT id, drain_at IS NULL, end_reason, drain_decision_id FROM hosts")
    assert {row[0] for row in of_all if row[1:] == (True, None, None)} == {ids[1], ids[3]}


def test_the_last_drained_is_called_back_first(store: Store, order: Any, work_on: Any) -> None:
    ids = order(3)
    for host_id in ids:
        work_on(host_id)
        with store.begin() as db:
            hosts.drain(db, [host_id], HostEnd.SCALED_DOWN)
    with store.begin() as db:
        assert hosts.call_back(db, "chat", 1) == [ids[2]]


def test_workers_name_their_host_by_our_id_or_the_providers(store: Store, order: Any, work_on: Any) -> None:
    ours, theirs = order(2)
    with store.begin() as db:
        hosts.note_provider_ids(db, {theirs: "i-1"})
    work_on(ours)
    work_on("i-1")
    work_on(ours, pool="fast")
    with store.begin() as db:
        assert [(each.lease.state, each.workers) for each in hosts.work(db, "chat")] == [(HostState.READY, 1)] * 2
        assert hosts.strays(db, "chat") == []
        assert [stray.name for stray in hosts.strays(db, "fast")] == [ours]


def test_a_name_that_comes_again_is_a_new_lease(store: Store, work_on: Any, query: Any) -> None:
    work_on("a-machine")
    for _ in range(2):
        with store.begin() as db:
            [stray] = hosts.strays(db, "chat")
            adopted = hosts.adopt(db, "chat", stray, PRICE, None)
            assert adopted
            assert hosts.adopt(db, "chat", stray, PRICE, None) is None
            assert hosts.strays(db, "chat") == []
            assert hosts.end(db, [adopted], HostEnd.GONE) == [adopted]
    rows = query("SELECT id, provider_id, is_adopted, end_reason FROM hosts ORDER BY requested_at")
    assert rows[0] == ("a-machine", None, True, "gone")
    assert rows[1][1:] == ("a-machine", True, "gone")


def test_a_decision_is_applied_when_the_provider_has_accepted_all_that_is_still_wanted(
    store: Store, query: Any
) -> None:
    with store.begin() as db:
        decision_id = decisions.add(db, UP)
        ids = hosts.add_orders(db, "chat", 3, PRICE, decision_id)
        assert decisions.apply_ordered(db, "chat") == []
        hosts.note_ordered(db, ids[:1])
        decisions.note_call(db, ids, "2 of 3 were refused")
        assert decisions.apply_ordered(db, "chat") == []
        hosts.drain(db, ids[1:2], HostEnd.SCALED_DOWN, 99)
        hosts.note_ordered(db, ids[2:])
        decisions.note_call(db, ids[1:], None)
        assert decisions.apply_ordered(db, "chat") == [decision_id]
        assert decisions.apply_ordered(db, "chat") == []
    assert query("SELECT tries, error, applied_at IS NOT NULL FROM decisions") == [(2, "2 of 3 were refused", True)]


def test_a_pool_without_any_process_left_has_no_lease_and_no_worker(
    store: Store, order: Any, work_on: Any, query: Any
) -> None:
    silent, alive, requested, draining = order(4)
    for host_id in (silent, alive, draining):
        work_on(host_id)
    work_on("stray")
    work_on("code-1", pool="code")
    query("UPDATE hosts SET requested_at = now() - interval '1 hour', ordered_at = now() - interval '1 hour'")
    query("UPDATE workers SET lease_until = now() - interval '30 minutes' WHERE host_id = :id", id=silent)
    with store.begin() as db:
        assert hosts.drain(db, [draining], HostEnd.SCALED_DOWN) == [draining]
        workers.retire_all(db, "chat", "restarted")
        assert hosts.end_all(db, "chat") == sorted([silent, alive, requested, draining])
        assert hosts.end_all(db, "chat") == []
        assert hosts.strays(db, "chat") == []
        assert [stray.name for stray in hosts.strays(db, "code")] == ["code-1"]
    ended = {
        host_id: (minutes, reason)
        for host_id, minutes, reason in query(
            "SELECT id, round(extract(epoch FROM ended_at - requested_at) / 60)::int, end_reason FROM hosts"
        )
    }
    # As of the last sign of life: of one that never had a worker, its order.
    assert ended == {
        silent: (30, "gone"),
        alive: (60, "gone"),
        requested: (0, "gone"),
        draining: (60, "scaled_down"),
    }
    reasons = query("SELECT host_id, stop_reason FROM workers WHERE stop_reason IS NOT NULL ORDER BY host_id")
    assert reasons == sorted([(alive, "restarted"), (draining, "restarted"), ("stray", "restarted")])


def test_one_process_at_a_time_asks_a_provider(store: Store, query: Any) -> None:
    first, second = UUID(int=1), UUID(int=2)
    with store.begin() as db:
        assert hosts.claim_pool(db, "chat", first, 60)
        assert hosts.claim_pool(db, "fast", second, 60)
    with store.begin() as db:
        assert not hosts.claim_pool(db, "chat", second, 60)
        assert not hosts.hold_pool(db, "chat", second, 60)
        assert hosts.hold_pool(db, "chat", first, 60)
    query("UPDATE host_actors SET until = now()")
    with store.begin() as db:
        assert not hosts.hold_pool(db, "chat", first, 60)
        assert hosts.claim_pool(db, "chat", second, 60)
        hosts.give_up_pool(db, "chat", first)
        hosts.give_up_pool(db, "chat", second)
    with store.begin() as db:
        assert hosts.claim_pool(db, "chat", first, 60)
