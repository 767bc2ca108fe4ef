"""The error that stands for a job which ended without an answer, where a 200 could only carry an answer.

Knows no HTTP: `api/errors/shapes.py` gives each its status.
"""

from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, JobCancelled, JobExpired, JobOverdue, PromptRejected, Unanswered


def job_error(job: Job) -> InvalidRequest | Unanswered:
    """Why this ended job, which did not succeed, has no answer."""
    message = job.error_message or "The job failed."
    if job.state is JobState.CANCELLED:
        return JobCancelled("The job was cancelled before it had an answer.", job.id)
    if job.state is JobState.EXPIRED:
        return JobExpired(f"{message.rstrip('.')}. It cost nothing; try again.", job.id)
    if job.error_code == JobOverdue.code:
        return JobOverdue(message, job.id)
    if job.error_code == PromptRejected.code:
        rejected = InvalidRequest(message, code=job.error_code)
        rejected.job_id = job.id
        return rejected
    return Unanswered(message, job.id, code=job.error_code)
