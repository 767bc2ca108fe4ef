"""Batches and their lines. `running` moves them on: it reads files, submits lines, and writes the results.

A line's job gets its id before it is submitted, and keeps it: however often the line is submitted, one job answers it.

Only the process that holds a batch's lease reads its file. All other steps are safe in two processes at once: each line
changes its state once, in the transaction that counts it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row

from headrace.domain.ids import new_id, oldest_id, show_id
from headrace.domain.jobs import Idempotency
from headrace.domain.queues import Overflow
from headrace.domain.states import TERMINAL, JobState
from headrace.errors import InvalidRequest, NotFound
from headrace.store import clock, deliveries
from headrace.store.audit import Audit
from headrace.store.jobs.insertion import find_replay, keep_key, key_reused
from headrace.store.sql import Statement, delete_chosen, is_one_of
from headrace.tables import apps, jobs
from plugins.batches.domain import (
    BATCH_EVENT,
    BATCH_PREFIX,
    Batch,
    BatchError,
    BatchState,
    Line,
    LineState,
    NewLine,
    TokenSums,
)
from plugins.batches.store import files, line_texts
from plugins.batches.store.line_texts import DROPPED, PAGE_BYTES, held_by, left_of_answered, line_of, oldest_job_of
from plugins.batches.tables import batch_lines, batches

#: Characters of a prompt by which lines are ordered: an engine keeps what prompts of one beginning have in common.
PREFIX_CHARS = 128
#: Lines that one statement moves to the end, or deletes: at 1 MiB each their texts are half a million rows.
SETTLE_ROWS = 1000
#: How long a submitted line without a job waits until it is submitted again. Its job's id stays the same, so that an
#: insert that takes longer makes no second job.
LOST_AFTER = timedelta(seconds=10)
#: States in which a cancel begins to end it.
CANCELLABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
_OPEN = (BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.CANCELLING)
#: A literal, so that the partial index of open batches serves.
_IS_OPEN = batches.c.state.in_([sa.literal(str(state), literal_execute=True) for state in _OPEN])
_TIMES = tuple(state for state in BatchState if state is not BatchState.VALIDATING)
_IS_WAITING = batch_lines.c.state == sa.literal("waiting", literal_execute=True)
IS_SUBMITTED = batch_lines.c.state == sa.literal("submitted", literal_execute=True)
#: A line that is given back has left the provider's batch that it was to go to.
_WAITS = {"state": LineState.WAITING, "provider_batch_id": None}
_TAKE = Statement("take_lines", "plugins.batches.store")
_COLUMNS = (batches, sa.func.now().label("read_at"))
#: Of a line that will never run.
WITHOUT_REQUEST = {"body": DROPPED, "prefix": ""}
#: What became of a job's line. A job that was cancelled by itself has failed as a line.
_LINE_STATES: Mapping[str, LineState] = {
    JobState.SUCCEEDED: LineState.SUCCEEDED,
    JobState.FAILED: LineState.FAILED,
    JobState.EXPIRED: LineState.EXPIRED,
    JobState.CANCELLED: LineState.FAILED,
}


def create(
    db: Connection,
    app_id: UUID,
    *,
    window_s: float,
    most_open: int,
    held_bytes: int = 0,
    quota_bytes: int | None = None,
    **values: Any,
) -> Batch:
    """Note a batch, which `running` will read.

    Args:
        most_open: batches of one app.
        held_bytes: what its lines are counted as until they are written: the size of their file, or of their requests.
        quota_bytes: of all that the app stores; None for no bound.
        values: of its columns.

    Raises: InvalidRequest, code `too_many_batches` or `storage_quota_exceeded`.
    """
    _hold_app(db, app_id)
    if quota_bytes is not None:
        files.check_quota(db, app_id, held_bytes, quota_bytes, "input_file_id")
    mine = sa.select(sa.func.count()).where(_IS_OPEN, batches.c.app_id == app_id)
    if (held := db.scalar(mine) or 0) >= most_open:
        raise InvalidRequest(
            f"This app has {held} batches under way, the most that it may have: wait until one of them has ended.",
            code="too_many_batches",
        )
    begins = sa.func.greatest(
        sa.func.now(), sa.func.coalesce(sa.cast(values.get("not_before"), sa.TIMESTAMP(True)), sa.func.now())
    )
    row = {"id": new_id(), "app_id": app_id, "expires_at": begins + timedelta(seconds=window_s), **values}
    row["held_bytes"] = held_bytes
    return _read(db.execute(sa.insert(batches).values(row).returning(*_COLUMNS)).one())


def once(
    db: Connection, app_id: UUID, key: Idempotency | None, make: Callable[[Connection], Batch]
) -> tuple[Batch, bool]:
    """The batch that `make` makes, or that an earlier request with this key made, and whether it is that one.

    Raises: IdempotencyKeyReused: the key stands for another request. What `make` raises.
    """
    if key is None:
        return make(db), False
    _hold_app(db, app_id)
    if (found := find_replay(db, app_id, key.key)) is None:
        batch = make(db)
        keep_key(db, app_id, key, batch.id)
        return batch, False
    batch_id, request_hash = found
    if request_hash != key.request_hash:
        raise key_reused()
    return find(db, app_id, batch_id), True


def _hold_app(db: Connection, app_id: UUID) -> None:
    """Let no other transaction make a batch of the app until this one ends: each sees those of the others."""
    db.execute(sa.select(apps.c.id).where(apps.c.id == app_id).with_for_update(key_share=True))


def find(db: Connection, app_id: UUID | None, batch_id: UUID) -> Batch:
    """The app's batch. Args: app_id: None for an operator. Raises: NotFound."""
    asked = sa.select(*_COLUMNS).where(batches.c.id == batch_id, *_of(app_id))
    if (row := db.execute(asked).one_or_none()) is None:
        raise _not_found(batch_id)
    return _read(row)


def newest(
    db: Connection, app_id: UUID | None, *, limit: int, after: UUID | None = None, state: BatchState | None = None
) -> list[Batch]:
    """The app's batches, newest first. Args: app_id: None for all apps. after: the last of the page before."""
    asked = sa.select(*_COLUMNS).where(*_of(app_id)).order_by(batches.c.id.desc()).limit(limit)
    if after is not None:
        asked = asked.where(batches.c.id < after)
    if state is not None:
        asked = asked.where(batches.c.state == state)
    return [_read(row) for row in db.execute(asked)]


def cancel(db: Connection, app_id: UUID | None, batch_id: UUID) -> Batch:
    """Ask for the end of a batch: none of its lines starts any more. One that has ended stays as it is.

    Safe to repeat. Args: app_id: None for an operator. Raises: NotFound.
    """
    _move(db, batch_id, CANCELLABLE, BatchState.CANCELLING, *_of(app_id))
    return find(db, app_id, batch_id)


def _of(app_id: UUID | None) -> list[ColumnElement[bool]]:
    return [] if app_id is None else [batches.c.app_id == app_id]


def retry(
    db: Connection, old: Batch, *, window_s: float, most_open: int, quota_bytes: int | None = None, **values: Any
) -> Batch:
    """Note a batch of the lines of an ended one that have no answer. `running` copies them.

    Args: as of `create`. Raises: InvalidRequest.
    """
    if not old.state.is_terminal:
        raise InvalidRequest("This batch has not ended: wait for its end, or cancel it.", code="batch_not_ended")
    if not line_texts.unanswered(db, old.id, 0, 1):
        raise InvalidRequest(
            "No line of this batch is left to be run again: all have answers, or its lines are deleted.",
            code="nothing_to_retry",
        )
    held_bytes, has_dropped = line_texts.requests_left(db, old.id)
    try:
        if has_dropped:
            held_bytes = files.find(db, old.app_id, old.input_file_id).size
    except NotFound as error:
        if not held_bytes:
            raise InvalidRequest(
                "The input file is deleted, and no line without an answer has its request any more: make a new batch.",
                code="file_not_found",
            ) from error
    same = ("endpoint", "model", "input_file_id", "overflow", "webhook_url", "output_keep_s")
    given = {name: getattr(old, name) for name in same}
    given |= {"metadata": dict(old.metadata), "retry_of": old.id, **values}
    bounds: dict[str, Any] = {"most_open": most_open, "quota_bytes": quota_bytes, "held_bytes": held_bytes}
    return create(db, old.app_id, window_s=window_s, **bounds, **given)


def lease(db: Connection, runner_id: UUID, lease_s: float) -> list[Batch]:
    """Take over the batches that no other process moves on, and keep those of this one. The oldest come first."""
    values = {"runner_id": runner_id, "lease_until": sa.func.now() + timedelta(seconds=lease_s)}
    # Those of this process also while their lines are counted, which locks the row for a moment.
    is_mine = sa.and_(_IS_OPEN, batches.c.runner_id == runner_id)
    found = db.execute(sa.update(batches).where(is_mine).values(values).returning(*_COLUMNS)).all()
    is_free = sa.or_(batches.c.runner_id.is_(None), batches.c.lease_until < sa.func.now())
    free = sa.select(batches.c.id).where(_IS_OPEN, is_free).with_for_update(skip_locked=True)
    taken = sa.update(batches).where(batches.c.id.in_(free)).values(values).returning(*_COLUMNS)
    return sorted(map(_read, [*found, *db.execute(taken)]), key=lambda batch: batch.id)


def release(db: Connection, runner_id: UUID) -> None:
    """Give up all batches of a process that ends."""
    db.execute(
        sa.update(batches).where(_IS_OPEN, batches.c.runner_id == runner_id).values(lease_until=None, runner_id=None)
    )


def clear_lines(db: Connection, batch_id: UUID, runner_id: UUID) -> int | None:
    """Delete the next lines of a batch that does not run yet. Returns: how many; None where `put_lines` is False."""
    return delete_lines(db, batch_id) if _is_mine(db, batch_id, runner_id) else None


def put_lines(db: Connection, batch_id: UUID, runner_id: UUID, lines: Iterable[NewLine]) -> bool:
    """Write some lines of a batch by COPY. Returns: False if another process reads it now, or it was cancelled."""
    if not _is_mine(db, batch_id, runner_id):
        return False
    cursor = db.connection.cursor()
    with cursor.copy("COPY batch_lines (batch_id, number, custom_id, prefix, body) FROM STDIN") as copy:
        for line in lines:
            copy.write_row((batch_id, *line))
    return True


def _is_mine(db: Connection, batch_id: UUID, runner_id: UUID) -> bool:
    """Whether this process reads the batch's file. Until the transaction ends, no other takes it over."""
    mine = (batches.c.id == batch_id, batches.c.runner_id == runner_id, batches.c.state == BatchState.VALIDATING)
    return db.execute(sa.select(batches.c.id).where(*mine).with_for_update()).one_or_none() is not None


def begin(db: Connection, batch_id: UUID, runner_id: UUID, total: int, model: str | None) -> bool:
    """Let the lines of a batch run, which are all written. Returns: as `put_lines`."""
    is_mine = batches.c.runner_id == runner_id
    facts = {"total": total, "model": model, "held_bytes": held_by(batch_id)}
    return _move(db, batch_id, [BatchState.VALIDATING], BatchState.IN_PROGRESS, is_mine, **facts)


def reject(db: Connection, batch_id: UUID, runner_id: UUID, errors: Sequence[BatchError]) -> bool:
    """Fail a batch whose file is none, once its lines are deleted. Returns: as `put_lines`."""
    values = {"errors": [asdict(error) for error in errors], "held_bytes": 0}
    is_mine = batches.c.runner_id == runner_id
    return _move(db, batch_id, [BatchState.VALIDATING], BatchState.FAILED, is_mine, **values)


def take_lines(db: Connection, batch_id: UUID, limit: int, most_bytes: int = PAGE_BYTES) -> list[Line]:
    """The next lines to run, each with a job's id, as submitted from now on: one at least, if one waits.

    A line whose job was inserted all the same, after it had been given back, is only noted as submitted.
    """
    rows = _TAKE.run(db, batch_id=batch_id, ids=[new_id() for _ in range(limit)], most_bytes=most_bytes)
    again = [row.job_id for row in rows if row.is_again]
    begun = set(db.scalars(sa.select(jobs.c.id).where(is_one_of(jobs.c.id, again)))) if again else set()
    return [line_of(batch_id, row) for row in rows if row.job_id not in begun]


def give_back(db: Connection, batch_id: UUID, numbers: Sequence[int]) -> None:
    """Let lines that found no room wait again. They keep their jobs' ids."""
    these = (batch_lines.c.batch_id == batch_id, batch_lines.c.number.in_(numbers), IS_SUBMITTED)
    db.execute(sa.update(batch_lines).where(*these).values(_WAITS))


def refuse(db: Connection, line: Line, status: int, body: str) -> bool:
    """End a line whose request was refused for good, also if it was given back meanwhile. Args: body: JSON.

    Returns: False if it has ended, or has a job, which answers it: an earlier submit of the line made it.
    """
    is_open = sa.or_(IS_SUBMITTED, _IS_WAITING)
    these = (batch_lines.c.batch_id == line.batch_id, batch_lines.c.number == line.number, is_open)
    values = {"state": LineState.FAILED, "status_code": status, "refusal": body, "job_id": None, **WITHOUT_REQUEST}
    ended = sa.update(batch_lines).where(*these, ~_has_job(line.batch_id)).values(values)
    if not db.execute(ended).rowcount:
        return False
    _count(db, line.batch_id, failed=1)
    return True


def give_back_lost(db: Connection, batch_id: UUID, under_way: Sequence[UUID] = ()) -> int:
    """Let submitted lines without a job wait again: their feeder died, or Postgres lost the jobs. Returns: how many.

    Args: under_way: the jobs' ids of lines that this process is submitting.
    """
    is_old = batch_lines.c.submitted_at < sa.func.now() - LOST_AFTER
    is_left = sa.not_(is_one_of(batch_lines.c.job_id, under_way))
    these = (batch_lines.c.batch_id == batch_id, IS_SUBMITTED, is_old, ~_has_job(batch_id), is_left)
    return db.execute(sa.update(batch_lines).where(*these).values(_WAITS)).rowcount


def is_job_of(batch_id: UUID) -> ColumnElement[bool]:
    """Whether a job is that of a line. No job is older than its batch, so older months are not looked into."""
    return sa.and_(jobs.c.id == batch_lines.c.job_id, jobs.c.id >= oldest_job_of(batch_id))


def _has_job(batch_id: UUID) -> ColumnElement[bool]:
    return sa.exists().where(is_job_of(batch_id))


def with_ended_jobs(db: Connection, batch_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these batches, one at least, that have submitted lines whose jobs have ended."""
    ended = sa.exists().where(
        batch_lines.c.batch_id == batches.c.id,
        IS_SUBMITTED,
        is_job_of(min(batch_ids)),
        (jobs.c.state + "").in_(TERMINAL),
    )
    return set(db.scalars(sa.select(batches.c.id).where(is_one_of(batches.c.id, batch_ids), ended)))


def settle(db: Connection, batch_id: UUID, endpoint: str, *, is_cancelling: bool) -> int:
    """Note what became of submitted lines whose jobs have ended, `SETTLE_ROWS` at most. Returns: how many."""
    facts = (jobs.c.state, jobs.c.prompt_tokens, jobs.c.cached_tokens, jobs.c.output_tokens, jobs.c.reasoning_tokens)
    ended = (
        sa.select(batch_lines.c.number, jobs.c.usd, *facts)
        .join(jobs, is_job_of(batch_id))
        .where(batch_lines.c.batch_id == batch_id, IS_SUBMITTED, (jobs.c.state + "").in_(TERMINAL))
        .limit(SETTLE_ROWS)
        .with_for_update(of=batch_lines, skip_locked=True)
    )
    rows = db.execute(ended).all()
    states = dict(_LINE_STATES)
    if is_cancelling:
        states[JobState.CANCELLED] = LineState.CANCELLED
    for state in set(map(states.__getitem__, (row.state for row in rows))):
        numbers = [row.number for row in rows if states[row.state] is state]
        these = (batch_lines.c.batch_id == batch_id, batch_lines.c.number.in_(numbers))
        values: dict[str, Any] = {"state": state}
        if state is LineState.SUCCEEDED:
            values |= {"body": left_of_answered(endpoint), "prefix": ""}
        elif state is not LineState.FAILED:
            values |= WITHOUT_REQUEST
        db.execute(sa.update(batch_lines).where(*these).values(values))
    if rows:
        answered = [row for row in rows if row.state == JobState.SUCCEEDED]
        sums = {name: sum(getattr(row, name) or 0 for row in answered) for name in _USAGE}
        usd = sum(row.usd for row in rows)
        _count(db, batch_id, completed=len(answered), failed=len(rows) - len(answered), usd=usd, **sums)
    return len(rows)


def drop_unread(db: Connection, batch_id: UUID) -> int:
    """Delete the next lines of a cancelled batch whose file was not read to its end. Returns: how many."""
    is_unread = sa.exists().where(batches.c.id == batch_id, batches.c.in_progress_at.is_(None))
    return delete_lines(db, batch_id) if db.scalar(sa.select(is_unread)) else 0


def end_waiting(db: Connection, batch_id: UUID, state: LineState) -> int:
    """End lines that wait: they are expired or cancelled. Returns: how many, `SETTLE_ROWS` at most.

    A line whose job was inserted all the same, after it had been given back, ends as that job does.
    """
    waiting = sa.select(batch_lines.c.number, _has_job(batch_id)).where(batch_lines.c.batch_id == batch_id, _IS_WAITING)
    rows = db.execute(waiting.limit(SETTLE_ROWS).with_for_update(of=batch_lines, skip_locked=True)).all()
    ended = {"state": state, "job_id": None, **WITHOUT_REQUEST}
    for has_job, values in ((False, ended), (True, {"state": LineState.SUBMITTED})):
        if numbers := [row.number for row in rows if row[1] is has_job]:
            these = (batch_lines.c.batch_id == batch_id, is_one_of(batch_lines.c.number, numbers))
            db.execute(sa.update(batch_lines).where(*these).values(values))
    if failed := sum(not has_job for _, has_job in rows):
        _count(db, batch_id, failed=failed)
    return len(rows)


def submitted_jobs(db: Connection, batch_id: UUID) -> list[UUID]:
    """The jobs of submitted lines that have not ended, and that no one has asked to end."""
    theirs = sa.select(jobs.c.id).join(batch_lines, is_job_of(batch_id))
    open_jobs = theirs.where(batch_lines.c.batch_id == batch_id, IS_SUBMITTED, (jobs.c.state + "").not_in(TERMINAL))
    return list(db.scalars(open_jobs.where(jobs.c.cancel_requested_at.is_(None))))


def with_all_ended(db: Connection, batch_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these batches that are open, and of which no line is left to end."""
    is_done = batches.c.completed + batches.c.failed >= batches.c.total
    return set(db.scalars(sa.select(batches.c.id).where(is_one_of(batches.c.id, batch_ids), is_done, _IS_OPEN)))


def begin_end(db: Connection, batch_id: UUID) -> None:
    """Note that the results are being written, if all lines have ended."""
    is_done = batches.c.completed + batches.c.failed == batches.c.total
    _move(db, batch_id, [BatchState.IN_PROGRESS], BatchState.FINALIZING, is_done)


def has_expired_lines(db: Connection, batch_id: UUID) -> bool:
    """Whether a line expired."""
    expired = sa.exists().where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == LineState.EXPIRED)
    return bool(db.scalar(sa.select(expired)))


def end(db: Connection, batch: Batch, state: BatchState, **values: Any) -> bool:
    """End a batch. Args: values: its files, and how many lines they have. Returns: False if it has ended already."""
    return _move(db, batch.id, [batch.state], state, held_bytes=held_by(batch.id), **values)


def hide_lines(db: Connection, keep_days: float) -> int:
    """Let no call read the lines of batches that were made more than `keep_days` ago and have ended. Returns: batches.

    A retry that copies lines meanwhile fails, so call it no later than `delete_lines`.
    """
    old = sa.select(batches.c.id).where(batches.c.has_lines, ~_IS_OPEN, batches.c.id < _oldest_kept(db, keep_days))
    chosen = old.with_for_update(skip_locked=True).scalar_subquery()
    return db.execute(sa.update(batches).where(batches.c.id.in_(chosen)).values(has_lines=False)).rowcount


def with_old_lines(db: Connection, keep_days: float, but: Collection[UUID]) -> UUID | None:
    """The oldest batch with lines that may be deleted; None if there is none. Args: but: batches that are left out."""
    is_old = (batch_lines.c.batch_id < _oldest_kept(db, keep_days), ~is_one_of(batch_lines.c.batch_id, but))
    is_open = sa.exists().where(batches.c.id == batch_lines.c.batch_id, _IS_OPEN)
    found = sa.select(batch_lines.c.batch_id).where(*is_old, ~is_open).order_by(batch_lines.c.batch_id).limit(1)
    return db.scalar(found)


def delete_lines(db: Connection, batch_id: UUID) -> int:
    """Delete the next `SETTLE_ROWS` lines of a batch, the whole of which took longer than a statement may."""
    these = sa.select(batch_lines.c.number).where(batch_lines.c.batch_id == batch_id)
    # With both columns of the key, no plan sorts.
    order = (batch_lines.c.batch_id, batch_lines.c.number)
    return db.execute(delete_chosen(these.order_by(*order).limit(SETTLE_ROWS), batch_lines)).rowcount


def _oldest_kept(db: Connection, keep_days: float) -> UUID:
    return oldest_id(clock.now(db) - timedelta(days=keep_days))


def line_states(db: Connection, batch_id: UUID) -> dict[LineState, int]:
    """Its lines by their state; empty once they are deleted. Reads all of them."""
    counts = sa.select(batch_lines.c.state, sa.func.count()).where(batch_lines.c.batch_id == batch_id)
    return {LineState(state): count for state, count in db.execute(counts.group_by(batch_lines.c.state))}


class OpenBatches(NamedTuple):
    """What is under way. Attributes: batches: by state. waiting and submitted: their lines."""

    batches: Mapping[BatchState, int]
    waiting: int
    submitted: int


def open_batches(db: Connection) -> OpenBatches:
    """What is under way, in one statement that reads no waiting line: their number follows from the others."""
    submitted = sa.select(sa.func.count()).where(batch_lines.c.batch_id == batches.c.id, IS_SUBMITTED)
    left = (batches.c.total - batches.c.completed - batches.c.failed).label("left")
    rows = db.execute(sa.select(batches.c.state, left, submitted.scalar_subquery().label("sent")).where(_IS_OPEN)).all()
    sent = sum(row.sent for row in rows)
    counts = {state: sum(row.state == state for row in rows) for state in _OPEN}
    return OpenBatches(counts, max(0, sum(row.left for row in rows) - sent), sent)


_USAGE = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def _count(db: Connection, batch_id: UUID, **more: Any) -> None:
    values = {name: batches.c[name] + number for name, number in more.items() if number}
    db.execute(sa.update(batches).where(batches.c.id == batch_id).values(values))


def _move(
    db: Connection,
    batch_id: UUID,
    sources: Sequence[BatchState],
    state: BatchState,
    *conditions: ColumnElement[bool],
    **values: Any,
) -> bool:
    """Move a batch from one of these states to another, with its time, and with a webhook at its end."""
    values |= {"state": state, f"{state}_at": sa.func.now()}
    these = (batches.c.id == batch_id, batches.c.state.in_(sources), *conditions)
    row = db.execute(sa.update(batches).where(*these).values(values).returning(*_COLUMNS)).one_or_none()
    if row is not None and state.is_terminal and row.webhook_url is not None:
        data = {"id": show_id(batch_id, BATCH_PREFIX)}
        deliveries.add(db, f"{BATCH_EVENT}{state}", row.webhook_url, data, app_id=row.app_id)
    return row is not None


#: What a batch has as its row has it.
_SAME = (
    *("id", "app_id", "endpoint", "input_file_id", "completion_window", "created_at", "expires_at", "read_at"),
    *("model", "output_file_id", "error_file_id", "not_before", "webhook_url", "output_keep_s", "retry_of", "metadata"),
    *("total", "completed", "failed", "has_lines"),
)


def _read(row: Row[Any]) -> Batch:
    times: dict[BatchState, datetime] = {
        state: at for state in _TIMES if (at := getattr(row, f"{state}_at")) is not None
    }
    usage = TokenSums(row.prompt_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens, row.usd)
    return Batch(
        **{name: getattr(row, name) for name in _SAME},
        state=BatchState(row.state),
        overflow=Overflow(row.overflow),
        errors=tuple(BatchError(**error) for error in row.errors or ()),
        times=times,
        usage=usage,
    )


def _not_found(batch_id: UUID) -> NotFound:
    return NotFound(f"No batch with id '{show_id(batch_id, BATCH_PREFIX)}'.")


def cancel_by_operator(audit: Audit, batch_id: UUID) -> Batch:
    """The batch as it is now: its lines end soon. Raises: NotFound."""
    batch = cancel(audit.db, None, batch_id)
    audit.record("batch.cancel", show_id(batch_id, BATCH_PREFIX), batch.app_id, state=batch.state)
    return batch
