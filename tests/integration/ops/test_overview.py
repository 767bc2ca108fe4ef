"""The first page: what is wrong, in which words, and what is shown when a server does not answer."""

import html
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask

from headrace.broker import overview
from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.fleet import ProcessInfo, ProcessKind
from headrace.domain.ids import new_id
from headrace.domain.operators import Operator, Role
from headrace.errors import StoreBusy
from headrace.policies.health import Facts, problems
from headrace.store import Store
from headrace.store.fleet import processes
from headrace.tables import deliveries, hosts, queue_samples
from tests.integration.ops.browser import Browser
from tests.waiting import until

ReadOnly = Callable[[], AbstractContextManager[None]]
URL = "https://user:secret@hooks.example.com/secret"


@pytest.fixture
def all_live(store: Store) -> None:
    """A live process of each kind."""
    with store.begin() as db:
        for kind in ProcessKind:
            info = ProcessInfo(new_id(), kind, f"{kind}@one", "one", 7, "0.1.0", None, None)
            processes.beat(db, info, {})


@pytest.fixture
def read(store: Store, admission: Admission, settings: Settings) -> Callable[[], Facts]:
    return lambda: overview.read(store, admission, settings, lambda _queue: None).facts


def said(page: str) -> list[str]:
    """What the page says is wrong."""
    return [html.unescape(each) for each in re.findall(r"<li class=\"(?:act|watch)\"><b>(.*?)</b>", page)]


def test_the_first_page_says_that_nothing_is_wrong_and_refreshes_itself(viewer: Browser, all_live: None) -> None:
    page = viewer.get("/").text
    assert (said(page), "Nothing is wrong." in page) == ([], True)
    assert '<meta http-equiv="refresh" content="3">' in page
    assert "http-equiv" not in viewer.get("/?still=1").text
    for name in ("chat.high", "chat.batch", "web@one", "beat@one"):
        assert name in page


def test_a_process_without_a_sign_is_named_with_what_to_do(
    viewer: Browser, all_live: None, query: Callable[..., object]
) -> None:
    query("UPDATE processes SET seen_at = now() - interval '20 s' WHERE kind = 'control'")
    page = viewer.get("/").text
    [only] = said(page)
    assert re.match(r"control@one has given no sign of life for 2\d s\. No job expires", only)
    assert "see the log of 'control' on one" in html.unescape(page)


def test_without_redis_the_page_names_it_and_shows_the_rest(
    build_pages: Callable[..., Flask], make_operator: Callable[[str, Role], Operator], all_live: None
) -> None:
    make_operator("ann", Role.VIEWER)
    browser = Browser(build_pages(redis_url="redis://127.0.0.1:1/0").test_client())
    browser.log_in("ann")
    response = browser.get("/")
    assert (response.status_code, said(response.text)) == (200, ["Redis does not answer."])
    assert "web@one" in response.text


def test_where_postgres_takes_no_writes_the_page_names_that_alone_and_goes_on_to_ask(
    viewer: Browser, all_live: None, query: Callable[..., object], read_only: ReadOnly
) -> None:
    query("UPDATE processes SET seen_at = now() - interval '20 s'")
    assert viewer.get("/").status_code == 200
    with read_only():
        # A connection that was open before can read.
        [only] = said(viewer.get("/").text)
        assert only.startswith("Postgres takes no writes")
        # No new one can be had.
        closed = viewer.get("/")
        assert (closed.status_code, "Postgres takes no writes." in closed.text) == (503, True)
        assert '<meta http-equiv="refresh" content="3">' in closed.text
    assert viewer.get("/").status_code == 200


def test_while_a_table_is_locked_the_page_names_the_session_and_shows_what_needs_no_such_table(
    viewer: Browser, all_live: None, holder: Callable[[str], int]
) -> None:
    pid = holder("LOCK TABLE jobs")
    response = viewer.get("/")
    page = html.unescape(response.text)
    [only] = said(page)
    assert response.status_code == 200
    assert only.startswith("A session of Postgres has held locks for ")
    assert f"It is pid {pid}, 'a-forgotten-psql' of " in only
    assert "idle in transaction: LOCK TABLE jobs" in only
    assert f"SELECT pg_terminate_backend({pid})" in page
    assert "oldest waits (a table is locked)" in page
    assert "web@one" in page


def apps_renamed(store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE apps SET name = name"))


def test_a_session_that_holds_a_row_is_named_while_another_waits_for_it_and_not_before(
    read: Callable[[], Facts], all_live: None, app: App, store: Store, holder: Callable[[str], int]
) -> None:
    pid = holder("UPDATE apps SET name = name")
    assert (read().blockers, problems(read())) == ([], [])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(apps_renamed, store)
        seen = [read()]
        until(lambda: seen[-1].blockers or seen.append(read()), "it is named")
        facts = seen[-1]
        assert [(each.pid, each.waiting, each.query) for each in facts.blockers] == [
            (pid, 1, "UPDATE apps SET name = name")
        ]
        assert [each.rule for each in problems(facts)] == ["HeadracePostgresBlocked"]
        with pytest.raises(StoreBusy):
            waiting.result()


def test_a_receiver_that_fails_is_named_without_its_secrets(
    viewer: Browser, all_live: None, app: App, store: Store
) -> None:
    row = {"app_id": app.id, "event": "batch.completed", "data": {"id": "batch_1"}, "state": "pending"}
    with store.begin() as db:
        for number, (tries, error) in enumerate(((2, "It refused."), (1, "It refused."), (0, None))):
            due = sa.func.now() + timedelta(seconds=60)
            url = f"{URL}?job={number}"  # an app may have one for each job
            values = {**row, "id": new_id(), "url": url, "tries": tries, "last_error": error, "next_at": due}
            db.execute(sa.insert(deliveries).values(values))
    page = viewer.get("/").text
    assert said(page) == [
        "https://hooks.example.com/… does not take the webhooks of test: 2 are to be tried again. It refused."
    ]
    assert "secret" not in page


def test_jobs_of_the_last_minutes_are_told_from_those_of_the_hour_before(
    read: Callable[[], Facts], all_live: None, store: Store
) -> None:
    row = {"queue": "chat.high", "depth": 0, "oldest_wait_s": 0, "started": 0, "running": 0, "slots": 8, "hosts": 1}
    with store.begin() as db:
        for minutes, arrivals, failed in ((5, 30, 3), (40, 80, 0), (80, 500, 0)):
            at = sa.func.now() - timedelta(minutes=minutes)
            counts = {"arrivals": arrivals, "refused": 0, "ended": 30, "failed": failed}
            db.execute(sa.insert(queue_samples).values(**row, **counts, at=at))
    found = read()
    [lane] = [each for each in found.lanes if each.queue == "chat.high"]
    assert (lane.lately.arrivals, lane.lately.failed, lane.hour.arrivals) == (30, 3, 80)
    assert "10% of the jobs of chat failed in the last 15 minutes: 3 of 30." in [each.text for each in problems(found)]


def test_workers_of_hosts_that_left_are_not_missed(
    read: Callable[[], Facts], all_live: None, store: Store, query: Callable[..., object]
) -> None:
    query("UPDATE processes SET seen_at = now() - interval '20 s' WHERE kind = 'gpu'")
    assert [each.rule for each in problems(read())] == ["HeadraceProcessDown"]
    with store.begin() as db:
        times = dict.fromkeys(("requested_at", "ordered_at", "ready_at", "drain_at", "ended_at"), sa.func.now())
        db.execute(sa.insert(hosts).values(id="lease-1", provider_id="one", pool="chat", end_reason="by_hand", **times))
    assert problems(read()) == []


def test_what_hosts_and_the_paid_api_have_cost_in_the_last_hour_is_added_up(
    full: list[UUID], store: Store, admission: Admission, settings: Settings
) -> None:
    found = overview.read(store, admission, settings, lambda _queue: None)
    # Four hosts at 2 USD since an hour ago; of the paid API, what was booked at this hour's start.
    assert round(found.hosts_usd) == 8
    assert found.paid_usd in (0, Decimal("0.7"))


def test_a_paused_receiver_is_named_with_since_when_and_by_whom_and_not_as_failing(
    clerk: Browser, store: Store, app: App, all_live: None, read: Callable[[], Facts]
) -> None:
    failing = {"url": "https://hooks.example.com/a", "tries": 9, "last_error": "500", "app_id": app.id}
    with store.begin() as db:
        db.execute(sa.insert(deliveries).values(id=new_id(), event="test", data={}, **failing))
    assert "hooks.example.com" in " ".join(said(clerk.get("/").text))

    clerk.post("/deliveries/pause", {"app": "test", "receiver": "hooks.example.com"})

    assert problems(read()) == []
    [paused] = read().paused
    assert (paused.app, paused.receiver, paused.operator) == ("test", "hooks.example.com", "the-operator")
    for path in ("/", "/deliveries"):
        page = clerk.get(path).text
        assert "Paused receivers" in page
        assert "<td>the-operator<td" in page
    assert '<span class="state paused">paused</span>' in clerk.get("/deliveries").text
    clerk.post("/deliveries/resume", {"app": "test", "receiver": "hooks.example.com"})
    assert "Paused receivers" not in clerk.get("/").text
