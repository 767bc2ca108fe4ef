"""Which jobs: by their state, and by what is late about them. Conditions on rows of `jobs`, for statements."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import ScalarSelect

from headrace.domain.states import TERMINAL, JobState
from headrace.tables import jobs

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
