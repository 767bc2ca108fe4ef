"""Notifies Redis of what Postgres already records: jobs that left their queue, and jobs that ended.

Notices that gathered share a round trip; no job's thread waits for it. A lost notice is repaired: a place in a queue by
`reconcile_admission`, an end by the readers' own timer, a webhook by the webhook workers' timer.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from uuid import UUID

from headrace.batching import Gathering
from headrace.broker.admission import Admission
from headrace.errors import BrokerUnavailable

log = logging.getLogger(__name__)

#: Seconds that notices wait for more of them while many jobs come.
GATHER_S = 0.01


class Notices:
    """Sends notices. Safe for many threads."""

    def __init__(self, admission: Admission, threads: Executor, gathering: Gathering | None = None) -> None:
        """Send nothing yet.

        Args:
            threads: one of them sends at a time.
            gathering: how notices wait for more of them.
        """
        self._admission, self._threads = admission, threads
        self._gathering = gathering or Gathering(GATHER_S)
        self._lock = threading.Lock()
        self._is_sending = False
        self._left = deque[tuple[UUID, int]]()
        #: Each with whether it has a webhook.
        self._ended = deque[tuple[UUID, bool]]()

    def left(self, job_id: UUID, enqueue_no: int) -> None:
        """Notify that this job was claimed, so it left its queue."""
        self._gathering.came()
        self._left.append((job_id, enqueue_no))
        self._send_soon()

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        """Notify that this job has ended. If it has a webhook, its delivery is due."""
        self._ended.append((job_id, has_webhook))
        self._send_soon()

    def _send_soon(self) -> None:
        with self._lock:
            starts, self._is_sending = not self._is_sending, True
        if starts:
            self._threads.submit(self._send_all)

    def _send_all(self) -> None:
        while self._has_more():
            self._gathering.wait()
            left = [self._left.popleft() for _ in range(len(self._left))]
            ended = [self._ended.popleft() for _ in range(len(self._ended))]
            try:
                self._send(left, ended)
            except Exception:
                # After a fault here, later notices are sent all the same.
                log.exception("notices_fault")

    def _has_more(self) -> bool:
        with self._lock:
            self._is_sending = bool(self._left or self._ended)
            return self._is_sending

    def _send(self, left: list[tuple[UUID, int]], ended: list[tuple[UUID, bool]]) -> None:
        with _told("end_not_announced"):
            has_webhooks = any(has_webhook for _, has_webhook in ended)
            self._admission.announce_ended([job_id for job_id, _ in ended], has_webhooks=has_webhooks)
        with _told("place_not_freed"):
            self._admission.leave(left)


@contextmanager
def _told(event: str) -> Iterator[None]:
    """Log a notice that Redis does not accept."""
    try:
        yield
    except BrokerUnavailable as error:
        log.warning(event, extra={"error": str(error)})
