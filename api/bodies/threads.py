"""Threads that read bodies. An idle one is used again: a new thread costs ten times as much as a hand-over."""

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

#: Seconds until an idle thread ends.
IDLE_S = 60.0

_Work = Callable[[], object]


class ReaderThreads:
    """Runs each piece of work at once, in a thread that is idle or new. Safe for many threads."""

    def __init__(self) -> None:
        #: The inboxes of idle threads. Each operation on a deque is atomic.
        self._idle: deque[SimpleQueue[_Work]] = deque()

    def start(self, work: _Work) -> None:
        """Start this work, which must raise nothing."""
        try:
            # The last to become idle: the others can end.
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            # A daemon, so that a client that sends nothing cannot keep the process from exiting.
            threading.Thread(target=self._serve, args=(inbox,), name="body", daemon=True).start()
        inbox.put(work)

    def _serve(self, inbox: SimpleQueue[_Work]) -> None:
        while True:
            try:
                work = inbox.get(timeout=IDLE_S)
            except Empty:
                try:
                    self._idle.remove(inbox)
                except ValueError:  # Work for this thread is on its way.
                    continue
                return
            work()
            del work  # It holds a body.
            self._idle.append(inbox)
