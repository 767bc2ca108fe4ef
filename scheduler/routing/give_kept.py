"""Give kept answers: end jobs that wait in vain for a better pool's answer. Knows neither Celery nor any rule."""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row

from headrace.logging import named
from headrace.store import locks
from headrace.store.attempts import escalations
from headrace.store.bad_rows import BadRows
from headrace.store.jobs import ticket_of
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def give_kept(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """End the jobs that have an answer, and have waited for a better one until their `stand_by`.

    Bound: one sweep after that, which is repeated at once where it found `escalations.STAND_ROWS`.
    Args: bad: the jobs that Postgres refused in earlier batches.
    Returns: jobs that were ended or refused.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        locks.take(db, "give_kept")
        return escalations.overdue(db, *conditions)

    bad = bad or BadRows("give_kept")
    rows, tried = bad.move(deps.store, choose, escalations.stand, escalations.STAND_ROWS)
    if rows:
        ended = [row.id for row in rows]
        log.info("kept_answers_given", extra=named(ended))
        deps.admission.remove([ticket_of(row) for row in rows])
        deps.tell_ended(ended)
    return tried
