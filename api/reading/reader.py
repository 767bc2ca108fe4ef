"""Reads jobs for all threads of one process: callers that come during a read share the next one. Knows no HTTP."""

from collections.abc import Sequence
from uuid import UUID

from headrace.batching import Batching
from headrace.broker import ending
from headrace.broker.admission import Admission
from headrace.domain.jobs import Job
from headrace.errors import Unavailable
from headrace.store import Store, jobs

#: Jobs in one read. An answer may be megabytes, and a whole batch is in memory at once.
BATCH = 8

#: The app's id and the job's.
_Key = tuple[UUID, UUID]


class Reader:
    """Reads jobs as they stand. Safe for many threads, which share one connection."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store, self._admission = store, admission
        self.batching = Batching[_Key, Job | None](self._serve, BATCH)

    def read(self, app_id: UUID, job_id: UUID) -> Job:
        """As `ending.read`. Raises: NotFound. StoreUnavailable."""
        found: Job | BaseException | None
        try:
            found = self.batching.call((app_id, job_id))
        except Exception as error:
            found = error
        return self.job_of(app_id, job_id, found)

    def job_of(self, app_id: UUID, job_id: UUID, found: Job | BaseException | None) -> Job:
        """The job by what its batch found, or failed with. Raises: NotFound. StoreUnavailable."""
        if isinstance(found, Unavailable):
            raise found
        if isinstance(found, BaseException):
            # A row that cannot be read must fail only its own reader.
            return ending.read(self._store, self._admission, app_id, job_id)
        if found is None:
            raise jobs.not_found(job_id)
        return ending.ended_if_over(self._store, self._admission, found)

    def _serve(self, keys: Sequence[_Key]) -> list[Job | None]:
        found = jobs.find_all(self._store, keys)
        return [found.get(key) for key in keys]
