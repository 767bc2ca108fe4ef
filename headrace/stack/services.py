"""Services that a supervisor runs: the rules of each one's life, its processes one after the other, and its restarts.

Knows neither what the processes do nor why a service comes or goes.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

from headrace.errors import StackError
from headrace.stack.child import STOP_TIMEOUT_S, Child, Command, describe
from headrace.stack.watchdog import WatchdogPipe


@dataclass(frozen=True, slots=True)
class Service:
    """A process to run, and the supervisor's rules for it.

    Attributes:
        is_ready: called repeatedly after each start. Returns within a few seconds whether the present life is ready.
        once: the process is ready when it has ended with status 0.
        give_up_after: short lives in a row that end the whole stack; None to restart it forever.
        why_hung: called often with its pid. Returns why the process must be killed; None: it lives.
        note_end: called with its pid, and why it ended, after each end that is followed by a restart.
        before_start: runs once, before the first start.
        after_stop: runs once, after the last end.
    """

    command: Command
    is_ready: Callable[[], bool] = lambda: True
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = STOP_TIMEOUT_S
    once: bool = False
    give_up_after: int | None = None
    why_hung: Callable[[int], str | None] = lambda _pid: None
    note_end: Callable[[int, str], None] = lambda _pid, _reason: None
    before_start: Callable[[], None] = lambda: None
    after_stop: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return self.command.name


#: A life of at least this many seconds resets the count of failures.
STEADY_S = 30.0
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """The decision about an ended process.

    Attributes:
        failures: short lives in a row, this one included.
        delay_s: seconds until the next start; None to give up.
    """

    failures: int
    delay_s: float | None


def decide_restart(failures: int, ran_s: float, give_up_after: int | None) -> Restart:
    """Double the pause with each short life in a row.

    Args:
        failures: short lives in a row before this one.
        ran_s: how long this life was.
        give_up_after: give up at this many short lives in a row; None to try forever.
    """
    failures = 1 if ran_s >= STEADY_S else failures + 1
    if give_up_after is not None and failures >= give_up_after:
        return Restart(failures, None)
    # The exponent is bounded because 2.0 ** 1024 overflows.
    return Restart(failures, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16)))


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
        self._killed_because: str | None = None
        #: Since when it is not ready: its start, or the end of a process.
        self._down_since: float | None = time.monotonic()
        self._ask_at = 0.0
        with suppress(FileNotFoundError):
            self._log.replace(self._log.with_suffix(".log.1"))
        service.before_start()
        self.child = self._spawn()

    @property
    def name(self) -> str:
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
            self._kill_if_hung()
            return False
        self.child.kill_group()
        self._watch.forget(self.child.pid)
        self._down_since = self._down_since or time.monotonic()
        restart = decide_restart(self._failures, time.monotonic() - self.child.started_at, self.service.give_up_after)
        self._failures = restart.failures
        ended = f"{self.name} ended with {describe(status)}"
        if restart.delay_s is None:
            raise StackError(f"{ended}, {restart.failures} times in a row. {self.child.last_words()}")
        self._say(f"{ended}; it starts again in {restart.delay_s:.2g} s")
        self.service.note_end(self.child.pid, self._killed_because or f"It ended with {describe(status)}.")
        self._killed_because = None
        self._restart_at = time.monotonic() + restart.delay_s
        return False

    def _kill_if_hung(self) -> None:
        if self._killed_because is None and (why := self.service.why_hung(self.child.pid)):
            self._say(f"{self.name} hangs and is killed: {why}")
            self._killed_because = f"It hung, and its supervisor killed it: {why}"
            self.child.kill_group()

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
            how = f"is ready again, {down_s:.1f} s after it ended" if was_ready else f"ready ({down_s:.1f} s)"
            self._say(f"{self.name} {how}")


class MemberState(StrEnum):
    """Where a member of a roster stands. WAITING: its first process is not started yet."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(slots=True)
class _Member:
    """A service of the roster.

    Attributes:
        start_at: when its first process starts, by the monotonic clock.
        running: None before that.
        is_unwanted: it was removed.
        signalled_at: when it got the stop signal.
    """

    service: Service
    start_at: float
    running: RunningService | None = None
    is_unwanted: bool = False
    signalled_at: float | None = None


class Roster:
    """A set of services, by name.

    Attributes:
        first: the services that start with the supervisor. It is ready when they are.
    """

    def __init__(self, say: Callable[[str], None], first: Sequence[Service] = ()) -> None:
        """Start nothing yet. Args: say: gets each line of progress."""
        self.first = tuple(first)
        self._say = say
        self._lock = Lock()
        now = time.monotonic()
        self._members = {service.name: _Member(service, now) for service in first}

    def states(self) -> dict[str, MemberState]:
        """Where each member stands. A removed one is listed until its process has ended."""
        with self._lock:
            return {name: _state(member) for name, member in self._members.items()}

    def add(self, service: Service, delay_s: float) -> None:
        """Have a service's first process started after this time. The name must be new."""
        with self._lock:
            self._members[service.name] = _Member(service, time.monotonic() + delay_s)
        self._say(f"{service.name} is ordered" + (f"; it starts in {delay_s:.3g} s" if delay_s else ""))

    def remove(self, name: str) -> None:
        """Have a service stopped. Does nothing if it is removed already, or unknown."""
        with self._lock:
            member = self._members.get(name)
            is_new = member is not None and not member.is_unwanted
            if member is not None:
                member.is_unwanted = True
        if is_new:
            self._say(f"stopping {name}")

    @property
    def running(self) -> list[RunningService]:
        """The members that have been started. For the supervisor's main thread, as is all below."""
        return [member.running for member in self._copy() if member.running is not None]

    def begin(self, start: Callable[[Service], RunningService]) -> list[RunningService]:
        """Start the first services. Raises: StackError."""
        for service in self.first:
            self._members[service.name].running = start(service)
        return self.running

    def tick(self, start: Callable[[Service], RunningService]) -> bool:
        """Start, restart and end what is due. Returns: True if a pid has changed."""
        has_changed = False
        for member in self._copy():
            has_changed |= self._end(member) if member.is_unwanted else self._keep(member, start)
        return has_changed

    def _copy(self) -> list[_Member]:
        with self._lock:
            return list(self._members.values())

    def _keep(self, member: _Member, start: Callable[[Service], RunningService]) -> bool:
        if member.running is not None:
            return member.running.keep()
        if time.monotonic() < member.start_at:
            return False
        try:
            member.running = start(member.service)
        except StackError as error:
            self._say(f"{error} It is tried again in {MAX_DELAY_S:.2g} s.")
            member.start_at = time.monotonic() + MAX_DELAY_S
            return False
        return True

    def _end(self, member: _Member) -> bool:
        """Stop a member step by step, without waiting for its process."""
        running, now = member.running, time.monotonic()
        if running is not None:
            if member.signalled_at is None:
                running.ask_to_stop()
                member.signalled_at = now
            if running.is_running and now - member.signalled_at < member.service.stop_timeout_s:
                return False
            running.end()
        with self._lock:
            del self._members[member.service.name]
        self._say(f"{member.service.name} stopped")
        return running is not None


def _state(member: _Member) -> MemberState:
    if member.is_unwanted:
        return MemberState.STOPPING
    return MemberState.WAITING if member.running is None else MemberState.RUNNING
