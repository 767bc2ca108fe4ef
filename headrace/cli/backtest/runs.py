"""The policies of a backtest, each on the same load, on as many cores as are allowed."""

import math
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.cli.backtest.figures import RunFigures, figures
from headrace.cli.backtest.load import OfferedLoad
from headrace.cli.backtest.pilots import OraclePilot, Pilot, ProductPilot, settings_for
from headrace.cli.backtest.simulate import Instant, Tell, simulate
from headrace.cli.backtest.world import World
from headrace.domain.scaling import PoolHosts
from headrace.policies.scaling.staffing import hosts_for

#: The policies, in the order of the table.
POLICIES = ("predictive", "reactive", "fixed", "oracle")
#: A run begins with the hosts that the first minutes need.
FIRST_MINUTES = 5
#: By default a pool may have so many times the hosts of its peak, so that the maximum decides nothing.
HEADROOM = 1.25
MOST_HOSTS = 20
#: Processes do not pay for smaller loads.
ALONE_BELOW = 300_000

#: Hears which share of which case is done.
TellCase = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A policy to run.

    Attributes:
        off: a mechanism of `predictive` that it runs without; None for the policy as it is.
    """

    policy: str
    off: str | None = None

    @property
    def name(self) -> str:
        """What the table calls it: `no season` is `predictive` without its season."""
        return f"no {self.off}" if self.off else self.policy


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a policy did.

    Attributes:
        changes: times at which the number of hosts to have changed, and by how much.
    """

    case: PolicyCase
    figures: RunFigures
    instants: list[Instant]
    changes: list[tuple[float, int]]


def run_all(
    cases: Sequence[PolicyCase], load: OfferedLoad, world: World, processes: int, tell: TellCase
) -> list[CaseResult]:
    """Run each case, several at once if that is worth it."""
    processes = min(processes, len(cases))
    if processes <= 1 or len(load.times_s) < ALONE_BELOW:
        return [run(case, load, world, partial(tell, case.name)) for case in cases]
    # Fresh processes: a fork would copy the thread that draws the progress bar.
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    with ProcessPoolExecutor(processes, context, _begin, (load, world, told)) as pool:
        futures = [pool.submit(_run_here, case) for case in cases]
        for name, share in _heard(told, futures):
            tell(name, share)
        return [future.result() for future in futures]


def run(case: PolicyCase, load: OfferedLoad, world: World, tell: Tell) -> CaseResult:
    """Run one case."""
    peak = hosts_at_peak(load, world)
    hosts = peak if case.policy == "fixed" else hosts_at_start(load, world)
    done = simulate(load, world, _pilot(case, load, world, peak), hosts, tell)
    tell(1.0)
    return CaseResult(case, figures(done, load, world), done.instants, done.pool.fleet.changes)


def hosts_at_start(load: OfferedLoad, world: World) -> int:
    """The hosts that the first minutes need, with the margin of `World.beta`."""
    return _within(_needed(float(load.demand[:FIRST_MINUTES].mean()), world), world)


def hosts_at_peak(load: OfferedLoad, world: World) -> int:
    """The hosts that the load's peak needs, with the margin of `World.beta`."""
    return _within(_needed(load.peak, world), world)


def max_hosts(load: OfferedLoad, world: World) -> int:
    """The default of `World.max_hosts`: enough for the peak."""
    return max(MOST_HOSTS, math.ceil(HEADROOM * _needed(load.peak, world)), world.min_hosts)


def _needed(work_per_s: float, world: World) -> int:
    host = PoolHosts(ready=0, tokens_per_s=world.tokens_per_s, slots_per_host=world.slots)
    return math.ceil(hosts_for(work_per_s, host, world.beta))


def _within(hosts: int, world: World) -> int:
    return max(world.min_hosts, min(world.max_hosts, hosts))


def _pilot(case: PolicyCase, load: OfferedLoad, world: World, peak: int) -> Pilot:
    if case.policy == "oracle":
        return OraclePilot(world, load)
    return ProductPilot(settings_for(world, case.policy, peak), [case.off] if case.off else [])


def _heard(told: Any, futures: Sequence[Future[CaseResult]]) -> Iterator[tuple[str, float]]:
    """What the processes tell, until all cases are done or one has failed."""
    while not all(future.done() for future in futures):
        try:
            yield told.get(timeout=0.2)
        except queue.Empty:
            continue


#: What a process of the pool was given: the load, the world, and whom to tell.
_given: tuple[OfferedLoad, World, Any] | None = None


def _begin(load: OfferedLoad, world: World, told: Any) -> None:
    global _given
    _given = load, world, told


def _run_here(case: PolicyCase) -> CaseResult:
    assert _given is not None
    load, world, told = _given
    return run(case, load, world, lambda share: told.put((case.name, share)))
