"""What an operator does at the pages is a row of the audit log, which commits together with the deed."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask

from headrace.config import PROJECT_ROOT
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.operators import Actor, OperatorAction, Role, Source
from headrace.store import Store
from headrace.store.audit import Audit, acting
from headrace.tables import audit_log
from tests.integration.ops.browser import Browser
from tests.integration.ops.full import CANARY
from tests.integration.ops.test_actions import actions, changed

#: What each form records, by its route.
FORMS = {
    "/jobs/<job_id>/retry": OperatorAction.JOB_RETRY,
    "/jobs/<job_id>/cancel": OperatorAction.JOB_CANCEL,
    "/jobs/retry": OperatorAction.JOB_RETRY,
    "/jobs/cancel": OperatorAction.JOB_CANCEL,
    "/batches/<batch_id>/cancel": "batch.cancel",
    "/deliveries/retry": OperatorAction.DELIVERY_RETRY,
    "/deliveries/pause": OperatorAction.RECEIVER_PAUSE,
    "/deliveries/resume": OperatorAction.RECEIVER_RESUME,
    "/hosts/drain": OperatorAction.HOST_DRAIN,
    "/hosts/resume": OperatorAction.HOST_RESUME,
    "/app/limits": OperatorAction.APP_LIMIT,
    "/app/keys": OperatorAction.KEY_CREATE,
    "/app/keys/revoke": OperatorAction.KEY_REVOKE,
    "/budgets": OperatorAction.BUDGETS_SET,
    "/budgets/unset": OperatorAction.BUDGETS_UNSET,
    "/login": OperatorAction.OPERATOR_LOG_IN,
}
#: Forms that change nothing in Postgres.
CHANGE_NOTHING = {"/logout"}


def rows(store: Store) -> list[Any]:
    with store.read() as db:
        return list(db.execute(sa.select(audit_log).order_by(audit_log.c.id)))


def route_of(path: str) -> str:
    return re.sub("(job|batch)_[0-9a-f]+", r"<\1_id>", path)


def test_every_form_records_something_or_changes_nothing(
    pages: Flask, store: Store, full: list[UUID], app: App
) -> None:
    """A new one belongs into one of the two, and into `actions`, whose forms the tests below send."""
    routes = {rule.rule for rule in pages.url_map.iter_rules() if "POST" in (rule.methods or ())}
    assert routes == FORMS.keys() | CHANGE_NOTHING
    assert {route_of(path) for _, path, _ in actions(store, full, app)} == FORMS.keys() - {"/login"}


def test_what_an_operator_does_at_the_pages_is_recorded(
    admin: Browser, store: Store, full: list[UUID], app: App
) -> None:
    for _, path, fields in actions(store, full, app):
        before = len(rows(store))
        assert admin.post(path, fields).status_code in (200, 303), path
        [row] = rows(store)[before:]
        assert (row.actor, row.source, row.action) == ("the-admin", "pages", FORMS[route_of(path)]), path
        assert row.app_id == (app.id if path.startswith(("/jobs", "/batches", "/deliveries", "/app")) else None), path
        assert CANARY not in str(row)
        assert app.webhook_secret not in str(row)


@pytest.mark.parametrize("fault", ["before the row", "after the row"])
def test_a_fault_between_a_deed_and_its_row_leaves_neither(
    admin: Browser, store: Store, full: list[UUID], app: App, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    forms = actions(store, full, app)
    before = changed(store), rows(store)
    record = Audit.record_all

    def fail(*arguments: Any) -> None:
        if fault == "after the row":
            record(*arguments)
        raise RuntimeError(fault)

    monkeypatch.setattr(Audit, "record_all", fail)
    for _, path, fields in forms:
        assert admin.post(path, fields).status_code == 500, path
        assert (changed(store), rows(store)) == before, path


def test_a_prompt_is_shown_only_with_a_row_that_says_who_read_it(
    admin: Browser, store: Store, full: list[UUID], app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/jobs/{show_id(full[0])}/texts"
    assert CANARY in admin.get(path).text
    row = rows(store)[-1]
    assert (row.actor, row.action, row.subject, row.app_id) == (
        "the-admin",
        "job.read_texts",
        show_id(full[0]),
        app.id,
    )

    monkeypatch.setattr(Audit, "record_all", lambda *_: (_ for _ in ()).throw(RuntimeError("no row")))
    refused = admin.get(path)
    assert refused.status_code == 500
    assert CANARY not in refused.text


def test_a_login_is_recorded_and_a_failed_one_writes_no_row(
    stranger: Browser, make_operator: Callable[[str, Role], object], store: Store
) -> None:
    make_operator("ada", Role.VIEWER)
    assert stranger.log_in("ada", "wrong wrong wrong").status_code == 401
    assert rows(store) == []
    assert stranger.log_in("ada").status_code == 303
    [row] = rows(store)
    assert (row.actor, row.action, row.subject) == ("ada", "operator.log_in", "ada")


def test_no_page_opens_a_transaction_in_which_something_could_change_without_a_row() -> None:
    """`store.read` refuses every change, and `acting` one without a row."""
    for source in (PROJECT_ROOT / "ops" / "pages").glob("*.py"):
        assert not re.search(r"store\.(begin|autocommit|run)\(", source.read_text(encoding="utf-8")), source.name


def test_the_audit_log_is_shown_newest_first_and_filtered(
    viewer: Browser, store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.audit.PAGE_ROWS", 3)
    for number in range(4):
        with acting(store, Actor(f"user-{number}@host", Source.CLI)) as audit:
            audit.record(
                OperatorAction.APP_LIMIT, "test", app.id, before={"day_usd": None}, after={"day_usd": f"{number}"}
            )

    def actors(query: str) -> list[str]:
        return re.findall(r'<td class="name">([^<]+)<br>', viewer.get(f"/audit{query}").text)

    text = viewer.get("/audit").text
    assert actors("") == ["user-3@host", "user-2@host", "user-1@host"]
    assert "none → 3" in text
    [older] = re.findall(r'rel="next" href="/ops(/audit[^"]+)"', text)
    assert actors(older.removeprefix("/audit")) == ["user-0@host", "the-viewer"]
    assert actors("?actor=user-2@host") == ["user-2@host"]
    assert actors("?action=operator.log_in") == ["the-viewer"]
    assert actors("?app=test&actor=the-viewer") == []
    day = f"{rows(store)[0].at:%Y-%m-%d}"
    assert actors(f"?day={day}&action=operator.log_in") == ["the-viewer"]
    assert actors("?day=2020-02-29") == []
    assert viewer.get("/audit?day=2021-02-29").status_code == 400
    assert viewer.get("/audit?app=nothing").status_code == 404
