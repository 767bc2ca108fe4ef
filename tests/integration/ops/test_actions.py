"""What operators change, by role: jobs, webhooks, hosts, limits, keys and budgets."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import UNLIMITED, App
from headrace.domain.ids import new_id, show_id
from headrace.domain.operators import Right, Role
from headrace.domain.queues import Lane
from headrace.domain.states import SUSPECT
from headrace.store import Store, apps, keys
from headrace.tables import api_keys, budget_limits, deliveries, hosts, jobs, paused_receivers
from plugins.batches.domain import BATCH_PREFIX, noted
from plugins.batches.tables import batches
from tests.integration.ops.browser import Browser


def actions(store: Store, job_ids: list[UUID], app: App) -> list[tuple[Right, str, Mapping[str, Any]]]:
    """Every form that changes something, with fields that fit."""
    with store.begin() as db:
        keys.make(db, app.id, "of-the-tests")
        key_id, delivery_id = db.scalar(sa.select(api_keys.c.id)), db.scalar(sa.select(deliveries.c.id))
        batch_id = db.scalar(sa.select(batches.c.id))
        db.execute(sa.insert(paused_receivers).values(app_id=app.id, receiver="paused.example"))
        # A second one that can be retried.
        db.execute(sa.update(jobs).where(jobs.c.id == job_ids[0]).values(state="failed", error_code="engine_crash"))
    assert delivery_id is not None
    assert batch_id is not None
    return [
        (Right.ACT, f"/jobs/{show_id(job_ids[1])}/retry", {}),
        (Right.ACT, f"/jobs/{show_id(job_ids[2])}/cancel", {}),
        (Right.ACT, "/jobs/retry", {"id": show_id(job_ids[0])}),
        (Right.ACT, "/jobs/cancel", {"id": show_id(job_ids[3])}),
        (Right.ACT, f"/batches/{show_id(batch_id, BATCH_PREFIX)}/cancel", {}),
        (Right.ACT, "/deliveries/retry", {"id": f"evt_{delivery_id.hex}"}),
        (Right.ACT, "/deliveries/pause", {"app": "test", "receiver": "receiver.example"}),
        (Right.ACT, "/deliveries/resume", {"app": "test", "receiver": "paused.example"}),
        (Right.ACT, "/hosts/drain", {"host": "host-2"}),
        (Right.ACT, "/hosts/resume", {"host": "host-3", "pool": "chat"}),
        (Right.MANAGE, "/app/limits", {"name": "test", "queued_jobs": "5"}),
        (Right.MANAGE, "/app/keys", {"name": "test", "scopes": "read"}),
        (Right.MANAGE, "/app/keys/revoke", {"name": "test", "key": str(key_id)}),
        (Right.MANAGE, "/budgets", {"day_usd": "5"}),
        (Right.MANAGE, "/budgets/unset", {}),
    ]


def changed(store: Store) -> list[Any]:
    """All that an action may change."""
    read = [
        sa.select(jobs.c.id, jobs.c.state).order_by(jobs.c.id),
        sa.select(deliveries.c.id, deliveries.c.state),
        sa.select(paused_receivers.c.receiver).order_by(paused_receivers.c.receiver),
        sa.select(batches.c.id, batches.c.state),
        sa.select(hosts.c.id, hosts.c.drain_at).order_by(hosts.c.id),
        sa.select(api_keys.c.id, api_keys.c.revoked_at).order_by(api_keys.c.id),
        sa.select(budget_limits.c.day_usd),
    ]
    with store.begin() as db:
        return [db.execute(each).all() for each in read] + [apps.list_apps(db)]


@pytest.mark.parametrize("role", list(Role))
def test_each_action_needs_its_right(
    browser_of: Callable[[Role], Browser], store: Store, full: list[UUID], app: App, role: Role
) -> None:
    browser = browser_of(role)
    forms = actions(store, full, app)
    for right, path, fields in forms:
        before = changed(store)
        response = browser.post(path, fields)
        if right in role.rights:
            assert response.status_code in (200, 303), (path, response.text)
            assert changed(store) != before, path
        else:
            assert response.status_code == 403, path
            assert changed(store) == before, path


@pytest.mark.parametrize("role", list(Role))
def test_a_page_has_the_forms_that_its_reader_may_send(
    browser_of: Callable[[Role], Browser], store: Store, full: list[UUID], app: App, role: Role
) -> None:
    browser = browser_of(role)
    forms = actions(store, full, app)
    browser.post("/budgets", {"day_usd": "5"})
    pages = [f"/jobs/{show_id(job_id)}" for job_id in full]
    pages += [next(path.removesuffix("/cancel") for _, path, _ in forms if path.startswith("/batches/"))]
    pages += ["/jobs", "/deliveries", "/hosts", "/app?name=test", "/budgets"]
    text = "".join(browser.get(page).text for page in pages)
    for right, path, _ in forms:
        action = 'method="post" class="stack">' if path == "/budgets" else f'action="/ops{path}"'
        assert (action in text) is (right in role.rights), path


def test_a_retry_is_a_new_job_and_happens_once(clerk: Browser, store: Store, full: list[UUID]) -> None:
    path = f"/jobs/{show_id(full[1])}/retry"
    response = clerk.post(path)
    with store.begin() as db:
        new = db.scalar(sa.select(jobs.c.id).where(jobs.c.retry_of == full[1]))
    assert new is not None
    assert response.headers["Location"] == f"/ops/jobs/{show_id(new)}"
    assert f"{show_id(full[1])} is retried as this job." in clerk.get(f"/jobs/{show_id(new)}").text
    again = clerk.post(path)
    assert again.status_code == 400
    assert "was retried already" in again.text


def test_a_poison_prompt_is_retried_from_its_own_page_which_warns(
    clerk: Browser, store: Store, full: list[UUID]
) -> None:
    poison = {"state": "failed", "error_code": "engine_crash", "suspicion": SUSPECT}
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == full[1]).values(poison))
    page = clerk.get(f"/jobs/{show_id(full[1])}").text
    assert "A poison prompt: its engine died also while it ran alone." in page
    assert "kills an engine again unless the engine or the model was changed" in page
    assert '<input type="hidden" name="force" value="1">' in page

    several = clerk.post("/jobs/retry", {"id": show_id(full[1])})
    assert (several.status_code, "killed an engine in which nothing else ran" in several.text) == (400, True)
    assert clerk.post(f"/jobs/{show_id(full[1])}/retry", {"force": "1"}).status_code == 303


def test_a_cancel_ends_a_job_that_waits(clerk: Browser, store: Store, full: list[UUID]) -> None:
    assert clerk.post(f"/jobs/{show_id(full[2])}/cancel").status_code == 303
    with store.begin() as db:
        assert db.scalar(sa.select(jobs.c.state).where(jobs.c.id == full[2])) == "cancelled"


def test_a_job_s_page_says_who_cancelled_it_or_its_batch(clerk: Browser, store: Store, full: list[UUID]) -> None:
    with store.begin() as db:
        batch_id = db.execute(sa.select(batches.c.id)).scalar_one()
        db.execute(sa.update(jobs).where(jobs.c.id == full[3]).values(notes=noted(batch_id)))
    clerk.post(f"/jobs/{show_id(full[2])}/cancel")
    clerk.post(f"/batches/{show_id(batch_id, BATCH_PREFIX)}/cancel")

    for job_id, event in ((full[2], "operator_cancelled"), (full[3], "operator_batch_cancel")):
        page = clerk.get(f"/jobs/{show_id(job_id)}").text
        assert f"<td>{event}<td>" in page
        assert '<b>operator</b> the-operator</span> <span class="fact"><b>source</b> pages' in page
    assert "operator_cancelled" not in clerk.get(f"/jobs/{show_id(full[0])}").text


def test_the_hosts_page_says_who_drained_a_host_and_who_called_it_back(clerk: Browser, full: list[UUID]) -> None:
    clerk.post("/hosts/drain", {"host": "host-2"})
    clerk.post("/hosts/resume", {"host": "host-3"})
    page = clerk.get("/hosts").text
    assert page.count("drained by the-operator at ") == page.count("called back by the-operator at ") == 1


def test_a_batch_is_asked_to_end_once_and_stays_as_it_is_afterwards(
    clerk: Browser, store: Store, full: list[UUID]
) -> None:
    with store.begin() as db:
        batch_id = db.execute(sa.select(batches.c.id)).scalar_one()
    path = f"/batches/{show_id(batch_id, BATCH_PREFIX)}"
    assert clerk.post(f"{path}/cancel").headers["Location"] == f"/ops{path}"
    page = clerk.get(path).text
    assert "No line starts any more; those that run are asked to stop." in page
    assert f'action="/ops{path}/cancel"' not in page
    with store.begin() as db:
        assert db.scalar(sa.select(batches.c.state)) == "cancelling"
        db.execute(sa.update(batches).values(state="completed"))

    assert clerk.post(f"{path}/cancel").status_code == 303
    assert "It is completed." in clerk.get(path).text
    assert clerk.post(f"/batches/{show_id(new_id(), BATCH_PREFIX)}/cancel").status_code == 404


def test_limits_are_replaced_and_an_empty_field_lifts_one(admin: Browser, store: Store, full: list[UUID]) -> None:
    numbers = {"queued_jobs": "7", "calls_per_minute": "90", "day_usd": "1.50", "cache_s": "0"}
    fields = {"name": "test", **numbers, "lanes": ["low", "batch"]}
    assert admin.post("/app/limits", fields).status_code == 303
    with store.begin() as db:
        app = apps.find_app(db, "test")
    assert (app.limits.queued_jobs, app.limits.day_usd, app.lanes) == (7, Decimal("1.50"), {Lane.LOW, Lane.BATCH})
    assert (app.cache_s, app.limits.calls_per_minute) == (0, 90)
    assert 'value="1.5"' in (page := admin.get("/app?name=test").text)
    assert 'name="cache_s" placeholder="as the pools say" size="14" type="text" value="0"' in page
    assert admin.post("/app/limits", {**fields, "cache_s": "31622401"}).status_code == 400

    assert admin.post("/app/limits", {"name": "test", "lanes": [lane.value for lane in Lane]}).status_code == 303
    with store.begin() as db:
        app = apps.find_app(db, "test")
    assert (app.limits, app.lanes, app.cache_s) == (UNLIMITED, None, None)


def test_a_new_key_is_shown_once_and_works(admin: Browser, store: Store, full: list[UUID]) -> None:
    text = admin.post("/app/keys", {"name": "test", "scopes": "read", "days": "3"}).text
    key = text.split('<pre tabindex="0">')[1].split("<")[0]
    with store.begin() as db:
        app = keys.authenticate(db, key, "of-the-tests")
        [record] = keys.list_keys(db)
    assert app.name == "test"
    assert app.scopes == {"read"}
    assert record.expires_at is not None
    assert key not in admin.get("/app?name=test").text


def test_chosen_webhooks_are_all_sent_again_or_none(clerk: Browser, store: Store, full: list[UUID]) -> None:
    with store.begin() as db:
        delivery_id = db.scalar(sa.select(deliveries.c.id))
    assert delivery_id is not None
    chosen = [f"evt_{delivery_id.hex}", f"evt_{'0' * 32}"]
    assert clerk.post("/deliveries/retry", {"id": chosen}).status_code == 404
    assert clerk.post("/deliveries/retry").status_code == 400
    with store.begin() as db:
        assert db.scalar(sa.select(deliveries.c.state)) == "failed"


def test_what_an_operator_does_is_logged(clerk: Browser, full: list[UUID], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clerk.post("/hosts/drain", {"host": "host-2"})
    [record] = [each for each in caplog.records if each.message == "operator_acted"]
    assert (record.__dict__["operator"], record.__dict__["action"]) == ("the-operator", "host.drain")


def test_chosen_jobs_are_retried_together_or_with_an_error_none(
    clerk: Browser, full: list[UUID], store: Store, query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    good, bad, *_ = full
    assert clerk.post("/jobs/retry").status_code == 400
    assert clerk.post("/jobs/retry", {"id": [show_id(bad), show_id(good)]}).status_code in (400, 409)
    assert query("SELECT count(*) FROM job_retries") == [(0,)]
    # One that is named twice counts once.
    done = clerk.post("/jobs/retry", {"id": [show_id(bad)] * 2})
    assert (done.status_code, done.headers["Location"]) == (303, "/ops/jobs")
    assert query("SELECT job_id FROM job_retries") == [(bad,)]
    assert "1 job is retried, as new jobs." in clerk.get("/jobs").text


def test_chosen_jobs_are_cancelled_and_those_that_have_ended_stay(
    clerk: Browser, full: list[UUID], query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    good, _, low, batch = full
    done = clerk.post("/jobs/cancel", {"id": [show_id(each) for each in (low, good, batch)]})
    assert done.status_code == 303
    states = dict(query("SELECT id, state FROM jobs"))
    assert [states[each] for each in (good, low, batch)] == ["succeeded", "cancelled", "cancelled"]
    assert "3 jobs are cancelled, or asked to stop" in clerk.get("/jobs").text
