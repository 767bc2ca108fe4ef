"""A meter of processor time: what one step takes of this process, of Postgres and of Valkey, for each job.

Unlike the time on a clock, it hardly depends on what else runs on the machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bed.weigh import cpu_s


@dataclass(frozen=True, slots=True)
class Used:
    """Processor microseconds for one job. Those of servers are counted in ticks of 10 ms for all jobs together."""

    own_us: float
    postgres_us: float
    valkey_us: float

    @property
    def total_us(self) -> float:
        """All of them."""
        return self.own_us + self.postgres_us + self.valkey_us


class Meter:
    """Measures steps, round after round."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Args: pids: of `postgres` and `valkey`."""
        self._pids = pids
        self._rounds: dict[str, list[Used]] = {}

    def step(self, name: str, jobs: int, work: Callable[[], object]) -> None:
        """Do the work of a step for this number of jobs, once, and count what it took."""
        before, began_s = self._servers(), time.process_time()
        work()
        own_s = time.process_time() - began_s
        postgres_s, valkey_s = (now - then for now, then in zip(self._servers(), before, strict=True))
        used = Used(*(1e6 * seconds / jobs for seconds in (own_s, postgres_s, valkey_s)))
        self._rounds.setdefault(name, []).append(used)

    def each(self, name: str, jobs: int, work: Callable[[], object]) -> None:
        """The same for work that is done once for each job."""

        def repeat() -> None:
            for _ in range(jobs):
                work()

        self.step(name, jobs, repeat)

    def _servers(self) -> tuple[float, float]:
        return cpu_s(self._pids["postgres"]), cpu_s(self._pids["valkey"])

    def medians(self) -> dict[str, Used]:
        """Each step's median round, in the order in which they were measured first."""
        return {
            name: Used(*(statistics.median(getattr(used, field) for used in rounds) for field in Used.__slots__))
            for name, rounds in self._rounds.items()
        }
