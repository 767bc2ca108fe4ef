"""The hops of a streamed job on its way to its first token: one log line for each, when `log_hops` is set.

`benchmarks/added_latency.py` adds them up. All processes of a machine share the clock. While it is off, a hop costs a
call and a comparison.
"""

import logging
import time
from uuid import UUID

from headrace.domain.ids import show_id

log = logging.getLogger(__name__)


def switch(*, is_on: bool) -> None:
    """Log hops in this process, or do not."""
    log.setLevel(logging.DEBUG if is_on else logging.INFO)


def are_logged() -> bool:
    """True while hops are logged: what a hop needs may be kept."""
    return log.isEnabledFor(logging.DEBUG)


def reach(name: str, job_id: UUID, at_s: float | None = None) -> None:
    """Log that the job has reached a hop. Args: at_s: when, in monotonic seconds; by default now."""
    if log.isEnabledFor(logging.DEBUG):
        reached_at = time.monotonic() if at_s is None else at_s
        log.debug("hop", extra={"job_id": show_id(job_id), "hop": name, "monotonic_s": round(reached_at, 6)})
