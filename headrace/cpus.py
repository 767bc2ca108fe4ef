"""The CPUs that a process keeps to, where `own_cpus` is set.

Python runs one thread of a process at a time. While its threads are spread over several CPUs, most hand-overs from one
thread to the next wake another CPU, and a submit costs a quarter more processor time. So a process keeps to one CPU. An
engine that computes on CPUs slows down fourfold while its threads wait for one, so such processes keep off its CPUs.

What is taken is known by names in Linux's abstract namespace of Unix sockets; the kernel drops them with their process.
Containers do not see each other's names. So a process also moves away from a CPU that others use, if one is idle.
"""

import logging
import os
import random
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: A process looks at its CPU so often, at least; at most after twice as long, so that two do not move in step.
LOOK_S = 2.0
#: It moves if others use more than the first share of its CPU's time, and less than the second of another's is used.
CROWDED, IDLE = 0.3, 0.3

#: The calling thread, to sched_setaffinity(2).
_THIS = 0
_THREADS = Path("/proc/self/task")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


class Names:
    """Names that one process of a host holds at a time, apart from those of other families."""

    def __init__(self, family: str = "headrace") -> None:
        self._family = family
        self._held: dict[str, socket.socket] = {}

    def hold(self, name: str) -> bool:
        """Take a name. False: another process has it, or this one."""
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(self._address(name))
        except OSError:
            taken.close()
            return False
        self._held[name] = taken
        return True

    def drop(self, name: str) -> None:
        """Give a name back."""
        self._held.pop(name).close()

    def is_held(self, name: str) -> bool:
        """True if a process has the name, this one included."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            return asking.connect_ex(self._address(name)) == 0

    def close(self) -> None:
        """Give all names back."""
        for name in [*self._held]:
            self.drop(name)

    def _address(self, name: str) -> str:
        return f"\0{self._family}-{name}"


class OwnCpus:
    """Where the threads of this process run. Does nothing with `is_on` unset, with a single CPU, or without /proc."""

    def __init__(self, allowed: frozenset[int], host: str, names: Names) -> None:
        """Take no CPU yet.

        Args:
            allowed: the CPUs that this process may use.
            host: where the order of CPUs begins depends on it: containers of one host should not all begin alike.
            names: where processes see which CPUs others have.
        """
        self.allowed, self.is_on = allowed, False
        self._names = names
        self._order = _in_order(allowed, host)
        self._mine: int | None = None
        self._present = allowed
        self._of_engine: frozenset[int] = frozenset()
        self._starting: set[int] = set()
        self._lock = threading.Lock()

    @property
    def present(self) -> frozenset[int]:
        """The CPUs that this process keeps to now."""
        return self._present

    def keep_to_one(self) -> None:
        """Keep all threads of this process to one CPU from now on, if there is one that no other process keeps to.

        Else they use all CPUs but those of engines, until one is free.
        """
        if self._is_possible:
            with suppress(OSError):  # Such as too many open files. It tries again at its next look.
                self._move(self._order, or_none=True)
            threading.Thread(target=self._look_on, name="cpu", daemon=True).start()

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Meanwhile the calling thread may use every CPU but its engine's. For long work without Python's lock."""
        if self.present == self.allowed:
            yield
            return
        _keep_thread(_THIS, self._elsewhere)
        try:
            yield
        finally:
            with self._lock:  # If the process moved in between, this thread would stay on the CPU before.
                _keep_thread(_THIS, self.present)

    @contextmanager
    def for_engine(self, threads: int | None) -> Iterator[None]:
        """Give the process that the calling thread starts meanwhile so many CPUs of its own, if there are as many.

        Args:
            threads: how many of its threads compute. None: it may use every CPU.
        """
        if not self._is_possible:
            yield
            return
        before, starting = _threads(), threading.get_native_id()
        with self._lock:
            self._starting.add(starting)
            _keep_thread(_THIS, self._taken(threads) or self.allowed)
        try:
            yield
        finally:
            with self._lock:
                self._starting.discard(starting)
                for thread in _threads() - before | {starting}:
                    _keep_thread(thread, self.present)

    @property
    def _elsewhere(self) -> frozenset[int]:
        return self.allowed - self._of_engine

    @property
    def _is_possible(self) -> bool:
        return self.is_on and len(self.allowed) > 1 and _THREADS.is_dir()

    def _taken(self, threads: int | None) -> frozenset[int]:
        """CPUs that no other engine has; all or none. An engine that is started again has the same."""
        if threads is not None and not self._of_engine:
            held = list[int]()
            with suppress(OSError):  # Such as too many open files.
                free = [cpu for cpu in reversed(self._order) if not self._names.is_held(_engine(cpu))]
                # One is left for everything else.
                held.extend(cpu for cpu in free[:threads] if threads < len(free) and self._names.hold(_engine(cpu)))
            if len(held) == threads:
                self._of_engine = frozenset(held)
            else:
                for cpu in held:
                    self._names.drop(_engine(cpu))
        return self._of_engine if threads is not None else frozenset()

    def _move(self, candidates: list[int], *, or_none: bool) -> None:
        """Keep to the first of these CPUs that no process has.

        Args: or_none: if all are taken, use every CPU that no engine has. Else stay where the process is.
        """
        with self._lock:
            of_engines = frozenset(cpu for cpu in self.allowed if self._names.is_held(_engine(cpu)))
            free = (cpu for cpu in candidates if cpu not in of_engines)
            taken = next((cpu for cpu in free if self._names.hold(_python(cpu))), None)
            if taken is None and not or_none:
                return
            if self._mine is not None:
                self._names.drop(_python(self._mine))
            self._mine = taken
            present = frozenset((taken,)) if taken is not None else self.allowed - of_engines or self.allowed
            if present != self.present:
                before, self._present = self._present, present
                self._keep(before)
                # As the kernel has it: it may have refused.
                log.info("keeps_to_cpus", extra={"cpus": sorted(os.sched_getaffinity(_THIS))})

    def _keep(self, before: frozenset[int]) -> None:
        """Keep all threads to the present CPUs, but those that start engines, or were started or are `anywhere`.

        Where the process used the same CPUs as they `before`, they cannot be told from the others.
        """
        spared = self._elsewhere if before != self._elsewhere else None
        done = {*self._starting}  # An engine inherits the CPUs of the thread that starts it.
        while new := _threads() - done:
            for thread in new:
                if _cpus_of(thread) != spared:
                    _keep_thread(thread, self.present)
            done |= new

    def _look_on(self) -> None:
        before, used, at = _busy_s(), time.process_time(), time.monotonic()
        while True:
            time.sleep(LOOK_S * random.uniform(1, 2))
            now, used_now, at_now = _busy_s(), time.process_time(), time.monotonic()
            shares = {cpu: (now[cpu] - before[cpu]) / (at_now - at) for cpu in now if cpu in before}
            with suppress(OSError):  # Such as too many open files.
                self.look(shares, (used_now - used) / (at_now - at))
            before, used, at = now, used_now, at_now

    def look(self, shares: Mapping[int, float], own: float) -> None:
        """Move if an engine has taken this CPU, or if others use it while another is idle. Take one if there was none.

        Args:
            shares: of each CPU's time, how much is used by all. own: by this process.
        """
        if self._mine is None or self._names.is_held(_engine(self._mine)):
            self._move(self._order, or_none=True)
        elif shares.get(self._mine, 0) - own > CROWDED:
            idle = [cpu for cpu in self._order if shares.get(cpu, 1) < IDLE]
            self._move(random.sample(idle, len(idle)), or_none=False)


def _engine(cpu: int) -> str:
    return f"engine-{cpu}"


def _python(cpu: int) -> str:
    return f"python-{cpu}"


def _in_order(allowed: frozenset[int], host: str) -> list[int]:
    """First one CPU of each core, then the cores' others; where each begins depends on the host's name."""
    cpus = sorted(allowed)
    start = zlib.crc32(host.encode()) % len(cpus)
    return sorted(cpus[start:] + cpus[:start], key=_rank)


def _rank(cpu: int) -> int:
    """Which of its core's CPUs this is, from 0; 0 if the kernel does not say."""
    with suppress(OSError, ValueError):
        listed = Path(_TOPOLOGY.format(cpu)).read_text().strip().replace("-", ",")
        return sorted(map(int, listed.split(","))).index(cpu)
    return 0


def _busy_s() -> dict[int, float]:
    """Seconds since its start that each CPU was in use; empty if the kernel does not say. Source: proc_stat(5)."""
    found: dict[int, float] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/stat").read_text().splitlines():
            word, *ticks = line.split()
            if word.startswith("cpu") and word != "cpu":
                user, nice, system, _idle, _iowait, irq, softirq = map(int, ticks[:7])
                found[int(word[3:])] = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return found


def _threads() -> set[int]:
    """All threads of this process."""
    return set(map(int, os.listdir(_THREADS)))


def _cpus_of(thread: int) -> frozenset[int]:
    with suppress(OSError):  # It may have ended.
        return frozenset(os.sched_getaffinity(thread))
    return frozenset()


def _keep_thread(thread: int, cpus: frozenset[int]) -> None:
    # It may have ended, or the CPUs may have been taken from the whole container: then the kernel has found others.
    with suppress(OSError):
        os.sched_setaffinity(thread, cpus)


#: This process's.
own = OwnCpus(frozenset(os.sched_getaffinity(0)), socket.gethostname(), Names())
