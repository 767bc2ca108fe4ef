"""Each figure of /queues, /hosts and /deliveries is that of the rows, as is what hosts cost in the last hour."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.broker.admission import Admission
from headrace.domain.apps import App
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.places import Ask, Candidate
from headrace.domain.queues import Lane, Ticket
from headrace.policies.forecasting import LaneRates, PoolRates, to_json
from headrace.store import Store, apps
from headrace.store.fleet import workers
from headrace.tables import decisions, deliveries, hosts, paused_receivers, worker_samples
from ops.shown import number, seconds, usd
from tests import one_attempt
from tests.integration.ops.browser import Browser, plain, rows_of

Query = Callable[..., list[tuple[Any, ...]]]

MINUTE = timedelta(minutes=1)


@pytest.fixture
def other(store: Store) -> App:
    with store.begin() as db:
        return apps.ensure(db, "other")


@pytest.fixture
def waiting(app: App, other: App, admission: Admission, queued: Callable[..., Ticket], query: Query) -> list[Ticket]:
    """Jobs of two apps that wait in two lanes, the oldest for 5 minutes."""
    tickets = [
        queued(app_id=owner.id, lane=lane, prompt_tokens=tokens)
        for owner, lane, tokens in (
            *((app, Lane.NORMAL, 8), (app, Lane.NORMAL, 50), (other, Lane.NORMAL, 300)),
            *((app, Lane.HIGH, 20), (app, Lane.BATCH, 70)),
        )
    ]
    for each in tickets:
        tokens = each.prompt_tokens + each.max_tokens
        admission.reserve([Ask(each.job_id, each.app_id, tokens, (Candidate(each.queue, 9, 9_999, None, "test"),))])
    admission.commit(tickets)
    query("UPDATE jobs SET queued_at = now() - interval '5 minutes' WHERE id = :id", id=tickets[1].job_id)
    return tickets


@pytest.fixture
def leased(store: Store, queued: Callable[..., Ticket]) -> None:
    """A ready host with two workers and a draining one with one, ordered and ended hosts, and a worker that is lost.

    Three jobs run on the ready host and one on the draining one.
    """
    running = [queued() for _ in range(4)]
    with store.begin() as db:
        now = db.scalar(sa.select(sa.func.now()))
        for name, usd_per_hour, ordered, ready, more in (
            ("ready", 2, 90, 80, {}),
            ("draining", 3, 45, 40, {"drain_at": now, "end_reason": "by_hand"}),
            ("ordered", 5, 30, None, {}),
            ("asked", 7, None, None, {}),
            ("ended", 4, 150, 140, {"ended_at": now - 20 * MINUTE, "end_reason": "gone"}),
        ):
            times = {
                key: minutes and now - minutes * MINUTE
                for key, minutes in (("ordered_at", ordered), ("ready_at", ready))
            }
            lease = {"pool": "chat", "usd_per_hour": usd_per_hour, "requested_at": now - (ordered or 10) * MINUTE}
            db.execute(sa.insert(hosts).values(id=name, **lease, **times, **more))
        infos = [
            WorkerInfo(new_id(), f"gpu@{host}{slots}", host, "chat", "simulator", "test-model", slots)
            for host, slots in (("ready", 4), ("ready", 2), ("draining", 8), ("ready", 16))
        ]
        for info in infos:
            workers.register(db, info, -1 if info.max_running == 16 else 60)
        for ticket, at in zip(running, (0, 0, 1, 2), strict=True):
            assert one_attempt.claim(db, ticket.job_id, 1, infos[at].id, "simulator")


def test_the_queues_have_the_figures_of_the_jobs_and_workers(
    viewer: Browser, waiting: list[Ticket], leased: None, admission: Admission, query: Query
) -> None:
    rates = PoolRates(10.0, {lane: LaneRates(0.0, 50.0) for lane in Lane})
    admission.publish_outlook(to_json({"chat": rates}), 60)
    rows = {row[0]: row for row in rows_of(viewer.get("/queues").text, "Queues")}
    found = query(
        "SELECT queue, count(*), sum(prompt_tokens + max_tokens), count(DISTINCT app_id), "
        "extract(epoch FROM now() - min(queued_at)) FROM jobs WHERE state = 'queued' GROUP BY queue"
    )
    assert {queue for queue, *_ in found} == {"chat.normal", "chat.high", "chat.batch"}
    for queue, depth, tokens, num_apps, _ in found:
        assert [rows[queue][at] for at in (1, 3, 5)] == [number(depth), number(tokens), number(num_apps)]
    assert rows["chat.normal"][6] == "5 min"
    assert rows["chat.low"][1:7:2] == ["0", "0", "0"]
    serving = "lease_until > now() AND host_id <> 'draining'"
    [(slots,)] = query(f"SELECT sum(max_running) FROM workers WHERE {serving}")
    [(alive,)] = query("SELECT count(*) FROM workers WHERE lease_until > now()")
    [(running,)] = query(f"SELECT count(*) FROM jobs JOIN workers w ON w.id = worker_id WHERE {serving}")
    for name, row in rows.items():
        assert row[9:] == [number(10.0 * slots), number(running), number(slots), number(alive)], name
    page = plain(viewer.get("/queues").text)
    # One more job runs, on a host that drains.
    assert query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(running + 1,)]
    assert "Running, slots and workers are of the whole pool, running and slots without draining hosts." in page


def test_the_expected_wait_is_what_waits_over_what_drains(
    viewer: Browser, app: App, queued: Callable[..., Ticket], admission: Admission, store: Store, query: Query
) -> None:
    waiting, running = [queued(prompt_tokens=tokens) for tokens in (8, 50, 300)], [queued(), queued()]
    for each in waiting:
        tokens = each.prompt_tokens + each.max_tokens
        admission.reserve([Ask(each.job_id, app.id, tokens, (Candidate(each.queue, 9, 9_999, None, "test"),))])
    admission.commit(waiting)
    with store.begin() as db:
        worker = WorkerInfo(new_id(), "gpu@ready", "ready", "chat", "simulator", "test-model", 2)
        workers.register(db, worker, 60)
        for ticket in running:
            assert one_attempt.claim(db, ticket.job_id, 1, worker.id, "simulator")
    admission.publish_outlook(to_json({"chat": PoolRates(10.0, {})}), 60)
    [(jobs, tokens)] = query("SELECT count(*), sum(prompt_tokens + max_tokens) FROM jobs WHERE state = 'queued'")
    # Both slots are taken, so those that wait drain first, and one more of their mean size, at 20 tokens a second.
    expected_s = float(tokens) / jobs * (jobs + 1) / 20
    for path in ("/queues", "/"):
        rows = {row[0]: row for row in rows_of(viewer.get(path).text, "Queues")}
        assert rows["chat.normal"][7 if path == "/queues" else 3] == seconds(expected_s)


def test_the_gpus_of_a_pool_are_the_means_of_its_workers_and_the_sum_of_their_power(
    viewer: Browser, store: Store, query: Query
) -> None:
    busy, idle = new_id(), new_id()
    zeros = dict.fromkeys(("interval_s", "running", "waiting", "steps", "prompt_tokens", "output_tokens"), 0)
    with store.begin() as db:
        for worker_id, gpu_use, gpu_memory, gpu_watts, old_s in (
            *((busy, 0.9, 0.8, 300, 0), (busy, 0.7, 0.8, 280, 1), (busy, 0.1, 0.1, 10, 60)),
            (idle, 0.0, 0.5, 60, 0),
        ):
            gpus = {"gpu_use": gpu_use, "gpu_memory": gpu_memory, "gpu_watts": gpu_watts}
            at = sa.func.now() - timedelta(seconds=old_s)
            of_worker = {"worker_id": worker_id, "pool": "chat", "preemptions": 0, "taken_at": at}
            db.execute(sa.insert(worker_samples).values(**zeros, **of_worker, **gpus))
    page = plain(viewer.get("/queues").text)
    # The busy one by its two samples of the last seconds: 80 % and 290 W.
    assert "40% of the time in use, 65% of their memory taken, 350 W." in page


def test_the_hosts_have_the_figures_of_their_leases_workers_and_jobs(
    viewer: Browser, leased: None, query: Query
) -> None:
    cost = (
        "SELECT id, coalesce(usd_per_hour * extract(epoch FROM coalesce(ended_at, now()) - ordered_at) / 3600, 0), "
        "usd_per_hour, (SELECT count(*) FROM workers w WHERE w.host_id = h.id AND lease_until > now()), "
        "(SELECT count(*) FROM jobs j JOIN workers w ON w.id = j.worker_id WHERE w.host_id = h.id) FROM hosts h"
    )
    before, page = query(cost), viewer.get("/hosts").text
    after = {row[0]: row[1] for row in query(cost)}
    live, _, ended = page.partition("Ended hosts")
    rows = {row[0]: row for part in (live, ended) for row in rows_of(part, "Hosts")}
    assert rows.keys() == after.keys() == {"ready", "draining", "ordered", "asked", "ended"}
    for host, least, usd_per_hour, num_workers, running in before:
        assert rows[host][6:9] == [f"{num_workers}", f"{running}", usd(usd_per_hour)]
        assert least - Decimal("0.005") <= Decimal(rows[host][9]) <= after[host] + Decimal("0.005"), host
    assert "Pool chat: 1 ready, 2 requested, 1 draining." in plain(page)


def test_what_hosts_cost_in_the_last_hour_is_that_of_their_leases(viewer: Browser, leased: None, query: Query) -> None:
    hour = (
        "SELECT sum(usd_per_hour * extract(epoch FROM coalesce(ended_at, now()) "
        "- greatest(ordered_at, now() - interval '1 hour')) / 3600) FROM hosts WHERE ordered_at IS NOT NULL"
    )
    [(least,)] = query(hour)
    shown = re.search(r"Hosts, USD in the last hour ([0-9.]+) ", plain(viewer.get("/").text))
    [(most,)] = query(hour)
    # Each of the four that were ordered, for as much of the hour as it was there.
    assert least == pytest.approx(Decimal(2 + 3 * 45 / 60 + 5 * 30 / 60 + 4 * 40 / 60), abs=Decimal("0.1"))
    # The ready one has begun before, so its cost is the same; a host that ended costs less and less.
    slack = Decimal("0.006") + abs(most - least)
    assert shown is not None
    assert min(least, most) - slack <= Decimal(shown[1]) <= max(least, most) + slack


def test_decisions_in_a_row_are_counted(viewer: Browser, store: Store, query: Query) -> None:
    common = {"pool": "chat", "mode": "active", "inputs": {}, "policy": "reactive", "reason": "test"}
    with store.begin() as db:
        for minute, hosts_, target, action in (
            (9, 1, 1, "hold"),
            (8, 1, 1, "hold"),
            (7, 1, 3, "up"),
            (5, 3, 3, "hold"),
        ):
            at = sa.func.now() - minute * MINUTE
            db.execute(sa.insert(decisions).values(**common, hosts=hosts_, target=target, action=action, at=at))
    rows = rows_of(viewer.get("/hosts").text, "Decisions")
    assert [row[2:6] for row in rows] == [["1", "hold", "3", "3"], ["1", "up", "1", "3"], ["2", "hold", "1", "1"]]
    assert sum(int(row[2]) for row in rows) == query("SELECT count(*) FROM decisions")[0][0]


def test_the_deliveries_have_the_figures_of_the_outbox(
    viewer: Browser, store: Store, app: App, other: App, query: Query
) -> None:
    hook, elsewhere = "https://Hooks.example.com/a", "https://hooks.example.com:8443/b"
    with store.begin() as db:
        for owner, url, state, tries, status, error in (
            *((app, hook, "pending", 0, None, None), (app, hook, "pending", 2, 503, None)),
            *((app, hook, "delivered", 3, 204, None), (app, hook, "failed", 9, None, "no route")),
            *((app, elsewhere, "pending", 1, 500, None), (app, elsewhere.upper(), "pending", 5, 502, None)),
            (other, hook, "pending", 4, 429, None),
        ):
            row = {"app_id": owner.id, "url": url, "state": state, "tries": tries, "event": "test", "data": {}}
            db.execute(sa.insert(deliveries).values(id=new_id(), **row, last_status=status, last_error=error))
        db.execute(sa.insert(paused_receivers).values(app_id=app.id, receiver="hooks.example.com"))
    text = viewer.get("/deliveries").text
    rows = {row[0].split()[0]: row for row in rows_of(text, "Deliveries")}
    is_paused = "app_id = :app AND url = :url"
    found = query(
        f"SELECT 'evt_' || replace(id::text, '-', ''), tries, coalesce(last_error, last_status::text, '-'), "
        f"CASE WHEN state <> 'pending' THEN state WHEN {is_paused} THEN 'paused' WHEN tries > 0 THEN 'retrying' "
        "ELSE state END FROM deliveries",
        app=app.id,
        url=hook,
    )
    assert {name: row[2:5] for name, row in rows.items()} == {
        name: [state, f"{tries}", last] for name, tries, last, state in found
    }
    [(waits,)] = query(f"SELECT count(*) FROM deliveries WHERE state = 'pending' AND {is_paused}", app=app.id, url=hook)
    [cells] = rows_of(text, "Paused receivers")
    assert (cells[0], cells[1], cells[4]) == ("test", "hooks.example.com", f"{waits}")
    failing = query(
        "SELECT coalesce(app_id::text, ''), count(*), sum(tries), array_agg(last_status::text) FROM deliveries "
        f"WHERE state = 'pending' AND tries > 0 AND NOT ({is_paused}) GROUP BY app_id, lower(split_part(url, '/', 3))",
        app=app.id,
        url=hook,
    )
    names = {f"{app.id}": "test", f"{other.id}": "other"}
    receivers = {row[1]: row[2:] for row in rows_of(viewer.get("/").text, "Receivers")}
    assert receivers.keys() == {names[owner] for owner, *_ in failing} == {"test", "other"}
    for owner, num, tries, answers in failing:
        assert receivers[names[owner]][:2] == [f"{num}", f"{tries}"]
        assert receivers[names[owner]][2] in answers
    for state, num in query("SELECT state, count(*) FROM deliveries WHERE state <> 'pending' GROUP BY state"):
        assert len(rows_of(viewer.get(f"/deliveries?state={state}").text, "Deliveries")) == num
