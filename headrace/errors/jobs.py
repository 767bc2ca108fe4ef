"""Errors about one job: its state, or why it has no answer."""

from uuid import UUID

from headrace.errors.base import HeadraceError


class IllegalTransition(HeadraceError):
    """A state change outside the transition table: a bug in Headrace."""

    code = "illegal_transition"


class PayloadUnreadable(HeadraceError):
    """The job's stored prompt is malformed: no release reads it."""

    code = "payload_unreadable"


class PayloadTooNew(PayloadUnreadable):
    """A newer release wrote the job's prompt, in a version that this process does not read.

    Attributes:
        version: of the payload.
    """

    code = "payload_too_new"
    retryable = True

    def __init__(self, version: int, reads: int) -> None:
        super().__init__(f"The job's prompt is stored in version {version}; this process reads {reads} at most.")
        self.version = version


class JobNotEnded(HeadraceError):
    """The job has not ended yet."""

    code = "job_not_ended"
    retryable = True


class Unanswered(HeadraceError):
    """The job has no answer; `code` is the job's own error code, if it has one."""

    code = "job_failed"

    def __init__(self, message: str, job_id: UUID, *, code: str | None = None) -> None:
        super().__init__(message, code=code, job_id=job_id)


class JobExpired(Unanswered):
    """It could not start in time, and cost nothing."""

    code = "expired"
    retryable = True


class JobHeld(JobExpired):
    """It could not start in time, because its app is confined."""

    code = "app_confined"


class JobOverdue(Unanswered):
    """Its deadline passed before it could finish."""

    code = "deadline_exceeded"


class JobCancelled(Unanswered):
    """It was cancelled while its caller waited for it."""

    code = "job_cancelled"


class WaitTimeout(Unanswered):
    """The job did not end within the wait; it goes on and can be polled."""

    code = "wait_timeout"
    retryable = True
