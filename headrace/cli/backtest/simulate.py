"""One policy on one load: observes the pool, asks the policy, changes the hosts, every `TICK_S`."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace.cli.backtest.load import OfferedLoad
from headrace.cli.backtest.pilots import Pilot
from headrace.cli.backtest.pool import SimulatedPool, Tally
from headrace.cli.backtest.world import TICK_S, World
from headrace.domain.scaling import Moment, PoolHosts

if TYPE_CHECKING:
    from headrace.cli.backtest.load import Floats

#: The observations that a policy sees: as far back as the product reads them, with some to spare.
MOMENTS_S = 3600.0
#: Progress is told so many times in a run.
TOLD = 200

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
    """Run a load through a pool that begins with so many ready hosts.

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
        if tick % max(1, ticks // TOLD) == 0:
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
        tally, self.pool.tally = self.pool.tally, Tally()
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
