"""The states of jobs: conditions on rows of `jobs`, and all statements that change a job's state.

A change is a compare-and-set that obeys the transition table. Workers claim and end jobs by `claim.sql` and
`finish.sql`, all else goes through `transition` and `moving`. A test finds a statement elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Update

from headrace.domain.ids import new_id
from headrace.domain.states import TERMINAL, JobState, check_transition
from headrace.policies.webhooks import event_of
from headrace.tables import deliveries, jobs

UNSTARTED = (JobState.WAITING, JobState.QUEUED)

#: Literals, as in the predicates of partial indexes: a generic plan with parameters could not use those indexes.
SPELLED = {state: sa.literal(str(state), sa.Text, literal_execute=True) for state in JobState}
IS_QUEUED = jobs.c.state == SPELLED[JobState.QUEUED]
IS_WAITING = jobs.c.state == SPELLED[JobState.WAITING]
IS_RUNNING = jobs.c.state == SPELLED[JobState.RUNNING]
IS_UNSTARTED = jobs.c.state.in_([SPELLED[state] for state in UNSTARTED])

_LEADER = jobs.alias("leader")


def _of_leader(column: str) -> ScalarSelect[Any]:
    """A value of the job whose answer this one shares; NULL if it shares none.

    Not as a condition: so no partial index can be taken for it, which would be read whole once it has grown.
    """
    return sa.select(_LEADER.c[column]).where(_LEADER.c.id == jobs.c.served_by_job).correlate(jobs).scalar_subquery()


#: A job that shares an answer has started when the job that makes it has.
START_IS_LATE = sa.and_(
    jobs.c.started_at.is_(None), jobs.c.start_by <= sa.func.now(), _of_leader("started_at").is_(None)
)
IS_LEADER_ENDED = sa.and_(
    jobs.c.state == JobState.WAITING,
    jobs.c.served_by_job.is_not(None),
    sa.func.coalesce(_of_leader("state").in_(TERMINAL), sa.false()),
)
FINISH_IS_LATE = sa.and_(jobs.c.finish_by.is_not(None), jobs.c.finish_by <= sa.func.now())
IS_OVER = sa.and_(jobs.c.state.in_(UNSTARTED), sa.or_(START_IS_LATE, FINISH_IS_LATE))


#: The columns of a job that `announce` reads.
ANNOUNCED = ("id", "app_id", "state", "finish_reason", "webhook_url")


def transition(
    db: Connection, sources: Sequence[JobState], target: JobState, *conditions: ColumnElement[bool], **values: Any
) -> Sequence[Row[Any]]:
    """Move every job that is in `sources` and meets `conditions` to `target`, and return the updated rows.

    A job that no longer meets them is skipped, so that at most one of two actors moves it. A job that ends gets
    `ended_at` and, if it names a webhook, a row in `deliveries`, in the same transaction.
    Raises: IllegalTransition: the table does not allow it.
    """
    rows = db.execute(moving(sources, target, *conditions, **values).returning(jobs)).all()
    if target.is_terminal:
        announce(db, rows)
    return rows


def moving(
    sources: Sequence[JobState],
    target: JobState,
    *conditions: ColumnElement[bool],
    by_key: bool = False,
    **values: Any,
) -> Update:
    """The statement of a transition, to be part of a larger statement.

    The caller must pass jobs that end with it to `announce`. Raises: IllegalTransition.

    Args:
        by_key: True if the conditions name a few jobs, so that the planner uses their keys and no index on the state.
    """
    for source in sources:
        check_transition(source, target)
    if target.is_terminal:
        values["ended_at"] = sa.func.now()
    if target is not JobState.RUNNING:
        values["worker_id"] = None
    state = jobs.c.state + "" if by_key else jobs.c.state
    return sa.update(jobs).where(state.in_(sources), *conditions).values(state=target, **values)


def announce(db: Connection, rows: Sequence[Row[Any]]) -> None:
    """Write one delivery for each ended job with a webhook, in the transaction that ends the job.

    Args: rows: the columns ANNOUNCED of the updated jobs.
    """
    due = [_delivery_of(row) for row in rows if row.webhook_url is not None]
    if due:
        db.execute(sa.insert(deliveries), due)


def _delivery_of(row: Row[Any]) -> dict[str, Any]:
    event = event_of(JobState(row.state), row.finish_reason)
    return {"id": new_id(), "job_id": row.id, "app_id": row.app_id, "event": event, "url": row.webhook_url}
