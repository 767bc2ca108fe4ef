"""Small bodies while they are read: which of them need a deadline, and how many each app may be sending at once.

A deadline needs a second thread (`BodyReader`): a tenth of what the API spends on a submit. So where an app's last body
came promptly, the request's own thread reads the next one. Such a read cannot be given up: it ends with the body, or
when the client closes the connection. Once one has gone on for `PROMPT_S`, the app's further bodies have a deadline; at
most `PROMPT_LIMIT` have none. Knows no HTTP.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

#: Seconds within which a body that comes promptly has come.
PROMPT_S = 1.0
#: Bodies of one app that its requests' own threads read at once.
PROMPT_LIMIT = 8


class SmallBodies:
    """The small bodies of one process. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: Apps whose last body came promptly.
        self._prompt: set[UUID] = set()
        #: When each read without a deadline began, oldest first.
        self._unbounded: dict[UUID, dict[object, float]] = {}
        self._sending: Counter[UUID] = Counter()

    def sending(self, app_id: UUID) -> int:
        """Bodies of the app that are being read."""
        return self._sending[app_id]

    def stuck(self, app_id: UUID, for_s: float) -> int:
        """Reads of the app's bodies that have gone on for so long, and have no deadline."""
        before = self._clock() - for_s
        with self._lock:
            return sum(began < before for began in self._unbounded.get(app_id, {}).values())

    @contextmanager
    def reading(self, app_id: UUID) -> Iterator[bool]:
        """Count a body while it is read. Yields: whether the read needs a deadline."""
        began, read = self._clock(), object()
        with self._lock:
            needs_deadline = not self._is_prompt(app_id, began)
            if not needs_deadline:
                self._unbounded.setdefault(app_id, {})[read] = began
            self._sending[app_id] += 1
        came = False
        try:
            yield needs_deadline
            came = self._clock() - began < PROMPT_S
        finally:
            with self._lock:
                self._end(app_id, read, came)

    def _is_prompt(self, app_id: UUID, now: float) -> bool:
        reads = self._unbounded.get(app_id)
        if not reads:
            return app_id in self._prompt
        return app_id in self._prompt and len(reads) < PROMPT_LIMIT and now - next(iter(reads.values())) < PROMPT_S

    def _end(self, app_id: UUID, read: object, came: bool) -> None:
        (self._prompt.add if came else self._prompt.discard)(app_id)
        if reads := self._unbounded.get(app_id):
            reads.pop(read, None)
            if not reads:
                del self._unbounded[app_id]
        self._sending[app_id] -= 1
        if not self._sending[app_id]:
            del self._sending[app_id]
