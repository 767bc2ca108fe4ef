"""Between the event loop and threads: posts to the loop, and a bounded pool of threads that runs blocking work."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Mailbox:
    """Runs callbacks on the loop. Safe for many threads; posts that come together wake the loop once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted = deque[Callable[[], object]]()
        self._is_waking = False

    def post(self, callback: Callable[[], object]) -> None:
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


class Threads:
    """Runs blocking work for the loop, in the order it came. A thread is made when none is idle."""

    def __init__(self, most: int, mailbox: Mailbox) -> None:
        """Args: most: threads. With all of them busy, work waits."""
        self._most, self._mailbox = most, mailbox
        self._lock = threading.Lock()
        #: The inboxes of idle threads. The last to become idle works next: its caches are warm.
        self._idle: list[SimpleQueue[Callable[[], object]]] = []
        self._backlog = deque[Callable[[], object]]()
        self._number = 0

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run this in a thread. Returns its outcome, once it is awaited. Call it on the loop."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.start(partial(self._do, work, future))
        return future

    def start(self, work: Callable[[], object]) -> None:
        """Run this, which must raise nothing, in a thread. Call it from any thread."""
        with self._lock:
            if self._idle:
                self._idle.pop().put(work)
            elif self._number < self._most:
                self._number += 1
                threading.Thread(target=self._serve, args=(work,), name="handler", daemon=True).start()
            else:
                self._backlog.append(work)

    def _serve(self, task: Callable[[], object]) -> None:
        inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        while True:
            task()
            del task  # It holds a request.
            with self._lock:
                if self._backlog:
                    inbox.put(self._backlog.popleft())
                else:
                    self._idle.append(inbox)
            task = inbox.get()

    def _do(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            outcome = partial(_succeed, future, work())
        except BaseException as error:
            outcome = partial(_fail, future, error)
        self._mailbox.post(outcome)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
