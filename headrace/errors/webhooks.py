"""Errors of deliveries to webhook receivers."""

from headrace.errors.base import HeadraceError


class DeliveryFailed(HeadraceError):
    """A webhook's receiver did not answer with 2xx.

    Attributes:
        status: the receiver's HTTP status; None without an answer.
        retry_after_s: the value of its Retry-After; None if it sent none.
    """

    code = "delivery_failed"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s
