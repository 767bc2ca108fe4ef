"""Starts processes in order, keeps them running, and stops them in reverse order, leaving nothing behind.

Knows no process by name: the caller passes services, with their readiness checks.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from headrace.errors import StackError
from headrace.stack.processes import orphans
from headrace.stack.processes.child import STOP_TIMEOUT_S, Child, Command, describe
from headrace.stack.processes.restart import MAX_DELAY_S, decide
from headrace.stack.processes.watchdog_pipe import WatchdogPipe

#: Seconds that a process has to end after a second stop signal.
HURRY_S = 2.0
#: Seconds before a change that could not be reported is reported again.
TELL_AGAIN_S = 1.0
#: Seconds between two readiness checks of a restarted process.
ASK_AGAIN_S = 1.0
_TICK_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Service:
    """A process to run, and the supervisor's rules for it.

    Attributes:
        is_ready: called repeatedly after each start. Returns within a few seconds whether the present life is ready.
        once: the process is ready when it has ended with status 0.
        give_up_after: short lives in a row that end the whole stack; None to restart it forever.
        before_start: runs once, before the first start.
        after_stop: runs once, after the last end.
    """

    command: Command
    is_ready: Callable[[], bool] = lambda: True
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = STOP_TIMEOUT_S
    once: bool = False
    give_up_after: int | None = None
    before_start: Callable[[], None] = _nothing
    after_stop: Callable[[], None] = _nothing

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name


@dataclass(slots=True)
class _Life:
    """A service's state.

    Attributes:
        ended_at: when its last life ended; None once it is ready again.
        ask_at: when the next readiness check is due.
    """

    service: Service
    child: Child
    failures: int = 0
    restart_at: float | None = None
    done: bool = field(default=False)
    ended_at: float | None = None
    ask_at: float = 0.0


class _StopRequested(Exception):
    """A signal asked for a stop during a wait."""


class Supervisor:
    """Runs stages of services. Must run in the main thread of its own process.

    The services of a stage start together, once every stage before it is ready. The process becomes the parent of all
    orphans below it, so that none escapes.
    """

    def __init__(self, stages: Sequence[Sequence[Service]], logs: Path, lock: int, say: Callable[[str], None]) -> None:
        """Start nothing yet.

        Args:
            logs: the folder for the output of each service.
            lock: descriptor of the state folder's lock. The watchdog keeps it if this process is killed.
            say: gets each line of progress.
        """
        self._stages = stages
        self._logs = logs
        self._lock = lock
        self._say = say
        self._lives: list[list[_Life]] = []
        self._stop_requests = 0

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each running process."""
        lives = [life for stage in self._lives for life in stage]
        return {life.service.name: life.child.pid for life in lives if life.child.poll() is None}

    def run(self, on_change: Callable[[], bool]) -> None:
        """Start everything, keep it running, and return after a signal has stopped it all.

        Args:
            on_change: called once everything is ready, and after each restart. If it returns False, it is called again
                soon.

        Raises:
            StackError: a process could not be started or kept alive. Everything is stopped by then.
        """
        with self._signals(), WatchdogPipe(self._lock) as watch, orphans.adopted():
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
        for stage in self._stages:
            lives: list[_Life] = []
            self._lives.append(lives)
            self._say(f"starting {', '.join(service.name for service in stage)}")
            for service in stage:
                # Keep the log of the previous run.
                with suppress(FileNotFoundError):
                    self._log(service).replace(self._log(service).with_suffix(".log.1"))
                service.before_start()
                lives.append(_Life(service, self._spawn(service, watch)))
                self._check_stop()
            self._await(lives)

    def _spawn(self, service: Service, watch: WatchdogPipe) -> Child:
        return Child(service.command, self._log(service), watch.descriptor)

    def _log(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"

    def _await(self, lives: list[_Life]) -> None:
        """Wait until each service is ready, and report it. Raises: StackError, _StopRequested."""
        began = time.monotonic()
        waiting = list(lives)
        while waiting:
            for life in list(waiting):
                self._check_stop()
                self._check_lives()
                service, waited_s = life.service, time.monotonic() - began
                if self._is_ready(life):
                    waiting.remove(life)
                    self._say(f"{service.name} {'done' if service.once else 'ready'} ({waited_s:.1f} s)")
                elif waited_s > service.ready_timeout_s:
                    raise StackError(f"{service.name} was not ready within {waited_s:.0f} s. {life.child.last_words()}")
            time.sleep(_TICK_S)

    def _is_ready(self, life: _Life) -> bool:
        if life.service.once:
            life.done = life.child.poll() == 0
            if life.done:
                life.child.kill_group()
            return life.done
        return life.service.is_ready()

    def _check_lives(self) -> None:
        """Raise StackError when a process has ended while the stack starts."""
        for stage in self._lives:
            for life in stage:
                if not (life.done or (life.service.once and life.child.poll() == 0)):
                    life.child.check_alive()

    def _keep(self, watch: WatchdogPipe, on_change: Callable[[], bool]) -> None:
        """Restart processes that end, until a signal comes. Raises: StackError, _StopRequested."""
        tell_at = time.monotonic()
        while True:
            for stage in self._lives:
                for life in stage:
                    if not life.done and self._revive(life, watch):
                        tell_at = time.monotonic()
                    self._tell_ready(life)
            if time.monotonic() >= tell_at:
                tell_at = math.inf if on_change() else time.monotonic() + TELL_AGAIN_S
            orphans.reap(self.pids.values())
            self._check_stop()
            time.sleep(_TICK_S)

    def _revive(self, life: _Life, watch: WatchdogPipe) -> bool:
        """Notice an end, or start the next life when it is due. Returns: True after a start."""
        name, child = life.service.name, life.child
        if life.restart_at is not None:
            if time.monotonic() < life.restart_at:
                return False
            return self._start_again(life, watch)
        status = child.poll()
        if status is None:
            return False
        child.kill_group()
        watch.forget(child.pid)
        life.ended_at = life.ended_at or time.monotonic()
        restart = decide(life.failures, time.monotonic() - child.started_at, life.service.give_up_after)
        life.failures = restart.failures
        if restart.delay_s is None:
            raise StackError(
                f"{name} ended with {describe(status)}, {restart.failures} times in a row. {child.last_words()}"
            )
        self._say(f"{name} ended with {describe(status)}; it starts again in {restart.delay_s:.2g} s")
        life.restart_at = time.monotonic() + restart.delay_s
        return False

    def _start_again(self, life: _Life, watch: WatchdogPipe) -> bool:
        """Start the next life. Returns: False if that fails, as on a full disk; a later call retries."""
        try:
            life.child, life.restart_at = self._spawn(life.service, watch), None
        except StackError as error:
            self._say(f"{error} It is tried again in {MAX_DELAY_S:.2g} s.")
            life.restart_at = time.monotonic() + MAX_DELAY_S
            return False
        return True

    def _tell_ready(self, life: _Life) -> None:
        """Report once that a restarted service is ready again."""
        now = time.monotonic()
        if life.ended_at is None or life.restart_at is not None or now < life.ask_at:
            return
        if life.service.is_ready():
            self._say(f"{life.service.name} is ready again, {time.monotonic() - life.ended_at:.1f} s after it ended")
            life.ended_at = None
        life.ask_at = time.monotonic() + ASK_AGAIN_S

    def _stop(self, watch: WatchdogPipe) -> None:
        """Stop stage after stage, the last started first. A second signal shortens the wait, never the order."""
        for stage in reversed(self._lives):
            running = [life for life in reversed(stage) if life.child.poll() is None]
            if running:
                self._say(f"stopping {', '.join(life.service.name for life in running)}")
            began = time.monotonic()
            for life in running:
                life.child.signal(life.service.command.stop_signal)
            for life in running:
                while not life.child.wait(_TICK_S) and time.monotonic() - began < self._patience_s(life.service):
                    pass
            for life in reversed(stage):
                if life.child.poll() is None:
                    self._say(f"{life.service.name} did not stop in time and is killed")
                life.child.stop(0)
                watch.forget(life.child.pid)
                life.service.after_stop()
        orphans.kill_all(except_pid=watch.pid)

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
