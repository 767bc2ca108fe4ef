"""What `headrace scale` shows of one pool, read in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from pydantic import ValidationError
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.hosts import HostCounts, HostState
from headrace.domain.queues import lane_queues
from headrace.policies.scaling.decisions import DecisionInputs, from_json
from headrace.policies.scaling.forecast import DayProfiles
from headrace.policies.scaling.horizon import REACH_S, Horizon, horizon
from headrace.store import clock
from headrace.store.fleet import decisions, host_list, observations, workers
from headrace.store.fleet.decisions import DecisionRun, MadeDecision
from headrace.store.fleet.observations import LoadSpan
from headrace.store.scaling import scaling_history

#: A pool that was observed for less is shown in minutes.
YOUNG = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Frame:
    """The times of a chart.

    Attributes:
        past: the chart begins at least so long before now.
        whole: its length.
        span_s: the seconds that one mean of the past covers.
        column_min: the minutes of one column, the finest that fits. Every tenth column has a label: each half hour or
            hour, or each 5 or 10 minutes.
    """

    past: timedelta
    whole: timedelta
    span_s: float
    column_min: tuple[float, ...]

    @property
    def read(self) -> timedelta:
        """How far back to read: a chart begins on a label."""
        return self.past + self.whole / 6

    def start(self, now: datetime, column_min: float) -> datetime:
        """The chart's start, on a label in local time."""
        begin = (now - self.past).astimezone()
        over_min = (begin.hour * 60 + begin.minute) % (10 * column_min)
        return begin - timedelta(minutes=over_min, seconds=begin.second, microseconds=begin.microsecond)


HOURS = Frame(timedelta(hours=2), timedelta(hours=6), 180.0, (3.0, 6.0, 12.0, 18.0, 36.0))
MINUTES = Frame(timedelta(minutes=20), timedelta(hours=1), 30.0, (0.5, 1.0, 2.0, 3.0, 6.0))


def is_young(past: Sequence[LoadSpan], now: datetime) -> bool:
    """Whether the past of `HOURS` is too short for it."""
    return not past or now - past[0].at < YOUNG


#: What counts as lately.
LATELY_S = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool as it was last observed.

    Attributes:
        at: when the newest sample was taken.
        lately: what was offered in the last `LATELY_S`; None if nothing was observed then.
        depth, depth_tokens, running: of all lanes.
        oldest_wait_s: of the job that waits longest.
    """

    at: datetime
    lately: LoadSpan | None
    depth: int
    depth_tokens: int
    oldest_wait_s: float
    running: int
    slots: int
    kv_use: float | None


@dataclass(frozen=True, slots=True)
class PoolOverview:
    """One pool.

    Attributes:
        seen: None if the pool was never observed.
        stale_after_s: a newest sample that is older decides nothing.
        decision: the last one.
        failing: the last decision that is not carried out because calls of the provider failed.
        inputs: of the last decision; None if there is none, or if another version of the policies wrote them.
        usd_per_hour: the price of all hosts that the provider is paid for; None if no price is known.
        unpriced: hosts without a price.
        frame: how much time the chart shows.
        past: the load of the frame's past.
        ahead: None without `inputs`.
        runs: the last decisions, newest first.
    """

    pool: str
    now: datetime
    seen: Seen | None
    stale_after_s: float
    decision: MadeDecision | None
    failing: MadeDecision | None
    inputs: DecisionInputs | None
    hosts: HostCounts
    usd_per_hour: Decimal | None
    unpriced: int
    frame: Frame
    past: tuple[LoadSpan, ...]
    ahead: Horizon | None
    runs: tuple[DecisionRun, ...]

    @property
    def age_s(self) -> float | None:
        """The age of the newest sample; None without one."""
        return None if self.seen is None else (self.now - self.seen.at).total_seconds()

    @property
    def is_stale(self) -> bool:
        """Whether the newest sample is too old to decide anything."""
        return self.age_s is None or self.age_s > self.stale_after_s


class OverviewReader:
    """Reads pools, again and again. Keeps what past days were like, which is long to read and changes once a day."""

    def __init__(self, settings: Settings, num_runs: int) -> None:
        """Read nothing yet. Args: num_runs: how many of the last decisions to read."""
        self._settings, self._num_runs = settings, num_runs
        self._days: dict[tuple[str, date], DayProfiles] = {}

    def read(self, db: Connection, pool: str) -> PoolOverview:
        now, queues = clock.now(db), lane_queues(pool)
        decision = decisions.newest(db, pool)
        inputs = None if decision is None else _inputs(decision)
        usd_per_hour, unpriced = _price(db, pool)
        policy = self._settings.scaling if inputs is None else inputs.policy
        frame, past = _past(db, queues, now)
        return PoolOverview(
            pool=pool,
            now=now,
            seen=_seen(db, queues, now),
            stale_after_s=policy.stale_after_s,
            decision=decision,
            failing=decisions.failing(db, pool),
            inputs=inputs,
            hosts=workers.count_hosts(db).get(pool, HostCounts()),
            usd_per_hour=usd_per_hour,
            unpriced=unpriced,
            frame=frame,
            past=past,
            ahead=None if inputs is None else horizon(self._far(db, pool, inputs)),
            runs=tuple(decisions.runs(db, pool, self._num_runs)),
        )

    def _far(self, db: Connection, pool: str, inputs: DecisionInputs) -> DecisionInputs:
        """The inputs with a season for all hours that are shown: a decision needs fewer."""
        if inputs.history.season is None:
            return inputs
        key = pool, inputs.now.astimezone(UTC).date()
        if key not in self._days:
            self._days = {each: days for each, days in self._days.items() if each[0] != pool}
            self._days[key] = scaling_history.profiles(db, pool, inputs.now)
        far = self._days[key].season(inputs.now, REACH_S) or inputs.history.season
        return replace(inputs, history=replace(inputs.history, season=far))


def _inputs(decision: MadeDecision) -> DecisionInputs | None:
    try:
        return from_json(decision.record.inputs)
    except ValidationError:
        return None


def _past(db: Connection, queues: tuple[str, ...], now: datetime) -> tuple[Frame, tuple[LoadSpan, ...]]:
    past = observations.load(db, queues, now - HOURS.read, HOURS.span_s)
    if not is_young(past, now):
        return HOURS, tuple(past)
    return MINUTES, tuple(observations.load(db, queues, now - MINUTES.read, MINUTES.span_s))


def _seen(db: Connection, queues: tuple[str, ...], now: datetime) -> Seen | None:
    samples = observations.last_moment(db, queues)
    if not samples:
        return None
    spans = observations.load(db, queues, now - timedelta(seconds=LATELY_S), LATELY_S)
    return Seen(
        at=samples[0].at,
        lately=spans[-1] if spans else None,
        depth=sum(sample.depth for sample in samples),
        depth_tokens=sum(sample.depth_tokens for sample in samples),
        oldest_wait_s=max(sample.oldest_wait_s for sample in samples),
        running=sum(sample.running for sample in samples),
        # Each lane's sample reports all slots of the pool.
        slots=max(sample.slots for sample in samples),
        kv_use=max((sample.kv_use for sample in samples if sample.kv_use is not None), default=None),
    )


def _price(db: Connection, pool: str) -> tuple[Decimal | None, int]:
    """What the pool's hosts cost in an hour, and how many of them have no price."""
    leases = [each.work.lease for each in host_list.live(db, pool)]
    paid = [lease for lease in leases if lease.ordered_at is not None and lease.state is not HostState.ENDED]
    prices = [lease.usd_per_hour for lease in paid if lease.usd_per_hour is not None]
    return (sum(prices, Decimal(0)) if prices else None), len(paid) - len(prices)
