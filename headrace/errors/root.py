"""The root of all errors. Nothing else is here, so that each family can stand on it."""

from uuid import UUID


class HeadraceError(Exception):
    """Root of the tree. The message is for the person who can act on it.

    Attributes:
        code: stable, machine-readable; part of the API.
        retryable: True when the same thing may succeed later, unchanged.
        param: the request field or setting at fault, as a dotted path; None when there is none.
        job_id: the job that it is about; None when it is about none.
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
