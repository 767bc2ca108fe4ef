"""One service's processes, each started when the one before has ended.

Knows neither the other services nor what the process does. Use it in the supervisor's main thread alone.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.errors import StackError
from headrace.stack.processes.child import Child, describe
from headrace.stack.processes.restart import MAX_DELAY_S, decide
from headrace.stack.processes.service import Service
from headrace.stack.processes.watchdog_pipe import WatchdogPipe

#: Seconds between two readiness checks of a restarted process.
ASK_AGAIN_S = 1.0


class RunningService:
    """A service that was started.

    Attributes:
        child: its present process, or the last one while it waits for its next start.
        is_done: a service that runs once has ended with status 0.
        was_ready: one of its processes was ready.
    """

    def __init__(self, service: Service, logs: Path, watch: WatchdogPipe, say: Callable[[str], None]) -> None:
        """Start it. Keeps the log of the previous run. Raises: StackError."""
        self.service = service
        self.is_done = self.was_ready = False
        self._log = logs / f"{service.name}.log"
        self._watch = watch
        self._say = say
        self._failures = 0
        self._restart_at: float | None = None
        #: Since when it is not ready: its start, or the end of a process.
        self._down_since: float | None = time.monotonic()
        self._ask_at = 0.0
        with suppress(FileNotFoundError):
            self._log.replace(self._log.with_suffix(".log.1"))
        service.before_start()
        self.child = self._spawn()

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.child.poll() is None

    def is_ready(self) -> bool:
        """Whether its present process is ready, or done if it runs once."""
        if self.service.once:
            self.is_done = self.child.poll() == 0
            if self.is_done:
                self.child.kill_group()
            return self.is_done
        if not self.service.is_ready():
            return False
        self.was_ready, self._down_since = True, None
        return True

    def check_alive(self) -> None:
        """Raise StackError when its process has ended, unless it was to end."""
        if not (self.is_done or (self.service.once and self.child.poll() == 0)):
            self.child.check_alive()

    def keep(self) -> bool:
        """Notice the end of its process, start the next one when it is due, and report once that it is ready.

        Returns: True after a start. Raises: StackError: it has ended too often.
        """
        has_started = not self.is_done and self._revive()
        self._tell_ready()
        return has_started

    def ask_to_stop(self) -> None:
        """Send the stop signal, and start no further process."""
        self._restart_at = None
        self.child.signal(self.service.command.stop_signal)

    def end(self) -> None:
        """Kill what still runs, and clean up after the last end."""
        if self.is_running:
            self._say(f"{self.name} did not stop in time and is killed")
        self.child.stop(0)
        self._watch.forget(self.child.pid)
        self.service.after_stop()

    def _spawn(self) -> Child:
        return Child(self.service.command, self._log, self._watch.descriptor)

    def _revive(self) -> bool:
        if self._restart_at is not None:
            if time.monotonic() < self._restart_at:
                return False
            return self._start_again()
        status = self.child.poll()
        if status is None:
            return False
        self.child.kill_group()
        self._watch.forget(self.child.pid)
        self._down_since = self._down_since or time.monotonic()
        restart = decide(self._failures, time.monotonic() - self.child.started_at, self.service.give_up_after)
        self._failures = restart.failures
        ended = f"{self.name} ended with {describe(status)}"
        if restart.delay_s is None:
            raise StackError(f"{ended}, {restart.failures} times in a row. {self.child.last_words()}")
        self._say(f"{ended}; it starts again in {restart.delay_s:.2g} s")
        self._restart_at = time.monotonic() + restart.delay_s
        return False

    def _start_again(self) -> bool:
        """Start the next process. Returns: False if that fails, as on a full disk; a later call retries."""
        try:
            self.child, self._restart_at = self._spawn(), None
        except StackError as error:
            self._say(f"{error} It is tried again in {MAX_DELAY_S:.2g} s.")
            self._restart_at = time.monotonic() + MAX_DELAY_S
            return False
        return True

    def _tell_ready(self) -> None:
        """Report once that it is ready."""
        now = time.monotonic()
        if self.is_done or self._down_since is None or self._restart_at is not None or now < self._ask_at:
            return
        self._ask_at = now + ASK_AGAIN_S
        down_s, was_ready = now - self._down_since, self.was_ready
        if self.is_ready():
            told = f"is ready again, {down_s:.1f} s after it ended" if was_ready else f"ready ({down_s:.1f} s)"
            self._say(f"{self.name} {told}")
