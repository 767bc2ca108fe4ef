"""The error for a job that ended without an answer, for endpoints whose 200 can only carry an answer.

Knows no HTTP: `headrace/http/shapes.py` has the status of each.
"""

from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, JobCancelled, JobExpired, JobHeld, JobOverdue, PromptRejected, Unanswered


def job_error(job: Job) -> InvalidRequest | Unanswered:
    """The error for a job that ended and did not succeed."""
    message = job.error_message or "The job failed."
    if job.state is JobState.CANCELLED:
        return JobCancelled("The job was cancelled before it had an answer.", job.id)
    if job.state is JobState.EXPIRED:
        if job.error_code == JobHeld.code:
            return JobHeld(message, job.id)
        return JobExpired(f"{message.rstrip('.')}. It cost nothing; try again.", job.id)
    if job.error_code == JobOverdue.code:
        return JobOverdue(message, job.id)
    if job.error_code == PromptRejected.code:
        rejected = InvalidRequest(message, code=job.error_code)
        rejected.job_id = job.id
        return rejected
    return Unanswered(message, job.id, code=job.error_code)
