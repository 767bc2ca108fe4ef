"""What a control process tells Prometheus of batches, on a real Postgres and over HTTP."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.ids import new_id
from plugins.batches.tables import batch_lines, batches, provider_batches
from scheduler.deps import ControlDeps
from scheduler.measuring import StoreMetrics

PROVIDER_STATES = ("gathering", "ready", "reserved", "uploaded", "sent", "settled")
Serve = Callable[..., Callable[[], list[str]]]


def of(lines: list[str]) -> dict[str, float]:
    names = ("headrace_batch", "headrace_provider_batch")
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(names)}


def test_open_batches_and_their_lines_by_state(deps: ControlDeps, serve: Serve, app: App) -> None:
    scrape = serve(StoreMetrics(deps))
    none = {"validating": 0.0, "in_progress": 0.0, "finalizing": 0.0, "cancelling": 0.0}
    no_lines = {"waiting": 0.0, "submitted": 0.0}
    assert of(scrape()) == named(none, no_lines)

    add(deps, app, "validating")
    # 94 of 100 lines are left, of which two have a job; of the other batches, one has 3 with a job and one is old.
    add(deps, app, "in_progress", submitted=2, total=100, completed=5, failed=1)
    add(deps, app, "in_progress", submitted=3, total=3)
    add(deps, app, "cancelling", total=4, failed=4)
    add(deps, app, "completed", total=1000, completed=900)

    states = {**none, "validating": 1.0, "in_progress": 2.0, "cancelling": 1.0}
    assert of(scrape()) == named(states, {"waiting": 92.0, "submitted": 5.0})


def named(states: dict[str, float], lines: dict[str, float]) -> dict[str, float]:
    shown = {f'headrace_batches{{state="{state}"}}': count for state, count in states.items()}
    shown |= {f'headrace_provider_batches{{state="{state}"}}': 0.0 for state in PROVIDER_STATES}
    shown["headrace_provider_batch_oldest_seconds"] = 0.0
    return {**shown, **{f'headrace_batch_lines{{state="{state}"}}': count for state, count in lines.items()}}


def add(deps: ControlDeps, app: App, state: str, submitted: int = 0, **counts: Any) -> None:
    """Add a batch, and those of its lines that have a job."""
    row = {"id": new_id(), "app_id": app.id, "state": state, "endpoint": "/v1/responses", "input_file_id": new_id()}
    more = {"completion_window": "1h", "overflow": "never", "expires_at": sa.func.now(), **counts}
    with deps.store.begin() as db:
        db.execute(sa.insert(batches).values(**row, **more))
        for number in range(submitted):
            line = {"batch_id": row["id"], "number": number, "custom_id": str(number), "prefix": "", "body": "{}"}
            db.execute(sa.insert(batch_lines).values(**line, state="submitted", job_id=new_id()))


def test_batches_at_the_provider_by_state_and_the_age_of_the_oldest(deps: ControlDeps, serve: Serve, app: App) -> None:
    scrape = serve(StoreMetrics(deps))
    add(deps, app, "in_progress", total=3)
    with deps.store.begin() as db:
        batch_id = db.scalar(sa.select(batches.c.id))
        for state, hours in (("sent", 30), ("sent", 2), ("ready", 1), ("ended", 100)):
            at = sa.func.now() - timedelta(hours=hours)
            row = {"id": new_id(), "batch_id": batch_id, "model": "m", "state": state, "created_at": at}
            db.execute(sa.insert(provider_batches).values(row))
    found = of(scrape())
    assert found['headrace_provider_batches{state="sent"}'] == 2
    assert found['headrace_provider_batches{state="ready"}'] == 1
    assert 30 * 3600 <= found["headrace_provider_batch_oldest_seconds"] < 30 * 3600 + 60
