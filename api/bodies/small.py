"""Small bodies while they are read: which of them need a deadline, and how many each app may be sending at once.

A deadline needs a second thread (`BodyReader`): a tenth of what the API spends on a submit. So where an app's last body
came promptly, the request's own thread reads the next one. Such a read cannot be given up: it ends with the body, or
when the client closes the connection. Once one has gone on for `PROMPT_S`, the app's further bodies have a deadline; at
most `PROMPT_LIMIT` have none. Knows no HTTP.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from uuid import UUID

#: Seconds within which a body that comes promptly has come.
PROMPT_S = 1.0
#: Bodies of one app that its requests' own threads read at once.
PROMPT_LIMIT = 8


@dataclass(slots=True)
class _Sender:
    """One app's bodies.

    Attributes:
        sending: bodies that are read now.
        is_prompt: whether the last body came promptly.
        unbounded: when each read without a deadline began, oldest first.
    """

    sending: int = 0
    is_prompt: bool = False
    unbounded: dict["SmallRead", float] = field(default_factory=dict)

    def needs_deadline(self, now: float) -> bool:
        """Whether a body that comes now needs one."""
        reads = self.unbounded
        is_stuck = bool(reads) and (len(reads) >= PROMPT_LIMIT or now - next(iter(reads.values())) >= PROMPT_S)
        return is_stuck or not self.is_prompt


class SmallBodies:
    """The small bodies of one process. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: One for each app that has sent a body.
        self._senders: dict[UUID, _Sender] = {}

    def sending(self, app_id: UUID) -> int:
        """Bodies of the app that are being read."""
        sender = self._senders.get(app_id)
        return 0 if sender is None else sender.sending

    def stuck(self, app_id: UUID, for_s: float) -> int:
        """Reads of the app's bodies that have gone on for so long, and have no deadline."""
        before = self._clock() - for_s
        with self._lock:
            sender = self._senders.get(app_id)
            return 0 if sender is None else sum(began < before for began in sender.unbounded.values())

    def reading(self, app_id: UUID) -> "SmallRead":
        """Counts a body while it is read. Yields: whether the read needs a deadline."""
        return SmallRead(
            self._senders.get(app_id) or self._senders.setdefault(app_id, _Sender()), self._lock, self._clock
        )


class SmallRead(AbstractContextManager[bool]):
    """One body that is read. A class, because a generator costs each request twice as much."""

    __slots__ = ("_began", "_clock", "_lock", "_sender")

    def __init__(self, sender: _Sender, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._sender, self._lock, self._clock, self._began = sender, lock, clock, 0.0

    def __enter__(self) -> bool:
        sender = self._sender
        with self._lock:
            began = self._began = self._clock()
            needs_deadline = sender.needs_deadline(began)
            if not needs_deadline:
                sender.unbounded[self] = began
            sender.sending += 1
        return needs_deadline

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        sender = self._sender
        came = kind is None and self._clock() - self._began < PROMPT_S
        with self._lock:
            sender.is_prompt = came
            sender.unbounded.pop(self, None)
            sender.sending -= 1
