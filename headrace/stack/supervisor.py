"""Starts processes in order, keeps them running, and stops them in reverse order, leaving nothing behind.

Knows no process by name: the caller passes services, with their readiness checks.
"""

import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType

from headrace.errors import StackError
from headrace.stack.services import Roster, RunningService, Service
from headrace.stack.watchdog import WatchdogPipe

#: Seconds that a process has to end after a second stop signal.
HURRY_S = 2.0
#: Seconds before a change that could not be reported is reported again.
TELL_AGAIN_S = 1.0
#: Seconds after which services that are not ready yet are named again.
STILL_S = 15.0
_TICK_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequested(Exception):
    """A signal asked for a stop during a wait."""


class Supervisor:
    """Runs stages of services. Must run in the main thread of its own process.

    The services of a stage start together, once every stage before it is ready. The process becomes the parent of all
    orphans below it, so that none escapes.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        logs: Path,
        lock: int,
        say: Callable[[str], None],
        roster: Roster | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            logs: the folder for the output of each service.
            lock: descriptor of the state folder's lock. The watchdog keeps it if this process is killed.
            say: gets each line of progress.
            roster: services that come and go. Its first ones belong to the last stage.
        """
        self._stages = stages
        self._logs = logs
        self._lock = lock
        self._say = say
        self._roster = roster or Roster(say)
        self._running: list[list[RunningService]] = []
        self._stop_requests = 0

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each running process."""
        return {each.name: each.child.pid for each in self._started if each.is_running}

    def run(self, on_change: Callable[[], bool]) -> None:
        """Start everything, keep it running, and return after a signal has stopped it all.

        Args:
            on_change: called once everything is ready, and after each change of a pid. If it returns False, it is
                called again soon.

        Raises:
            StackError: a process could not be started or kept alive. Everything is stopped by then.
        """
        with self._signals(), WatchdogPipe(self._lock) as watch, _orphans_adopted():
            try:
                self._start(watch)
                self._keep(watch, on_change)
            except _StopRequested:
                pass
            except StackError:
                # A Ctrl-C also ends the programs that a start-up step runs in this process's group, such as initdb.
                if not self._stop_requests:
                    raise
            finally:
                self._stop(watch)

    def _start(self, watch: WatchdogPipe) -> None:
        begin = partial(self._begin, watch)
        for number, stage in enumerate(self._stages, start=1):
            is_last = number == len(self._stages)
            running: list[RunningService] = []
            self._running.append(running)
            first = self._roster.first if is_last else ()
            self._say(f"starting {', '.join(service.name for service in (*stage, *first))}")
            for service in stage:
                running.append(begin(service))
                self._check_stop()
            self._await(running + (self._roster.begin(begin) if is_last else []))

    def _begin(self, watch: WatchdogPipe, service: Service) -> RunningService:
        return RunningService(service, self._logs, watch, self._say)

    def _await(self, starting: list[RunningService]) -> None:
        """Wait until each service is ready, and report it. Raises: StackError, _StopRequested."""
        began = tell_at = time.monotonic()
        waiting = list(starting)
        while waiting:
            for each in list(waiting):
                self._check_stop()
                for started in self._started:
                    started.check_alive()
                service, waited_s = each.service, time.monotonic() - began
                if each.is_ready():
                    waiting.remove(each)
                    self._say(f"{service.name} {'done' if service.once else 'ready'} ({waited_s:.1f} s)")
                elif waited_s > service.ready_timeout_s:
                    raise StackError(f"{service.name} was not ready within {waited_s:.0f} s. {each.child.last_words()}")
            if waiting and time.monotonic() - tell_at > STILL_S:
                tell_at = time.monotonic()
                names = ", ".join(each.service.name for each in waiting)
                self._say(f"still starting {names} ({tell_at - began:.0f} s)")
            time.sleep(_TICK_S)

    @property
    def _started(self) -> list[RunningService]:
        return [*chain.from_iterable(self._running), *self._roster.running]

    def _keep(self, watch: WatchdogPipe, on_change: Callable[[], bool]) -> None:
        """Restart what ends, and serve the roster, until a signal comes. Raises: StackError, _StopRequested."""
        tell_at = time.monotonic()
        while True:
            for each in chain.from_iterable(self._running):
                if each.keep():
                    tell_at = time.monotonic()
            if self._roster.tick(partial(self._begin, watch)):
                tell_at = time.monotonic()
            if time.monotonic() >= tell_at:
                tell_at = math.inf if on_change() else time.monotonic() + TELL_AGAIN_S
            _reap_orphans(self.pids.values())
            self._check_stop()
            time.sleep(_TICK_S)

    def _stop(self, watch: WatchdogPipe) -> None:
        """Stop stage after stage, the last started first. A second signal shortens the wait, never the order."""
        *earlier, last = self._running or [[]]
        for stage in reversed([*earlier, last + self._roster.running]):
            running = [each for each in reversed(stage) if each.is_running]
            if running:
                self._say(f"stopping {', '.join(each.name for each in running)}")
            began = time.monotonic()
            for each in running:
                each.ask_to_stop()
            for each in running:
                while not each.child.wait(_TICK_S) and time.monotonic() - began < self._patience_s(each.service):
                    pass
            for each in reversed(stage):
                each.end()
        _kill_orphans(except_pid=watch.pid)

    def _patience_s(self, service: Service) -> float:
        return service.stop_timeout_s if self._stop_requests < 2 else min(HURRY_S, service.stop_timeout_s)

    def _check_stop(self) -> None:
        if self._stop_requests:
            raise _StopRequested

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            self._stop_requests += 1

        before = {number: signal.signal(number, note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")


@contextmanager
def _orphans_adopted() -> Iterator[None]:
    """Make the kernel reparent orphans below this process to it, for the length of a block."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        if _LINUX:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _reap_orphans(own: Collection[int]) -> None:
    """Collect the exit status of dead orphans. Leaves that of `own` children to their Popen objects."""
    while _LINUX:
        try:
            # Look before reaping: reaping an own child would hide its status from its Popen.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)


def _kill_orphans(except_pid: int) -> None:
    """Kill every child of this process but one, then the orphans of those, until none is left."""
    while _LINUX and (left := [pid for pid in _child_pids() if pid != except_pid]):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _child_pids() -> list[int]:
    """The pids of the children of all this process's threads."""
    pids: list[int] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            pids += [int(pid) for pid in listing.read_text().split()]
    return pids
