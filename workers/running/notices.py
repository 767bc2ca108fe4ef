"""Notifies Redis of what Postgres already records: jobs that left their queue, and jobs that ended.

One thread sends the notices of all jobs; a job's own thread only queues them. A lost notice is repaired: a place in a
queue by `reconcile_admission`, an end by the readers' own timer, a webhook by the webhook workers' timer.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple
from uuid import UUID

from headrace.batching import Gathering
from headrace.broker.admission import Admission
from headrace.errors import BrokerUnavailable

log = logging.getLogger(__name__)

#: Seconds that `end` waits for the last notices: longer than Redis may take for one command.
END_TIMEOUT_S = 5.0
#: Seconds that notices wait for more of them while many jobs come.
GATHER_S = 0.01


class _Left(NamedTuple):
    job_id: UUID
    enqueue_no: int


class _Ended(NamedTuple):
    job_id: UUID
    has_webhook: bool


class Notices:
    """Sends notices; those that gathered share one round trip. Safe for many threads.

    Attributes:
        admission: where they go.
    """

    def __init__(self, admission: Admission, gathering: Gathering | None = None) -> None:
        """Send nothing before `begin`.

        Args:
            gathering: how notices wait for more of them.
        """
        self.admission = admission
        #: None ends the thread.
        self._words: SimpleQueue[_Left | _Ended | None] = SimpleQueue()
        self._gathering = gathering or Gathering(GATHER_S)
        self._thread = threading.Thread(target=self._pass_until_ended, name="notices", daemon=True)

    def begin(self) -> None:
        """Start to send notices."""
        self._thread.start()

    def end(self) -> None:
        """Send the remaining notices, and stop."""
        self._words.put(None)
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)

    def left(self, job_id: UUID, enqueue_no: int) -> None:
        """Notify that this job was claimed, so it left its queue."""
        self._gathering.came()
        self._words.put(_Left(job_id, enqueue_no))

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        """Notify that this job has ended. If it has a webhook, its delivery is due."""
        self._words.put(_Ended(job_id, has_webhook))

    def _pass_until_ended(self) -> None:
        is_ending = False
        while not is_ending:
            words = [self._words.get()]
            self._gathering.wait()
            with suppress(Empty):
                while True:
                    words.append(self._words.get_nowait())
            is_ending = None in words
            try:
                self._pass(words)
            except Exception:
                # A fault here must not end the thread: readers would get no more notices.
                log.exception("notices_fault")

    def _pass(self, words: list[_Left | _Ended | None]) -> None:
        ended = [word for word in words if isinstance(word, _Ended)]
        with _told("end_not_announced"):
            has_webhooks = any(word.has_webhook for word in ended)
            self.admission.announce_ended([word.job_id for word in ended], has_webhooks=has_webhooks)
        with _told("place_not_freed"):
            self.admission.leave([word for word in words if isinstance(word, _Left)])


@contextmanager
def _told(event: str) -> Iterator[None]:
    """Log a notice that Redis does not accept."""
    try:
        yield
    except BrokerUnavailable as error:
        log.warning(event, extra={"error": str(error)})
