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
from headrace.domain.answers import Choice
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.operators import Operator, Role
from headrace.domain.queues import Ticket
from headrace.errors import BrokerUnavailable
from headrace.store import Store, apps, keys
from headrace.store.jobs import overview
from headrace.tables import (
    api_keys,
    cache_entries,
    cache_matches,
    decisions,
    deliveries,
    hosts,
    job_texts,
    jobs,
    ledger,
    operators,
    own_prices,
    refusals,
    worker_samples,
    workers,
)
from headrace.tables import apps as apps_table
from plugins.batches.domain import BATCH_PREFIX, parse_batch_id
from plugins.batches.tables import batches, provider_batches
from tests.integration.ops.browser import Browser
from tests.integration.ops.full import CANARY

MONTH = f"{datetime.now(UTC):%Y-%m}"
CHARTS = (
    *("/charts/depth.svg?pool=chat", "/charts/depth.svg?pool=chat&hours=6", "/charts/kv.svg?pool=chat&hours=168"),
    *("/charts/waits.svg", f"/charts/routes.svg?month={MONTH}", f"/charts/split.svg?pool=chat&month={MONTH}"),
)
PAGES = (
    "/jobs",
    "/batches",
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


def all_pages(store: Store, job_ids: list[UUID]) -> list[str]:
    of_jobs = [f"/jobs/{show_id(job_id)}" for job_id in job_ids]
    return [*PAGES, *CHARTS, "/jobs?state=dead", *of_jobs, *(f"/batches/{each}" for each in batch_ids(store))]


def batch_ids(store: Store) -> list[str]:
    with store.begin() as db:
        return [show_id(each, BATCH_PREFIX) for each in db.scalars(sa.select(batches.c.id).order_by(batches.c.id))]


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
    for path in all_pages(store, full):
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


def test_a_viewer_sees_on_the_attempt_how_the_paid_api_failed(
    viewer: Browser, full: list[UUID], query: Callable[..., object]
) -> None:
    cause = "UPDATE attempts SET error_code = 'engine_fault', error_cause = '503 server_error', ended_at = now()"
    query(f"{cause} WHERE job_id = :job", job=full[0])
    assert "engine_fault: 503 server_error" in viewer.get(f"/jobs/{show_id(full[0])}").text


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
        ("queue=chat.batch", {batch}),
        (f"metadata=note={CANARY}", {good, bad, low, batch}),
        ("metadata=note=other", set()),
        ("since=1h", {good, bad, low, batch}),
        ("until=1h", set()),
    ):
        text = viewer.get(f"/jobs?{query}").text
        assert {job for job in (good, bad, low, batch) if job in text} == wanted, query
        assert ("There are no such jobs." in text) is not bool(wanted)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("since=banana&lane=high", "Since: "),
        ("metadata=order&lane=high", "Metadata: it is no key=value, such as order=17."),
        ("app=nobody&lane=high", "nobody"),
        ("state=odd&lane=high", "State: "),
    ],
)
def test_a_wrong_value_of_a_filter_is_named_and_the_others_stay(
    viewer: Browser, full: list[UUID], query: str, problem: str
) -> None:
    response = viewer.get(f"/jobs?{query}")
    assert response.status_code == 400
    alert = re.search(r'role="alert">(.*?)</p>', response.text)
    assert alert is not None
    assert problem in alert[1]
    assert 'value="high" selected' in response.text.replace('selected value="high"', 'value="high" selected')
    assert query.partition("&")[0].partition("=")[2] in response.text or "state=" in query


def test_the_jobs_of_all_pages_are_added_up_by_their_states(
    viewer: Browser, full: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    for query in ("", f"?before={show_id(full[-1])}"):
        text = viewer.get(f"/jobs{query}").text
        assert ">4 jobs, 0.000001 USD: 2 queued, 0.00 USD; 1 succeeded, 0.000001 USD; 1 failed" in text
        assert "Among the newest" not in text
    assert ">1 failed, 0.00 USD.<" in viewer.get("/jobs?state=dead").text
    monkeypatch.setattr(overview, "LOOK_ROWS", 3)
    assert ">Among the newest 100,000 of this time, app and state: 3 jobs, " in viewer.get("/jobs").text


def test_an_app_s_page_says_what_it_was_refused_and_why(viewer: Browser, app: App, store: Store) -> None:
    assert "Refused:" not in viewer.get(f"/app?name={app.name}").text
    row = {"minute": sa.func.now(), "app_id": app.id, "queue": "chat.normal", "tokens": 1}
    with store.begin() as db:
        for reason, number in (("depth", 3), ("app_jobs", 46)):
            db.execute(sa.insert(refusals).values(**row, reason=reason, jobs=number))
    assert "Refused: 46 app_jobs, 3 depth." in viewer.get(f"/app?name={app.name}").text


def test_deliveries_that_failed_and_are_tried_again_are_told_from_others(
    viewer: Browser, app: App, store: Store
) -> None:
    row = {"app_id": app.id, "event": "batch.completed", "url": "https://a.example/", "data": {"id": "batch_1"}}
    ids = {}
    with store.begin() as db:
        for state, values in (
            ("retrying", {"state": "pending", "tries": 2, "last_error": "It refused."}),
            ("pending", {"state": "pending"}),
            ("failed", {"state": "failed", "last_status": 500}),
            ("delivered", {"state": "delivered", "last_status": 204}),
        ):
            ids[state] = new_id()
            db.execute(sa.insert(deliveries).values(id=ids[state], **row, **values))
    for state, wanted in ids.items():
        text = viewer.get(f"/deliveries?state={state}").text
        assert [each.hex in text for each in ids.values()] == [each == wanted for each in ids.values()], state
        assert f'class="state {state}">{state}<' in text


def test_a_long_list_of_jobs_has_more_pages(
    viewer: Browser, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.jobs.PAGE_ROWS", 2)
    job_ids = [show_id(queued().job_id) for _ in range(5)]
    path, seen = "/jobs?lane=normal", []
    for _ in range(3):
        text = viewer.get(path).text
        seen.append([job for job in job_ids if job in text])
        if 'rel="next"' in text:
            path = text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&").removeprefix("/ops")
    assert seen == [job_ids[3:], job_ids[1:3], job_ids[:1]]


def test_the_batches_are_filtered_and_have_more_pages(
    viewer: Browser, full: list[UUID], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other").id
        row = {"app_id": other, "state": "completed", "endpoint": "/v1/embeddings", "input_file_id": new_id()}
        more = {"completion_window": "1h", "overflow": "never", "expires_at": sa.func.now()}
        for _ in range(3):
            db.execute(sa.insert(batches).values(id=new_id(), **row, **more))
    first, *others = batch_ids(store)
    for query, wanted in (
        ("", {first, *others}),
        ("state=in_progress", {first}),
        ("state=completed&app=other", set(others)),
        ("app=test", {first}),
        ("state=failed", set()),
    ):
        text = viewer.get(f"/batches?{query}").text
        assert {each for each in (first, *others) if each in text} == wanted, query
        assert ("There are no such batches." in text) is not bool(wanted)
    assert viewer.get("/batches?app=none").status_code == 404
    assert viewer.get("/batches?before=nonsense").status_code == 400

    monkeypatch.setattr("plugins.batches.pages.PAGE_ROWS", 2)
    text = viewer.get("/batches?app=other").text
    path = text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&").removeprefix("/ops")
    assert [each for each in others if each in text] == others[1:]
    assert [each for each in others if each in viewer.get(path).text.split("<tbody>")[1]] == others[:1]


def test_a_batch_s_page_has_what_the_provider_says_of_its_lines_and_its_errors_for_those_who_may_see_texts(
    viewer: Browser, admin: Browser, full: list[UUID], store: Store
) -> None:
    [batch_id] = batch_ids(store)
    assert "At the provider" not in viewer.get(f"/batches/{batch_id}").text
    row = {"provider_id": "batch_67", "status": "expired", "lines": 40, "answered": 31, "unreturned_usd": "0.25"}
    with store.begin() as db:
        of_it = {"id": new_id(), "batch_id": parse_batch_id(batch_id), "model": "m", "state": "ended"}
        db.execute(sa.insert(provider_batches).values(**of_it, **row, error="it quotes a prompt"))
    text = viewer.get(f"/batches/{batch_id}").text
    for said in ("At the provider", "batch_67", "expired", '<td class="n">31', "0.25"):
        assert said in text, said
    assert "it quotes a prompt" not in text
    assert "it quotes a prompt" in admin.get(f"/batches/{batch_id}").text


def test_a_batch_s_id_leads_to_its_page_and_its_jobs(viewer: Browser, full: list[UUID], store: Store) -> None:
    [batch_id] = batch_ids(store)
    page = f"/ops/batches/{batch_id}"
    assert viewer.get(f"/batches?id={batch_id}").headers["Location"] == page
    for wrong in ("/batches?id=nonsense", "/batches/nonsense", f"/batches/batch_{'0' * 32}"):
        assert viewer.get(wrong).status_code == 404, wrong

    text = viewer.get(f"/batches/{batch_id}").text
    assert "50% of 4 lines have ended: 1 with an answer, 1 without. 0.50 USD." in text
    heads, cells = re.findall("<th[^>]*>([a-z_]+)", text), re.findall('<td class="n">([0-9]+)', text)
    assert dict(zip(heads, cells[1:], strict=False)) == {
        **{"waiting": "1", "submitted": "1", "succeeded": "1"},
        **{"failed": "1", "expired": "0", "cancelled": "0"},
    }
    assert "https://hooks.example.com/…" in text
    assert "<code>invalid_body</code>" in text

    jobs_path = re.findall(r'href="/ops(/jobs\?note=[^"]+)"', text)
    assert [len(re.findall("<tr><td><a", viewer.get(path.replace("&amp;", "&")).text)) for path in jobs_path] == [4, 1]
    assert f'href="{page}"' in viewer.get(f"/jobs/{show_id(full[0])}").text
    assert viewer.get("/jobs?note=nonsense").status_code == 400


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


def test_cost_says_what_is_provisional(viewer: Browser, store: Store) -> None:
    began = sa.func.now() - timedelta(hours=1)
    with store.begin() as db:
        lease = {"id": "box", "pool": "chat", "usd_per_hour": Decimal(2), "instance_type": "big"}
        db.execute(sa.insert(hosts).values(**lease, requested_at=began, ordered_at=began))

    page = viewer.get("/cost").text
    assert "Open hours, provisional" in page
    assert re.search(r'aria-label="Open hours".*<td>chat<td>', page, re.DOTALL)


def test_cost_says_never_where_a_saturated_host_serves_too_few(viewer: Browser, full: list[UUID], store: Store) -> None:
    assert "It is cheaper than the paid API from" in viewer.get("/cost").text
    with store.begin() as db:
        db.execute(sa.update(own_prices).values(tokens_per_s=0.01))

    page = viewer.get("/cost").text
    assert "It is never cheaper than the paid API" in page
    assert "requests an hour on." not in page


def test_a_used_up_budget_is_red(viewer: Browser, full: list[UUID], store: Store) -> None:
    assert "used-up" not in viewer.get("/budgets").text + viewer.get("/").text
    with store.begin() as db:
        db.execute(sa.update(apps_table).values(day_usd=Decimal("0.9")))

    assert 'class="used-up"' in viewer.get("/budgets").text
    assert 'class="n used-up"' in viewer.get("/").text


def test_the_months_of_cost_end_where_the_page_takes_no_other(viewer: Browser) -> None:
    linked = re.compile(r'<a rel="(prev|next)" href="/ops(/cost[^"]*)"')
    first = dict(linked.findall(viewer.get("/cost?month=2000-01").text))
    second = dict(linked.findall(viewer.get("/cost?month=2000-02").text))

    assert first == {"next": "/cost?month=2000-02"}
    assert second == {"prev": "/cost?month=2000-01", "next": "/cost?month=2000-03"}
    assert "next" not in dict(linked.findall(viewer.get("/cost").text))
    for path in (*first.values(), *second.values()):
        assert viewer.get(path).status_code == 200, path


def test_the_gpus_of_a_pool_are_shown_where_it_has_some(viewer: Browser, full: list[UUID], store: Store) -> None:
    assert "GPUs" not in viewer.get("/queues").text
    idle = {"pool": "chat", "interval_s": 5, "running": 0, "waiting": 0, "steps": 0}
    idle |= {"prompt_tokens": 0, "output_tokens": 0, "preemptions": 0}
    with store.begin() as db:
        gpu = {"gpu_use": 0.83, "gpu_memory": 0.91, "gpu_watts": 640.0}
        db.execute(sa.insert(worker_samples).values(worker_id=UUID(int=1), **idle, **gpu))
    about = "83% of the time in use, 91% of their memory taken, 640 W."
    assert about in viewer.get("/queues").text


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


def test_the_chart_beside_decisions_shows_the_day_that_its_caption_names(viewer: Browser) -> None:
    text = viewer.get("/hosts").text
    assert "hours=24" in text.partition("depth.svg")[2].partition(">")[0]
    assert "The last day:" in text


@pytest.mark.parametrize("path", ["/queues", "/hosts"])
def test_pages_say_since_when_no_control_process_was_seen(viewer: Browser, store: Store, path: str) -> None:
    def decide(age: str) -> None:
        with store.begin() as db:
            at = sa.func.now() - sa.text(f"interval '{age}'")
            row = {"pool": "chat", "mode": "active", "hosts": 1, "target": 1, "reason": "hold", "inputs": {}}
            db.execute(sa.insert(decisions).values(at=at, **row))

    decide("1 hour")
    assert "No control process was seen since 20" in viewer.get(path).text
    decide("5 seconds")
    assert "No control process" not in viewer.get(path).text
