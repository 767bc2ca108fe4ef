"""Waits: requests that hold on until a job ends, woken by one Redis reader for the whole process.

An open wait holds a thread and no database connection. A lost message is healed by looking again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from redis import Redis, RedisError

from headrace.admission import ENDED
from headrace.store.jobs import Job

log = logging.getLogger(__name__)

#: Seconds between looks at a job whose end nobody has announced.
RECHECK_S = 2.0
#: Seconds the reader waits for a message, and before it connects again.
POLL_S = 1.0


class Waits:
    """The open waits of one process. The reader starts with the first."""

    def __init__(self, redis: Redis, slots: int) -> None:
        self._redis = redis
        self._free = threading.BoundedSemaphore(slots)
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = {}
        self._stop = threading.Event()
        self._reader: threading.Thread | None = None

    def until_ended(self, job_id: UUID, read: Callable[[], Job], wait_s: float) -> Job:
        """The job as `read` returns it: as soon as it has ended, or after `wait_s`, as it stands then.

        With every slot taken the answer comes at once: a caller that polls loses nothing but calm.
        """
        job = read()
        if job.state.is_terminal or wait_s <= 0 or not self._free.acquire(blocking=False):
            return job
        try:
            with self._watched(job_id) as ended:
                return self._follow(ended, read, time.monotonic() + wait_s)
        finally:
            self._free.release()

    def close(self) -> None:
        """Stop the reader and end every wait, with the job as it stands. Call it once the process must go."""
        self._stop.set()
        with self._lock:
            for events in self._waiting.values():
                for event in events:
                    event.set()

    @contextmanager
    def _watched(self, job_id: UUID) -> Iterator[threading.Event]:
        """An event that is set when the job's end is announced, from now on."""
        event = threading.Event()
        with self._lock:
            self._waiting.setdefault(job_id.hex, set()).add(event)
            if self._reader is None and not self._stop.is_set():
                self._reader = threading.Thread(target=self._read_for_ever, name="waits", daemon=True)
                self._reader.start()
        try:
            yield event
        finally:
            with self._lock:
                events = self._waiting[job_id.hex]
                events.discard(event)
                if not events:
                    del self._waiting[job_id.hex]

    def _follow(self, ended: threading.Event, read: Callable[[], Job], until: float) -> Job:
        """Look at once, since the end may have come before anyone watched; then when told, and now and then."""
        job = read()
        while not job.state.is_terminal and not self._stop.is_set() and (left_s := until - time.monotonic()) > 0:
            ended.wait(min(left_s, RECHECK_S))
            ended.clear()
            job = read()
        return job

    def _read_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_messages()
            except RedisError as error:
                log.warning("waits_reader_lost_redis", extra={"error": str(error)})
            except Exception:
                log.exception("waits_reader_failed")
            self._stop.wait(POLL_S)

    def _read_messages(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(ENDED)
            while not self._stop.is_set():
                message = channel.get_message(timeout=POLL_S)
                if message is not None:
                    self._wake(message["data"])

    def _wake(self, job_hex: str) -> None:
        with self._lock:
            for event in self._waiting.get(job_hex, ()):
                event.set()
