"""The states of a job, and the moves between them. `docs/lifecycle.md` draws them."""

from collections.abc import Mapping
from enum import StrEnum

from headrace.errors import IllegalTransition


class JobState(StrEnum):
    """Where a job is. Each state is documented by its exits in `docs/lifecycle.md`."""

    #: In Postgres only. `publish_due` moves it on, through `admission`.
    WAITING = "waiting"
    #: A message is, or soon will be, in the queue's list. A worker's claim or `expire` moves it on.
    QUEUED = "queued"
    #: A worker holds it under its lease. The worker finishes it; `rescue` takes it from a dead one.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: `start_by` passed before a first start. Costs nothing.
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """True when nothing will change this job any more."""
        return not TRANSITIONS[self]


#: The transition table: from each state, the states it may become. `store.transition` obeys it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset(
        {JobState.QUEUED, JobState.EXPIRED, JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.EXPIRED, JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.RUNNING: frozenset({JobState.WAITING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}


#: Of a job's `suspicion`: from here on it runs alone.
SUSPECT = 2


TERMINAL: frozenset[JobState] = frozenset(state for state, exits in TRANSITIONS.items() if not exits)


def check_transition(source: JobState, target: JobState) -> None:
    """Raise IllegalTransition unless the table allows `source -> target`."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(f"A job cannot go from {source} to {target}.")
