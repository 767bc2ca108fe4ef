"""Jobs that a sweep cannot move because Postgres refuses their rows, or because it cannot read their payloads. Each is
found, logged and left out of the next batches, so that it does not block other jobs.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import show_id
from headrace.errors import PayloadUnreadable
from headrace.store import Store, sqlstate
from headrace.store.sql import is_one_of
from headrace.tables import jobs

log = logging.getLogger(__name__)

#: Seconds until a sweep tries a refused job again: an operator may have repaired its row meanwhile.
RETRY_S = 60.0
#: SQLSTATE class of a statement that is wrong for any row, such as one that names a missing column.
_WRONG_STATEMENT = "42"


class HasId(Protocol):
    """A job's row."""

    @property
    def id(self) -> UUID:
        """The job's id."""


Job = TypeVar("Job", bound=HasId)
Done = TypeVar("Done")
#: Locks and returns a batch of jobs that also meet the given conditions.
Choose = Callable[..., Sequence[Job]]
#: Moves the jobs of a batch; returns an outcome for each that it moved.
Move = Callable[[Connection, Sequence[Job]], Sequence[Done]]


class BadRows:
    """The jobs of one sweep that Postgres refused, or that could not be read. Not safe for threads.

    Each is tried at most once until a batch is not full. So the sweep gets past any number of refused jobs.
    """

    def __init__(self, sweep: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without refused jobs. Args: sweep: its name, for the log. clock: in seconds."""
        self._sweep = sweep
        self._clock = clock
        self._refused_at: dict[UUID, float] = {}

    def move(self, store: Store, choose: Choose[Job], move: Move[Job, Done], most: int) -> tuple[list[Done], int]:
        """Move a batch of jobs in one transaction; if Postgres refuses it, move its halves, down to single jobs.

        Args: choose: called with the connection and conditions on `jobs`. most: jobs of a full batch.
        Returns: the outcomes, and how many jobs were tried, refused ones included.
        Raises: StoreUnavailable: jobs moved before stay moved.
        """
        known = len(self._refused_at)
        done = self._move(store, choose, move, *self.others())
        tried = len(done) + len(self._refused_at) - known
        self._end_batch(tried, most)
        return done, tried

    def others(self) -> list[ColumnElement[bool]]:
        """The conditions on `jobs` that leave out the refused ones."""
        return [jobs.c.id != sa.all_(sa.cast(list(self._refused_at), ARRAY(sa.Uuid)))] if self._refused_at else []

    def readable(self, rows: Sequence[Job], read: Callable[[Job], Done], most: int) -> list[Done]:
        """What `read` makes of each row of a batch. Leaves out the rows for which it raises PayloadUnreadable."""
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except PayloadUnreadable as error:
                self._leave_out(row.id, error)
        self._end_batch(len(rows), most)
        return found

    def _end_batch(self, tried: int, most: int) -> None:
        if tried < most:
            since = self._clock() - RETRY_S
            self._refused_at = {job_id: at for job_id, at in self._refused_at.items() if at > since}

    def _move(
        self, store: Store, choose: Choose[Job], move: Move[Job, Done], *conditions: ColumnElement[bool]
    ) -> list[Done]:
        chosen: list[UUID] = []
        try:
            with store.begin() as db:
                batch = choose(db, *conditions)
                chosen = [job.id for job in batch]
                return list(move(db, batch)) if chosen else []
        except (DBAPIError, PayloadUnreadable) as error:
            is_of_a_row = isinstance(error, PayloadUnreadable) or not sqlstate(error).startswith(_WRONG_STATEMENT)
            if not (chosen and is_of_a_row):
                raise
            if len(chosen) == 1:
                self._leave_out(chosen[0], error)
                return []
        # One bad row fails the whole batch; halving finds it in a few steps.
        half = len(chosen) // 2
        parts = (is_one_of(jobs.c.id, ids) for ids in (chosen[:half], chosen[half:]))
        return [each for part in parts for each in self._move(store, choose, move, part)]

    def _leave_out(self, job_id: UUID, error: DBAPIError | PayloadUnreadable) -> None:
        self._refused_at[job_id] = self._clock()
        why = str(error) if isinstance(error, PayloadUnreadable) else message_of(error)
        log.error("row_refused", extra={"sweep": self._sweep, "job_id": show_id(job_id), "error": why})


def message_of(error: DBAPIError) -> str:
    """Postgres's message about a row, without the driver's own text, which quotes the row."""
    diagnosis: Any = getattr(error.orig, "diag", None)
    return getattr(diagnosis, "message_primary", None) or type(error.orig).__name__
