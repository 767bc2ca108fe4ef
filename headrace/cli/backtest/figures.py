"""The figures of a run: waits, what was turned away, how busy the hosts were, and the bill."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.cli.backtest.load import OfferedLoad, smooth
from headrace.cli.backtest.pool import Fate
from headrace.cli.backtest.simulate import PoolRun
from headrace.cli.backtest.trace import MINUTE_S
from headrace.cli.backtest.world import World

if TYPE_CHECKING:
    import numpy as np

    from headrace.cli.backtest.load import Floats

#: The load's top: so large a share of the minutes, those with the highest demand.
TOP_SHARE = 0.1
#: Demand is compared as means over so many minutes.
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
        """Refused requests of all."""
        return self.refused / self.requests

    @property
    def expired_share(self) -> float:
        """Expired requests of all."""
        return self.expired / self.requests

    @property
    def spilled_share(self) -> float:
        """Requests of all that the paid API answered."""
        return self.spilled / self.requests


def figures(run: PoolRun, load: OfferedLoad, world: World) -> RunFigures:
    """Compute the figures of a run."""
    import numpy as np

    fates = np.frombuffer(run.pool.fate, dtype=np.uint8)
    waits = np.frombuffer(run.pool.wait_s)
    counts = np.bincount(fates, minlength=len(Fate))
    fleet = run.pool.fleet
    began, ended = _lives(run, load.seconds)
    busy, slots = busy_and_slots(run, load, world)
    top = _top(load)
    hours = float((ended - began).sum()) / 3600
    spilled = int(counts[Fate.SPILLED])
    changes = [change for _, change in fleet.changes]
    return RunFigures(
        requests=len(fates),
        served=int(counts[Fate.SERVED]),
        spilled=spilled,
        refused=int(counts[Fate.REFUSED]),
        expired=int(counts[Fate.EXPIRED]),
        waiting=int(counts[Fate.WAITING]),
        **_waits(waits[(fates == Fate.SERVED) | (fates == Fate.EXPIRED) | ((fates == Fate.SPILLED) & (waits > 0))]),
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
    served = np.frombuffer(run.pool.fate, dtype=np.uint8) == Fate.SERVED
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
    """Which minutes are the load's top."""
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
