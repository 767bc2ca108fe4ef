"""Services that come and go while a supervisor runs. Knows neither what they do nor why.

Any thread may add and remove one. Only the supervisor's main thread starts and ends their processes, because the kernel
ends a process together with the thread that started it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

from headrace.errors import StackError
from headrace.stack.processes.restart import MAX_DELAY_S
from headrace.stack.processes.running import RunningService
from headrace.stack.processes.service import Service


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
