"""Between the event loop and threads: posts to the loop, and a bounded pool of threads that runs blocking work."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Callable[[], object]

#: The share of the threads that the work of one line may occupy.
LINE_SHARE = 0.5


class Mailbox:
    """Runs callbacks on the loop. Safe for many threads; posts that come together wake the loop once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted = deque[Work]()
        self._is_waking = False

    def post(self, callback: Work) -> None:
        """Run this on the loop soon."""
        self._posted.append(callback)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Before the first look at the posts: each one after it wakes the loop again.
        self._is_waking = False
        for _ in range(len(self._posted)):
            self._posted.popleft()()


_Job = tuple[Hashable, Work]
_NO_LINE = object()


class Threads:
    """Runs blocking work for the loop. A thread is made when none is idle. With all of them busy, work waits.

    Each app's work waits in a line of its own. The lines are served in turn, and none occupies more than `LINE_SHARE`
    of the threads: however many slow calls one app makes, a call of another app finds a thread.
    """

    def __init__(self, most: int, mailbox: Mailbox) -> None:
        """Args: most: threads."""
        self._most, self._mailbox = most, mailbox
        self._most_of_line = max(1, int(most * LINE_SHARE))
        self._lock = threading.Lock()
        #: The inboxes of idle threads. The last to become idle works next: its caches are warm.
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._busy = Counter[Hashable]()
        #: The first line is next.
        self._lines: dict[Hashable, deque[Work]] = {}
        self._number = 0

    def run(self, work: Callable[[], Result], line: Hashable = None) -> asyncio.Future[Result]:
        """Run this in a thread. Returns its outcome, once it is awaited. Call it on the loop."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.start(partial(self.settle, future, work), line)
        return future

    def start(self, work: Work, line: Hashable = None) -> None:
        """Run this, which must raise nothing, in a thread. Call it from any thread."""
        with self._lock:
            if self._busy[line] >= self._most_of_line or not (self._idle or self._number < self._most):
                self._lines.setdefault(line, deque()).append(work)
                return
            self._busy[line] += 1
            if self._idle:
                self._idle.pop().put((line, work))
            else:
                self._number += 1
                threading.Thread(target=self._serve, args=((line, work),), name="handler", daemon=True).start()

    def close(self) -> None:
        """End the threads that are idle."""
        with self._lock:
            while self._idle:
                self._idle.pop().put(None)

    def settle(self, future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
        """Run this here, and give the future its outcome."""
        try:
            settled = partial(_set, future, future.set_result, work())
        except Exception as error:
            settled = partial(_set, future, future.set_exception, error)
        self._mailbox.post(settled)

    def _serve(self, first: "_Job") -> None:
        inbox: SimpleQueue[_Job | None] = SimpleQueue()
        inbox.put(first)
        del first  # It holds a request.
        while (job := inbox.get()) is not None:
            line, work = job
            del job
            work()
            del work
            with self._lock:
                self._busy[line] -= 1
                if not self._busy[line]:
                    del self._busy[line]
                if (following := self._next()) is not None:
                    inbox.put(following)
                else:
                    self._idle.append(inbox)
                del following

    def _next(self) -> "_Job | None":
        """The first work of the first line that may occupy one more thread."""
        line = next((line for line in self._lines if self._busy[line] < self._most_of_line), _NO_LINE)
        if line is _NO_LINE:
            return None
        waiting = self._lines.pop(line)
        work = waiting.popleft()
        if waiting:
            self._lines[line] = waiting
        self._busy[line] += 1
        return line, work


def _set(future: asyncio.Future[Any], how: Callable[[Any], None], outcome: object) -> None:
    if not future.done():
        how(outcome)
