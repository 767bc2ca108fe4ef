"""The pilots of a backtest: the product's own policies, fed with what it would have recorded, and an oracle."""

import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from headrace.config import ScalingSettings
from headrace.domain.scaling import (
    Decision,
    DemandForecast,
    DemandHistory,
    ErrorProfile,
    Moment,
    PastNeed,
    PoolHosts,
    Season,
)
from headrace.policies.scaling import forecast
from headrace.policies.scaling.decisions import decide
from headrace.policies.scaling.forecast import DayProfiles, Offered, error_profiles
from plugins.backtest.load import MINUTE_S, OfferedLoad, smooth
from plugins.backtest.pool import TICK_S, World

if TYPE_CHECKING:
    from plugins.backtest.load import Floats

#: The mechanisms of `predictive` that `--off` can leave out.
MECHANISMS = ("season", "trend", "prices", "hold", "errors")
#: The season is made from spans of this length, as from the product's roll-ups.
SPAN_S = 600.0
#: Errors count for this number of days.
ERROR_DAYS = 7
#: The profiles of errors are made again after this time.
ERRORS_EVERY = timedelta(minutes=10)
#: The oracle knows the mean demand over this many minutes around each minute: the rate, and not the chance in it.
ORACLE_MINUTES = 5


class Pilot(Protocol):
    """Decides how many hosts a simulated pool has."""

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """The hosts to have, ready and on their way. Called every `TICK_S`.

        Args:
            moments: the last ones, oldest first; at least one.
        """
        ...


def settings_for(world: World, policy: str, fixed_hosts: int) -> ScalingSettings:
    """The product's default settings, with this world's bounds and margin."""
    own = {"min_hosts": world.min_hosts, "max_hosts": world.max_hosts, "staffing_beta": world.beta}
    return ScalingSettings.model_validate({"policy": policy, "fixed_hosts": fixed_hosts, **own})


class ProductPilot:
    """Lets the product decide.

    Attributes:
        off: the mechanisms that are left out.
    """

    def __init__(self, settings: ScalingSettings, off: Collection[str] = ()) -> None:
        self._settings = settings
        self._off = frozenset(off)
        self._memory = Memory(settings.window_s)

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """See `Pilot`."""
        history = self._memory.history(tuple(moments), hosts.tokens_per_s or 1.0, now)
        history, hosts = self._without(history, hosts)
        with _without_trend() if "trend" in self._off else nullcontext():
            decision = decide(history, hosts, self._settings, now)
        self._memory.note(decision, now)
        return decision.target

    def _without(self, history: DemandHistory, hosts: PoolHosts) -> tuple[DemandHistory, PoolHosts]:
        """Take from the inputs what the switched-off mechanisms go by."""
        if "season" in self._off:
            history = replace(history, season=None)
        if "errors" in self._off:
            history = replace(history, errors=())
        if "hold" in self._off:
            # The need of now, for as long as a removal asks for: nothing but the present speaks against it.
            history = replace(history, needs=tuple(replace(past, need=0, spare_need=0) for past in history.needs))
        if "prices" in self._off:
            hosts = replace(hosts, usd_per_hour=None, spill_usd=None)
        return history, hosts


@contextmanager
def _without_trend() -> Iterator[None]:
    """No trend is significant. The level is no input of a decision, so this cannot be taken from the inputs."""
    sigmas, forecast.TREND_SIGMAS = forecast.TREND_SIGMAS, math.inf
    try:
        yield
    finally:
        forecast.TREND_SIGMAS = sigmas


@dataclass(slots=True)
class Memory:
    """What the product would have recorded by now, and makes of it: past needs, the season, errors of forecasts.

    Attributes:
        window_s: see `ScalingSettings.window_s`. A forecast is compared with the mean over a window around its time.
    """

    window_s: float
    _needs: deque[PastNeed] = field(default_factory=deque)
    _burst_until: datetime | None = None
    _spans: list[Offered] = field(default_factory=list)
    _profiles: tuple[date, DayProfiles] | None = None
    _recent: deque[Moment] = field(default_factory=deque)
    _pending: deque[DemandForecast] = field(default_factory=deque)
    _compared: deque[tuple[datetime, tuple[float, bool, float, float]]] = field(default_factory=deque)
    _errors: tuple[ErrorProfile, ...] = ()
    _errors_at: datetime | None = None

    def history(self, moments: tuple[Moment, ...], host_tokens_per_s: float, now: datetime) -> DemandHistory:
        """All that a decision knows, the newest of these moments included."""
        self._observe(moments[-1])
        self._compare(host_tokens_per_s, now)
        while self._needs and (now - self._needs[0].at).total_seconds() > 2 * self.window_s:
            self._needs.popleft()
        return DemandHistory(moments, self._season(now), self._errors, tuple(self._needs), self._burst_until)

    def note(self, decision: Decision, now: datetime) -> None:
        self._burst_until = decision.burst_until
        if decision.need is not None and decision.spare_need is not None:
            self._needs.append(PastNeed(now, decision.need, decision.spare_need))
        if decision.forecast is not None:
            self._pending.append(decision.forecast)

    def _observe(self, moment: Moment) -> None:
        self._recent.append(moment)
        while (moment.at - self._recent[0].at).total_seconds() > 2 * self.window_s:
            self._recent.popleft()
        start = moment.at - timedelta(seconds=moment.seconds)
        if self._spans and self._spans[-1][1] + moment.seconds <= SPAN_S:
            first, seconds, tokens = self._spans[-1]
            self._spans[-1] = first, seconds + moment.seconds, tokens + moment.offered_tokens
        else:
            self._spans.append((start, moment.seconds, moment.offered_tokens))

    def _season(self, now: datetime) -> Season | None:
        today = now.astimezone(UTC).date()
        if self._profiles is None or self._profiles[0] != today:
            self._profiles = today, DayProfiles.of(self._spans, now)
        return self._profiles[1].season(now)

    def _compare(self, host_tokens_per_s: float, now: datetime) -> None:
        """Compare the forecasts whose window is over with what came in it."""
        half = timedelta(seconds=self.window_s / 2)
        while self._pending and self._pending[0].at + half <= now:
            forecast = self._pending.popleft()
            around = [each for each in self._recent if forecast.at - half < each.at <= forecast.at + half]
            seconds = sum(each.seconds for each in around)
            if seconds:
                actual = sum(each.offered_tokens for each in around) / seconds
                rate = forecast.tokens_per_s
                self._compared.append((now, (rate, forecast.is_burst, rate / host_tokens_per_s, actual)))
        while self._compared and now - self._compared[0][0] > timedelta(days=ERROR_DAYS):
            self._compared.popleft()
        if self._errors_at is None or now - self._errors_at >= ERRORS_EVERY:
            self._errors, self._errors_at = error_profiles(each for _, each in self._compared), now


class OraclePilot:
    """Knows the true demand of the time that a new host takes to get ready, and keeps no margin.

    It has the hosts whose saturated rate is the highest demand of that time: what a perfect forecast can save. Chance
    in the arrivals makes its requests wait, and some of them spill.
    """

    def __init__(self, world: World, load: OfferedLoad) -> None:
        import numpy as np

        self._world, self._start = world, load.start
        needs: Floats = np.ceil(smooth(load.demand, ORACLE_MINUTES) / world.tokens_per_s - 1e-9)
        self._needs = needs.astype(int).tolist()

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """See `Pilot`."""
        second = (now - self._start).total_seconds()
        last = second + self._world.provision_s + TICK_S
        window = self._needs[int(second // MINUTE_S) : int(last // MINUTE_S) + 1]
        return max(self._world.min_hosts, min(self._world.max_hosts, max(window, default=0)))
