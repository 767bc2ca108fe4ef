"""The sweep of batches' lines: they go with the uploads of their age, and no sooner than their batch has ended."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.batches import BatchState
from headrace.domain.ids import new_id
from headrace.domain.queues import Overflow
from headrace.store import Store, batches
from headrace.tables import batch_lines
from headrace.tables import batches as table
from scheduler.deps import ControlDeps
from scheduler.sweep import forget_lines
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
    days = deps.settings.files.keep_days
    gone = {make(days + 1, state) for state in BatchState if state.is_terminal}
    young = {make(days - 1, state) for state in BatchState}
    running = {make(days + 1, state) for state in BatchState if not state.is_terminal}

    assert forget_lines(deps) == len(gone)

    assert left() == dict.fromkeys(young | running, 2)
    assert {row[0] for row in query("SELECT id FROM batches WHERE NOT has_lines")} == gone, "the batches stay"
    assert forget_lines(deps) == 0


@pytest.mark.parametrize(("keep_texts_days", "goes"), [(3, True), (5, False), (None, False)])
def test_they_go_with_the_texts_of_their_age(
    deps: ControlDeps, make: Make, left: Callable[[], dict[UUID, int]], keep_texts_days: int | None, goes: bool
) -> None:
    make(4)
    changed = deps.settings.model_copy(update={"keep_texts_days": keep_texts_days})
    assert forget_lines(replace(deps, settings=changed)) == goes
    assert len(left()) == (not goes)


def test_a_sweep_takes_some_batches_at_a_time(
    deps: ControlDeps, make: Make, left: Callable[[], dict[UUID, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FORGET_BATCHES", 2)
    oldest = sorted(make(40 + number) for number in range(3))
    assert forget_lines(deps) == 2
    assert left() == {oldest[-1]: 2}
    assert forget_lines(deps) == 1
