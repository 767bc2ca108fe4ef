"""The sweep of batches' lines: they go with the uploads of their age, and no sooner than their batch has ended."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace import sweeper
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import Overflow
from headrace.store import Store
from plugins.batches import store as batches
from plugins.batches.control import forget_lines
from plugins.batches.domain import BATCH_PREFIX, BatchState
from plugins.batches.settings import BatchSettings
from plugins.batches.tables import batch_lines
from plugins.batches.tables import batches as table
from scheduler.deps import ControlDeps
from tests.integration.months_of_jobs import id_at

Make = Callable[..., UUID]


@pytest.fixture
def make(store: Store, app: App) -> Make:
    """Makes a batch of this age, with two lines."""

    def make(days: float, state: BatchState = BatchState.COMPLETED) -> UUID:
        given: dict[str, Any] = {"endpoint": "/v1/responses", "input_file_id": new_id(), "completion_window": "24h"}
        with store.begin() as db:
            made = batches.create(
                db, app.id, window_s=86_400, most_open=1000, overflow=Overflow.NEVER, state=state, **given
            )
            aged = id_at(datetime.now(UTC) - timedelta(days=days))
            db.execute(sa.update(table).where(table.c.id == made.id).values(id=aged, total=2))
            rows = [{"batch_id": aged, "number": n, "custom_id": str(n), "prefix": "", "body": "{}"} for n in (1, 2)]
            db.execute(sa.insert(batch_lines), rows)
        return aged

    return make


@pytest.fixture
def left(query: Any) -> Callable[[], dict[UUID, int]]:
    """How many lines each batch has that has any."""
    return lambda: dict(query("SELECT batch_id, count(*) FROM batch_lines GROUP BY 1"))


def test_lines_of_ended_batches_go_with_the_uploads_of_their_age(
    deps: ControlDeps, make: Make, left: Callable[[], dict[UUID, int]], query: Any
) -> None:
    days = deps.settings.of(BatchSettings).files.keep_days
    gone = {make(days + 1, state) for state in BatchState if state.is_terminal}
    young = {make(days - 1, state) for state in BatchState}
    running = {make(days + 1, state) for state in BatchState if not state.is_terminal}

    assert swept(deps) == 2 * len(gone)

    assert left() == dict.fromkeys(young | running, 2)
    assert {row[0] for row in query("SELECT id FROM batches WHERE NOT has_lines")} == gone, "the batches stay"
    assert swept(deps) == 0


@pytest.mark.parametrize(("keep_texts_days", "goes"), [(3, True), (5, False), (None, False)])
def test_they_go_with_the_texts_of_their_age(
    deps: ControlDeps, make: Make, left: Callable[[], dict[UUID, int]], keep_texts_days: int | None, goes: bool
) -> None:
    make(4)
    changed = deps.settings.model_copy(update={"keep_texts_days": keep_texts_days})
    assert swept(replace(deps, settings=changed)) == 2 * goes
    assert len(left()) == (not goes)


@pytest.fixture
def guarded(query: Any) -> Iterator[Callable[[str], None]]:
    """Lets Postgres refuse a statement that deletes lines, on a condition on `gone`, the lines that it deletes."""
    query("DROP FUNCTION IF EXISTS refuse_lines CASCADE")

    def guard(condition: str) -> None:
        query(
            "CREATE FUNCTION refuse_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF (SELECT {condition} FROM gone) THEN RAISE EXCEPTION 'refused'; END IF; RETURN NULL; END $$"
        )
        query(
            "CREATE TRIGGER refuse_lines AFTER DELETE ON batch_lines REFERENCING OLD TABLE AS gone "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_lines()"
        )

    yield guard
    query("DROP FUNCTION IF EXISTS refuse_lines CASCADE")


def swept(deps: ControlDeps) -> int:
    """Counts the lines that go until a sweep finds none, as the timer runs them."""
    return sum(iter(lambda: forget_lines(deps), 0))


def test_texts_do_not_outlive_their_days_where_old_batches_have_many_lines(
    deps: ControlDeps, make: Make, left: Callable[[], dict[UUID, int]], query: Any, guarded: Callable[[str], None]
) -> None:
    for days in (40, 41):
        query(
            "INSERT INTO batch_lines (batch_id, number, custom_id, prefix, body) "
            "SELECT :id, n, n, '', '{}' FROM generate_series(3, 2500) AS n",
            id=make(days),
        )
    guarded("count(*) > 2000")
    assert swept(deps) == 5000
    assert left() == {}


def test_a_batch_whose_lines_cannot_be_deleted_holds_up_no_other_and_is_named(
    deps: ControlDeps,
    make: Make,
    left: Callable[[], dict[UUID, int]],
    query: Any,
    guarded: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck, *_ = sorted(make(40 + number) for number in range(3))
    guarded(f"bool_or(batch_id = '{stuck}')")
    swept(deps)
    assert left() == {stuck: 2}
    shown = show_id(stuck, BATCH_PREFIX)
    assert [(each.sweep, each.id) for each in caplog.records if each.message == "set_aside"] == [
        ("forget_lines", shown)
    ]  # type: ignore[attr-defined]
    assert deps.sweeps.problems() == {"HeadraceSweepFailing": f"forget_lines set {shown} aside: refused"}

    query("DROP FUNCTION refuse_lines CASCADE")
    monkeypatch.setattr(sweeper, "ASIDE_S", 0.0)
    assert swept(deps) == 2
    assert (left(), deps.sweeps.problems()) == ({}, {})
