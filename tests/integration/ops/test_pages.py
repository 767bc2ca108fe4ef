"""What each page shows, and to whom: prompts, answers and secrets to one role alone."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa
from flask import Flask

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.choices import Choice
from headrace.domain.ids import new_id, show_id
from headrace.domain.operators.accounts import Operator, Role
from headrace.domain.queues import Ticket
from headrace.errors import BrokerUnavailable
from headrace.store import Store, apps
from headrace.store.clients import keys
from headrace.tables import (
    api_keys,
    cache_entries,
    cache_matches,
    decisions,
    hosts,
    job_texts,
    jobs,
    ledger,
    operators,
    workers,
)
from tests.integration.ops.browser import Browser
from tests.integration.ops.full import CANARY

MONTH = f"{datetime.now(UTC):%Y-%m}"
CHARTS = (
    *("/charts/depth.svg?pool=chat", "/charts/depth.svg?pool=chat&hours=6", "/charts/kv.svg?pool=chat&hours=168"),
    *("/charts/waits.svg", f"/charts/routes.svg?month={MONTH}", f"/charts/split.svg?pool=chat&month={MONTH}"),
)
PAGES = (
    "/jobs",
    "/queues",
    "/hosts",
    "/deliveries",
    "/apps",
    "/app?name=test",
    "/budgets",
    "/caches",
    "/cost",
    "/audit",
)


def all_pages(job_ids: list[UUID]) -> list[str]:
    return [*PAGES, *CHARTS, "/jobs?state=dead", *(f"/jobs/{show_id(job_id)}" for job_id in job_ids)]


@pytest.mark.parametrize("role", list(Role))
def test_every_role_sees_every_page_and_none_shows_a_prompt_or_a_secret_to_two_of_them(
    browser_of: Callable[[Role], Browser], full: list[UUID], store: Store, app: App, role: Role
) -> None:
    browser = browser_of(role)
    with store.begin() as db:
        key = keys.make(db, app.id, "of-the-tests")
        digest = db.scalar(sa.select(api_keys.c.digest))
        password_hash = db.scalar(sa.select(operators.c.password_hash))
    assert digest is not None
    secrets = [app.webhook_secret, key, key[10:], digest.hex(), password_hash, "of-the-tests"]
    seen = []
    for path in all_pages(full):
        response = browser.get(path)
        assert response.status_code == 200, path
        assert not [secret for secret in secrets if secret in response.text], path
        assert "<script" not in response.text, path
        assert " style=" not in response.text or path.startswith("/charts/"), path
        seen += [path] * (CANARY in response.text)
    assert bool(seen) is (role is Role.ADMIN), seen


def test_a_budget_of_the_environment_is_not_said_to_be_of_the_file(
    build_pages: Callable[..., Flask], settings: Settings, make_operator: Callable[[str, Role], Operator]
) -> None:
    make_operator("ann", Role.VIEWER)
    budget = settings.budgets.model_copy(update={"day_usd": Decimal(3)})
    browser = Browser(build_pages(budgets=budget).test_client())
    browser.log_in("ann")
    page = browser.get("/budgets").text
    assert "3.00 USD a day" in page
    assert "from the settings of this process" in page
    assert "headrace.toml" not in page


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_a_role_that_may_not_read_texts_gets_403(
    browser_of: Callable[[Role], Browser], full: list[UUID], role: Role
) -> None:
    for job_id in full:
        response = browser_of(role).get(f"/jobs/{show_id(job_id)}/texts") if job_id == full[0] else None
        if response is not None:
            assert response.status_code == 403
            assert CANARY not in response.text


def test_an_admin_reads_a_job_s_texts(admin: Browser, full: list[UUID], store: Store) -> None:
    with store.begin() as db:
        second = [Choice("A second answer.", "stop").to_fields()]
        db.execute(sa.update(job_texts).where(job_texts.c.job_id == full[0]).values(choices=second))
    text = admin.get(f"/jobs/{show_id(full[0])}/texts").text
    for part in (f"{CANARY} prompt", f"{CANARY} answer", f"{CANARY} thought", "A second answer."):
        assert part in text


def test_a_webhook_s_host_is_shown_to_all_and_its_url_to_an_admin(
    browser_of: Callable[[Role], Browser], full: list[UUID]
) -> None:
    viewer, admin = browser_of(Role.VIEWER), browser_of(Role.ADMIN)
    for path in ("/deliveries", f"/jobs/{show_id(full[1])}"):
        assert "https://hooks.example.com/…" in viewer.get(path).text
        assert f"token={CANARY}" in admin.get(path).text


def test_the_jobs_are_filtered(viewer: Browser, full: list[UUID]) -> None:
    good, bad, low, batch = (show_id(job_id) for job_id in full)
    for query, wanted in (
        ("", {good, bad, low, batch}),
        ("state=succeeded", {good}),
        ("state=dead", {bad}),
        ("lane=batch", {batch}),
        ("error_code=prompt_rejected", {bad}),
        ("app=test&state=queued", {low, batch}),
        ("model=another", set()),
        ("end_user=nobody", set()),
        ("since=1h", {good, bad, low, batch}),
        ("until=1h", set()),
    ):
        text = viewer.get(f"/jobs?{query}").text
        assert {job for job in (good, bad, low, batch) if job in text} == wanted, query
        assert ("There are no such jobs." in text) is not bool(wanted)


def test_a_long_list_of_jobs_has_more_pages(
    viewer: Browser, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.pages.jobs.PAGE_ROWS", 2)
    job_ids = [show_id(queued().job_id) for _ in range(5)]
    path, seen = "/jobs?lane=normal", []
    for _ in range(3):
        text = viewer.get(path).text
        seen.append([job for job in job_ids if job in text])
        if 'rel="next"' in text:
            path = text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&").removeprefix("/ops")
    assert seen == [job_ids[3:], job_ids[1:3], job_ids[:1]]


def test_an_id_in_any_spelling_leads_to_its_job(viewer: Browser, full: list[UUID]) -> None:
    for prefix in ("job_", "resp_", "chatcmpl-"):
        response = viewer.get(f"/jobs?id={prefix}{full[0].hex}")
        assert response.headers["Location"] == f"/ops/jobs/{show_id(full[0])}"
    assert viewer.get("/jobs?id=nonsense").status_code == 404


def test_a_job_s_page_has_its_attempts_bill_and_timeline(viewer: Browser, full: list[UUID]) -> None:
    text = viewer.get(f"/jobs/{show_id(full[0])}").text
    for part in ("gpu@test", "host-1", "0.000001", "test-1", "attempt_started", "compute", "simulator"):
        assert part in text
    assert "Why it waits" not in text


def test_a_job_that_waits_says_why(viewer: Browser, full: list[UUID], store: Store) -> None:
    path = f"/jobs/{show_id(full[3])}"
    assert "It is the oldest job in chat.batch." in viewer.get(path).text
    with store.begin() as db:
        later = {"state": "waiting", "attempt": 1, "not_before": sa.func.now() + sa.text("interval '1 hour'")}
        db.execute(sa.update(jobs).where(jobs.c.id == full[3]).values(**later))
    assert "Its next try after attempt 1 is due in 3," in viewer.get(path).text


def test_the_charts_are_pictures_without_scripts(viewer: Browser, full: list[UUID]) -> None:
    for path in CHARTS:
        response = viewer.get(path)
        assert (response.status_code, response.mimetype) == (200, "image/svg+xml"), path
        assert "script-src" not in response.headers["Content-Security-Policy"]
        tree = ElementTree.fromstring(response.data)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert "script" not in tags
        assert tags & {"path", "rect", "circle"}
        assert "://" not in response.text.replace("http://www.w3.org/", "").replace("http://pygal.org", ""), path


def test_the_charts_without_rows_are_pictures_too(viewer: Browser) -> None:
    for path in CHARTS:
        if "split" not in path:
            response = viewer.get(path)
            assert (response.status_code, response.mimetype) == (200, "image/svg+xml"), path


def test_the_pages_without_rows_say_so(viewer: Browser, store: Store) -> None:
    with store.begin() as db:
        apps.ensure(db, "test")
    for path in PAGES:
        response = viewer.get(path)
        assert response.status_code == 200, path
        assert path in ("/queues", "/apps", "/app?name=test", "/audit") or "empty" in response.text, path


def test_the_months_of_cost_end_where_the_page_takes_no_other(viewer: Browser) -> None:
    linked = re.compile(r'<a rel="(prev|next)" href="/ops(/cost[^"]*)"')
    first = dict(linked.findall(viewer.get("/cost?month=2000-01").text))
    second = dict(linked.findall(viewer.get("/cost?month=2000-02").text))

    assert first == {"next": "/cost?month=2000-02"}
    assert second == {"prev": "/cost?month=2000-01", "next": "/cost?month=2000-03"}
    assert "next" not in dict(linked.findall(viewer.get("/cost").text))
    for path in (*first.values(), *second.values()):
        assert viewer.get(path).status_code == 200, path


def test_a_page_without_redis_says_so(viewer: Browser, full: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokerUnavailable("Redis does not answer: host 10.0.0.1")

    monkeypatch.setattr(Admission, "loads", fail)
    response = viewer.get("/queues")
    assert response.status_code == 503
    assert "10.0.0.1" not in response.text
    assert viewer.get(f"/jobs/{show_id(full[3])}").status_code == 200


@pytest.mark.parametrize("role", list(Role))
def test_a_provider_s_error_is_shown_to_those_who_can_act_on_it(
    browser_of: Callable[[Role], Browser], full: list[UUID], store: Store, role: Role
) -> None:
    with store.begin() as db:
        db.execute(sa.update(decisions).values(tries=2, error="quota of account 4711"))
        db.execute(sa.update(hosts).where(hosts.c.id == "host-2").values(ordered_at=None, ready_at=None))
    text = browser_of(role).get("/hosts").text
    assert "is not carried out: 2 calls of the provider" in text
    assert ("quota of account 4711" in text) is (role is not Role.VIEWER)


def test_hosts_of_a_removed_pool_are_shown_with_what_becomes_of_them(viewer: Browser, store: Store) -> None:
    about = "has no pool &#39;removed&#39; with hosts of its own"
    assert about not in viewer.get("/hosts").text
    with store.begin() as db:
        db.execute(sa.insert(hosts).values(id="host-9", pool="removed", requested_at=sa.func.now()))
    assert about in viewer.get("/hosts").text


def test_a_pool_whose_hosts_have_all_gone_is_shown_and_the_paid_api_is_not_one(viewer: Browser, store: Store) -> None:
    about = {
        "host_id": "h",
        "engine": "e",
        "model": "m",
        "max_running": 1,
        "lease_until": sa.func.now() + timedelta(hours=1),
    }
    with store.begin() as db:
        db.execute(sa.insert(workers).values(id=new_id(), name="overflow@h", pool="overflow", **about))
    text = viewer.get("/hosts").text
    assert "Pool chat: 0 ready, 0 requested, 0 draining." in text
    assert "Pool overflow" not in text


def test_the_caches_are_counted_by_app_and_pool(
    viewer: Browser, app: App, store: Store, queued: Callable[..., Ticket]
) -> None:
    assert "No cache was searched in this time." in viewer.get("/caches").text
    kinds = ("hit", "hit", "shared", "semantic", "miss", "miss", "miss", "miss", "miss", "miss")
    with store.begin() as db:
        for number, kind in enumerate(kinds):
            job_id = queued().job_id
            db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(cache=kind))
            if kind != "miss":
                bill = {"kind": "cache", "job_id": job_id, "pool": "chat", "usd": 0, "saved_usd": Decimal("0.25")}
                db.execute(sa.insert(ledger).values(**bill))
            match = {"job_id": job_id, "app_id": app.id, "pool": "chat", "entry_id": job_id, "similarity": 0.9}
            # One that is not judged yet, four tries, and five rechecks of which one was wrong.
            verdict = {"kind": "try" if number < 5 else "recheck", "is_right": number != 9 if number else None}
            db.execute(sa.insert(cache_matches).values(**match, **verdict))
        entry = {"job_id": job_id, "app_id": app.id, "pool": "chat", "scope": b"s", "digest": b"d", "embedding": [1.0]}
        db.execute(sa.insert(cache_entries).values(**entry))

    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", viewer.get("/caches").text)]

    assert ["test", "chat", "2", "1", "1", "6", "40%", "1.00"] in rows
    assert ["test", "chat", "1", "0", "4", "0", "5", "1", "20.0%"] in rows
    assert ["chat", "-", "no", "-", "-"] in rows
