"""The use case: cancel a job, and take its message out of its queue. Knows no HTTP."""

import logging
from uuid import UUID

from headrace.admission import Admission
from headrace.errors import BrokerUnavailable
from headrace.jobs import JobState
from headrace.store import Store, jobs
from headrace.store.jobs import Job

log = logging.getLogger(__name__)


def cancel(store: Store, admission: Admission, app_id: UUID, job_id: UUID) -> Job:
    """Cancel the app's job; one that runs is stopped by its worker soon. Raises: NotFound. StoreUnavailable."""
    with store.begin() as db:
        job = jobs.cancel(db, app_id, job_id)
    if job.state is JobState.CANCELLED:
        try:
            admission.remove([job.ticket])
            admission.announce_ended([job.id])
        except BrokerUnavailable as error:
            # Its message finds nothing to claim, and whoever waits looks again by himself.
            log.warning("cancel_not_announced", extra={"job_id": job.id.hex, "error": str(error)})
    return job
