"""The states of a job and the transitions between them. `docs/lifecycle.md` draws them."""

from collections.abc import Mapping
from enum import StrEnum

from headrace.errors import IllegalTransition


class JobState(StrEnum):
    """The state of a job. `docs/lifecycle.md` documents each state and its exits."""

    #: In Postgres only. `publish_due` queues it, through `admission`; or a provider's batch takes it.
    WAITING = "waiting"
    #: Its message is in the queue's list, or soon will be. It ends with a worker's claim or with `expire`.
    QUEUED = "queued"
    #: A worker holds it under its lease and finishes it; `rescue` takes it from a dead worker. Or a provider's batch
    #: has it, which any overflow worker moves on.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: `start_by` passed before a first start. Costs nothing.
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """True when this job never changes state again."""
        return not TRANSITIONS[self]


#: The transition table: the possible next states of each state. `store.transition` enforces it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset(
        {
            JobState.QUEUED,
            #: Without a queue: the provider's batch tier takes it.
            JobState.RUNNING,
            JobState.EXPIRED,
            JobState.CANCELLED,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
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


#: From this `suspicion` on, a job runs alone.
SUSPECT = 2


TERMINAL: frozenset[JobState] = frozenset(state for state, exits in TRANSITIONS.items() if not exits)


def check_transition(source: JobState, target: JobState) -> None:
    """Raise IllegalTransition unless the table allows `source -> target`."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(f"A job cannot go from {source} to {target}.")
