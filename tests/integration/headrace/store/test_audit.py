"""The audit log takes rows, and neither changes nor loses one."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from headrace.domain.operators import Actor, OperatorAction, Source
from headrace.store import Store, apps
from headrace.store.audit import NotRecorded, WantedEntries, acting, newest

ADA = Actor("ada", Source.PAGES)


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'eve'",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE false",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log (id, actor, source, action, subject) VALUES (1, 'eve', 'cli', 'a', 'b')",
    ],
)
def test_the_audit_log_is_append_only_also_for_its_owner(store: Store, statement: str, is_empty: bool) -> None:
    if not is_empty:
        with acting(store, ADA) as audit:
            audit.record(OperatorAction.APP_CREATE, "shop")
    with pytest.raises(DBAPIError, match=r"append-only|GENERATED ALWAYS"), store.begin() as db:
        db.execute(sa.text(statement))
    with store.read() as db:
        assert [each.actor for each in newest(db, WantedEntries(), 10)] == ([] if is_empty else ["ada"])


def test_an_operator_s_transaction_without_a_row_is_rolled_back(store: Store) -> None:
    with pytest.raises(NotRecorded), acting(store, ADA) as audit:
        apps.create(audit.db, "shop", {})
    with store.read() as db:
        assert apps.list_apps(db) == []


def test_a_connection_that_has_read_takes_changes_again(store: Store) -> None:
    with store.read() as db:
        session = db.scalar(sa.text("SELECT pg_backend_pid()"))
        assert db.scalar(sa.text("SHOW transaction_read_only")) == "on"
    with store.begin() as db:
        assert db.scalar(sa.text("SELECT pg_backend_pid()")) == session
        assert apps.create(db, "shop", {}).name == "shop"


def test_a_page_goes_on_where_the_one_before_ended(store: Store) -> None:
    with acting(store, ADA) as audit:
        for number in range(5):
            audit.record(OperatorAction.HOST_DRAIN, f"host-{number}")
    with store.read() as db:
        first = newest(db, WantedEntries(), 3)
        second = newest(db, WantedEntries(before=first[-1].id), 3)
    assert [each.subject for each in (*first, *second)] == [f"host-{number}" for number in (4, 3, 2, 1, 0)]
