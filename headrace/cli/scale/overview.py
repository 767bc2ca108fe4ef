"""What `headrace scale` shows of one pool, read in one transaction."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from pydantic import ValidationError
from sqlalchemy import Connection

from headrace.cli.scale.frame import HOURS, MINUTES, Frame, is_young
from headrace.config import Settings
from headrace.domain.fleet import QueueSample
from headrace.domain.hosts import HostCounts, HostState
from headrace.domain.queues import lane_queues
from headrace.policies.scaling import DayProfiles
from headrace.policies.scaling.horizon import REACH_S, Horizon, horizon
from headrace.policies.scaling.replay import DecisionInputs, from_json
from headrace.store import clock
from headrace.store.fleet import decisions, host_list, observations, presence
from headrace.store.fleet.decisions import DecisionRun, MadeDecision
from headrace.store.fleet.observations import LoadSpan
from headrace.store.scaling import season

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


class Reader:
    """Reads pools, again and again. Keeps what past days were like, which is long to read and changes once a day."""

    def __init__(self, settings: Settings, num_runs: int) -> None:
        """Read nothing yet. Args: num_runs: how many of the last decisions to read."""
        self._settings, self._num_runs = settings, num_runs
        self._days: dict[tuple[str, date], DayProfiles] = {}

    def read(self, db: Connection, pool: str) -> PoolOverview:
        """Read one pool."""
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
            hosts=presence.count_hosts(db).get(pool, HostCounts()),
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
            self._days[key] = season.profiles(db, pool, inputs.now)
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
        kv_use=_kv_use(samples),
    )


def _kv_use(samples: list[QueueSample]) -> float | None:
    return max((sample.kv_use for sample in samples if sample.kv_use is not None), default=None)


def _price(db: Connection, pool: str) -> tuple[Decimal | None, int]:
    """What the pool's hosts cost in an hour, and how many of them have no price."""
    leases = [each.work.lease for each in host_list.live(db, pool)]
    paid = [lease for lease in leases if lease.ordered_at is not None and lease.state is not HostState.ENDED]
    prices = [lease.usd_per_hour for lease in paid if lease.usd_per_hour is not None]
    return (sum(prices, Decimal(0)) if prices else None), len(paid) - len(prices)
