"""Runs policies on one load: observes the pool and asks the policy every `TICK_S`; then computes its figures."""

import math
import multiprocessing
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headrace.domain.scaling import Moment, PoolHosts
from headrace.policies.scaling.staffing import hosts_for
from plugins.backtest.load import MINUTE_S, OfferedLoad, smooth
from plugins.backtest.pilots import OraclePilot, Pilot, ProductPilot, settings_for
from plugins.backtest.pool import TICK_S, PoolTally, SimulatedFate, SimulatedPool, World

if TYPE_CHECKING:
    import numpy as np

    from plugins.backtest.load import Floats

#: The observations that a policy sees: as far back as the product reads them, with some to spare.
MOMENTS_S = 3600.0
#: How often a run reports its progress.
REPORTS = 200

Tell = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Instant:
    """The hosts at one observation."""

    second: float
    ready: int
    requested: int
    draining: int
    depth: int


@dataclass(frozen=True, slots=True)
class PoolRun:
    """What one policy did with one load.

    Attributes:
        pool: its hosts, and every request's fate.
        instants: one for each observation.
    """

    pool: SimulatedPool
    instants: list[Instant]


def simulate(load: OfferedLoad, world: World, pilot: Pilot, hosts: int, tell: Tell = lambda _: None) -> PoolRun:
    """Run a load through a pool that begins with this number of ready hosts.

    Args:
        tell: hears from time to time which share of the load is done.
    """
    tokens_per_work = load.tokens_per_work
    pool = SimulatedPool(world, len(load.times_s), tokens_per_work)
    pool.fleet.start_with(hosts)
    watch = _Watch(world, pool, world.tokens_per_s * tokens_per_work, world.overflow_per_s * float(load.tokens.mean()))
    instants = []
    ticks = round(load.seconds / TICK_S)
    for tick, (first, times, seconds, tokens) in enumerate(_batches(load, world, ticks), 1):
        second = tick * TICK_S
        pool.serve(first, times, seconds, tokens, second)
        now = load.start + timedelta(seconds=second)
        watch.observe(now)
        fleet = pool.fleet
        before = fleet.count
        pool.scale_to(max(0, pilot.target(tuple(watch.moments), watch.hosts(), now)), second)
        watch.note(fleet.count - before, now)
        instants.append(Instant(second, len(fleet.ready), len(fleet.requested), len(fleet.draining), pool.depth))
        if tick % max(1, ticks // REPORTS) == 0:
            tell(tick / ticks)
    return PoolRun(pool, instants)


def _batches(
    load: OfferedLoad, world: World, ticks: int
) -> Iterator[tuple[int, list[float], list[float], list[float]]]:
    """The requests of each tick: the number of the first, their times, how long each runs, and their tokens."""
    import numpy as np

    edges = np.searchsorted(load.times_s, np.arange(ticks + 1) * TICK_S).tolist()
    edges[-1] = len(load.times_s)

    def part(column: "Floats", first: int, last: int) -> list[float]:
        values: list[float] = column[first:last].tolist()
        return values

    for first, last in pairwise(edges):
        seconds = load.work[first:last] / world.slot_tokens_per_s
        yield first, part(load.times_s, first, last), seconds.tolist(), part(load.tokens, first, last)


@dataclass(slots=True)
class _Watch:
    """Observes a simulated pool as the product observes a real one."""

    world: World
    pool: SimulatedPool
    host_tokens_per_s: float
    spill_tokens_per_s: float
    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=round(MOMENTS_S / TICK_S)))
    up_at: datetime | None = None
    down_at: datetime | None = None

    def observe(self, now: datetime) -> None:
        """Note what was asked for since the last time, and how the pool stands."""
        tally, self.pool.tally = self.pool.tally, PoolTally()
        fleet = self.pool.fleet
        self.moments.append(
            Moment(
                at=now,
                seconds=TICK_S,
                offered_jobs=tally.jobs,
                offered_tokens=round(tally.tokens),
                refused_jobs=tally.refused,
                spilled_jobs=tally.spilled,
                depth=self.pool.depth,
                depth_tokens=round(self.pool.backlog_tokens),
                running=sum(fleet.running),
                slots=len(fleet.ready) * self.world.slots,
            )
        )

    def note(self, change: int, now: datetime) -> None:
        """Note a decision that was applied."""
        if change > 0:
            self.up_at = now
        elif change < 0:
            self.down_at = now

    def hosts(self) -> PoolHosts:
        """The hosts as the product sees them, with their true rate, which it would have measured."""
        world, fleet = self.world, self.pool.fleet
        return PoolHosts(
            ready=len(fleet.ready),
            requested=len(fleet.requested),
            draining=len(fleet.draining),
            tokens_per_s=self.host_tokens_per_s,
            slots_per_host=world.slots,
            provision_s=world.provision_s,
            usd_per_hour=world.usd_per_hour,
            spill_usd=world.overflow_usd,
            spill_tokens_per_s=self.spill_tokens_per_s,
            up_at=self.up_at,
            down_at=self.down_at,
        )


#: The load's top: so large a share of the minutes, those with the highest demand.
TOP_SHARE = 0.1
#: Demand is compared as means over this many minutes.
TOP_MINUTES = 10


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The figures of one policy on one load.

    Attributes:
        requests: all that arrived.
        served: those that started on a host. With `spilled`, `refused`, `expired` and `waiting` they add up to all.
        spilled: those that the paid API answered.
        waiting: those that still wait when the trace ends.
        p50_wait_s, p95_wait_s, p99_wait_s: of the requests that queued or started here. An expired one counts with
            `max_wait_s`; one that spilled at once does not count.
        use: the share of the ready hosts' slots that was busy. Draining hosts count until they end.
        peak_use: the same over the top tenth of the load.
        host_hours: billed hours, from order to end.
        host_usd, overflow_usd: the bills.
        ups, downs: changes of the number of hosts.
    """

    requests: int
    served: int
    spilled: int
    refused: int
    expired: int
    waiting: int
    p50_wait_s: float
    p95_wait_s: float
    p99_wait_s: float
    use: float
    peak_use: float
    host_hours: float
    host_usd: float
    overflow_usd: float
    ups: int
    downs: int

    @property
    def usd_per_1000(self) -> float:
        """The bill for 1,000 answered requests."""
        return 1000 * (self.host_usd + self.overflow_usd) / max(1, self.served + self.spilled)

    @property
    def refused_share(self) -> float:
        return self.refused / self.requests

    @property
    def expired_share(self) -> float:
        return self.expired / self.requests

    @property
    def spilled_share(self) -> float:
        """Requests of all that the paid API answered."""
        return self.spilled / self.requests


def figures(run: PoolRun, load: OfferedLoad, world: World) -> RunFigures:
    import numpy as np

    fates = np.frombuffer(run.pool.fate, dtype=np.uint8)
    waits = np.frombuffer(run.pool.wait_s)
    counts = np.bincount(fates, minlength=len(SimulatedFate))
    fleet = run.pool.fleet
    began, ended = _lives(run, load.seconds)
    busy, slots = busy_and_slots(run, load, world)
    top = _top(load)
    hours = float((ended - began).sum()) / 3600
    spilled = int(counts[SimulatedFate.SPILLED])
    changes = [change for _, change in fleet.changes]
    return RunFigures(
        requests=len(fates),
        served=int(counts[SimulatedFate.SERVED]),
        spilled=spilled,
        refused=int(counts[SimulatedFate.REFUSED]),
        expired=int(counts[SimulatedFate.EXPIRED]),
        waiting=int(counts[SimulatedFate.WAITING]),
        **_waits(
            waits[
                (fates == SimulatedFate.SERVED)
                | (fates == SimulatedFate.EXPIRED)
                | ((fates == SimulatedFate.SPILLED) & (waits > 0))
            ]
        ),
        use=float(busy.sum() / max(1e-9, slots.sum())),
        peak_use=float(busy[top].sum() / max(1e-9, slots[top].sum())),
        host_hours=hours,
        host_usd=hours * world.usd_per_hour,
        overflow_usd=spilled * world.overflow_usd,
        ups=sum(change > 0 for change in changes),
        downs=sum(change < 0 for change in changes),
    )


def busy_and_slots(run: PoolRun, load: OfferedLoad, world: World) -> "tuple[Floats, Floats]":
    """The busy slot-seconds of each minute, and those that ready or draining hosts had."""
    import numpy as np

    edges = np.append(np.arange(0.0, load.seconds, MINUTE_S), load.seconds)
    served = np.frombuffer(run.pool.fate, dtype=np.uint8) == SimulatedFate.SERVED
    starts = load.times_s[served] + np.frombuffer(run.pool.wait_s)[served]
    ends = starts + load.work[served] / world.slot_tokens_per_s
    hosts = run.pool.fleet.hosts
    last = [load.seconds if host.ended_at is None else host.ended_at for host in hosts]
    ready = np.array([host.ready_at for host in hosts])
    # A host that was removed before it was ready had no slots.
    slots = _overlap(ready, np.maximum(ready, last), edges) * world.slots
    return _overlap(starts, ends, edges), slots


def _overlap(starts: "Floats", ends: "Floats", edges: "Floats") -> "Floats":
    """The seconds of all these intervals between each two edges."""
    import numpy as np

    def before(moments: "Floats") -> "Floats":
        """For each edge, the sum of the seconds that have passed since each moment before it."""
        moments = np.sort(moments)
        count = np.searchsorted(moments, edges)
        passed: Floats = count * edges - np.concatenate(([0.0], np.cumsum(moments)))[count]
        return passed

    return np.diff(before(starts) - before(ends))


def _lives(run: PoolRun, end: float) -> "tuple[Floats, Floats]":
    import numpy as np

    hosts = run.pool.fleet.hosts
    ended = [end if host.ended_at is None else host.ended_at for host in hosts]
    return np.array([host.ordered_at for host in hosts]), np.array(ended)


def _top(load: OfferedLoad) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """True for the minutes of the load's top."""
    import numpy as np

    demand = smooth(load.demand, TOP_MINUTES)
    count = max(1, round(TOP_SHARE * len(demand)))
    top = np.zeros(len(demand), dtype=bool)
    top[np.argsort(-demand, kind="stable")[:count]] = True
    return top


def _waits(waits: "Floats") -> dict[str, float]:
    import numpy as np

    quantiles = np.quantile(waits, (0.5, 0.95, 0.99)) if len(waits) else np.zeros(3)
    return dict(zip(("p50_wait_s", "p95_wait_s", "p99_wait_s"), quantiles.tolist(), strict=True))


#: The policies, in the order of the table.
POLICIES = ("predictive", "reactive", "fixed", "oracle")
#: A run begins with the hosts that the first minutes need.
FIRST_MINUTES = 5
#: The default maximum of hosts, as a factor of the peak's, so that the maximum decides nothing.
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
    progress: Any = context.Queue()
    with ProcessPoolExecutor(processes, context, _begin, (load, world, progress)) as pool:
        futures = [pool.submit(_run_here, case) for case in cases]
        for name, share in _progress(progress, futures):
            tell(name, share)
        return [future.result() for future in futures]


def run(case: PolicyCase, load: OfferedLoad, world: World, tell: Tell) -> CaseResult:
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


def _progress(progress: Any, futures: Sequence[Future[CaseResult]]) -> Iterator[tuple[str, float]]:
    """The progress of the processes, until all cases are done or one has failed."""
    while not all(future.done() for future in futures):
        try:
            yield progress.get(timeout=0.2)
        except queue.Empty:
            continue


#: What a process of the pool got: the load, the world, and the queue for its progress.
_given: tuple[OfferedLoad, World, Any] | None = None


def _begin(load: OfferedLoad, world: World, progress: Any) -> None:
    global _given
    _given = load, world, progress


def _run_here(case: PolicyCase) -> CaseResult:
    assert _given is not None
    load, world, progress = _given
    return run(case, load, world, lambda share: progress.put((case.name, share)))
