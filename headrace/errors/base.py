"""What all errors have in common."""

from uuid import UUID


class HeadraceError(Exception):
    """Base class of all errors. The message addresses the caller or operator that can act on it.

    Attributes:
        code: stable, machine-readable; part of the API.
        retryable: True when the same request may succeed later.
        param: the request field or setting at fault, as a dotted path; None if no single one is.
        job_id: the job that the error is about; None if it is about no job.
    """

    code = "internal_error"
    retryable = False

    def __init__(
        self, message: str = "", *, code: str | None = None, param: str | None = None, job_id: UUID | None = None
    ) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.param, self.job_id = param, job_id
        if code is not None:
            self.code = code

    @property
    def public_cause(self) -> str:
        """The public part of the message: a driver's text after the colon can name hosts and users."""
        return f"{str(self).partition(':')[0].rstrip('.')}."
