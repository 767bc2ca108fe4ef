"""Refusals: a bound was met, and a later request may pass."""

from datetime import datetime
from typing import Literal

from headrace.errors.base import HeadraceError

#: (limit per minute, what is left of it, seconds' worth that the bucket holds) for an app's requests, tokens and calls;
#: None for a rate without a limit. `domain.limits.rates.RatesLeft` names the numbers.
RatesLeft = tuple[tuple[int, int, float] | None, ...]


class Refused(HeadraceError):
    """Not now.

    Attributes:
        reason: the bound that was met, in one word.
        retry_after_s: whole seconds after which a retry makes sense; None when a retry makes no sense.
        rates_left: what is left of the app's own rates.
    """

    code = "refused"
    retryable = True

    def __init__(
        self, message: str, *, reason: str, retry_after_s: int | None = None, rates_left: RatesLeft = ()
    ) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s, self.rates_left = reason, retry_after_s, rates_left


class QueueFull(Refused):
    """No candidate queue has room for this job.

    Attributes:
        queue: the first candidate, for the reasons depth, tokens, wait, share, token_share and app_jobs.
        depth: what waits in it, in `unit`, counted in the step that refused.
        cap: the bound that was met, in `unit`.
        unit: of depth and cap.
        expected_wait_s: the wait of a job at the end of the queue; None if unknown.
    """

    code = "queue_full"

    def __init__(
        self,
        message: str,
        *,
        queue: str,
        reason: str,
        depth: int,
        cap: int,
        unit: Literal["jobs", "tokens"] = "jobs",
        expected_wait_s: float | None = None,
        retry_after_s: int | None = None,
        rates_left: RatesLeft = (),
    ) -> None:
        super().__init__(message, reason=reason, retry_after_s=retry_after_s, rates_left=rates_left)
        self.queue, self.depth, self.cap, self.unit = queue, depth, cap, unit
        self.expected_wait_s = expected_wait_s


class AppLimited(Refused):
    """The app has used up its minute: the reason is requests_per_minute, tokens_per_minute or calls_per_minute."""

    code = "rate_limit_exceeded"


class AppConfined(Refused):
    """Prompts of the app killed engines of the pool, where its jobs run one at a time, and enough of them wait.

    Attributes:
        until: when the confinement ends.
    """

    code = "app_confined"

    def __init__(self, message: str, *, retry_after_s: int, until: datetime) -> None:
        super().__init__(message, reason="confined", retry_after_s=retry_after_s)
        self.until = until


class BudgetExceeded(Refused):
    """A budget has too little left for the only way this job may go."""

    code = "budget_exceeded"


class GoalMissed(Refused):
    """The job's pool would answer later than its latency goal, and the paid API is closed to the job."""

    code = "latency_goal_missed"


class BodiesFull(Refused):
    """This process holds as many bytes of large request bodies as it may, of all apps or of this one."""

    code = "bodies_full"


class SlotsFull(Refused):
    """This process holds as many waits and streams open, or reads as much usage at once, as it may."""

    code = "sync_slots_full"
