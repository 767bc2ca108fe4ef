"""What the product would have recorded by now, and makes of it: past needs, the season, the errors of its forecasts."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from headrace.domain.scaling import Decision, ErrorProfile, Forecast, History, Moment, PastNeed, Season
from headrace.policies.scaling import DayProfiles, error_profiles
from headrace.policies.scaling.forecast import Offered

#: The season is made from spans of this length, as from the product's roll-ups.
SPAN_S = 600.0
#: The errors of so many days count.
ERROR_DAYS = 7
#: The profiles of errors are made again after this time.
ERRORS_EVERY = timedelta(minutes=10)


@dataclass(slots=True)
class Memory:
    """The past of one run.

    Attributes:
        window_s: see `ScalingSettings.window_s`. A forecast is compared with the mean over a window around its time.
    """

    window_s: float
    _needs: deque[PastNeed] = field(default_factory=deque)
    _burst_until: datetime | None = None
    _spans: list[Offered] = field(default_factory=list)
    _profiles: tuple[date, DayProfiles] | None = None
    _recent: deque[Moment] = field(default_factory=deque)
    _pending: deque[Forecast] = field(default_factory=deque)
    _compared: deque[tuple[datetime, tuple[float, bool, float, float]]] = field(default_factory=deque)
    _errors: tuple[ErrorProfile, ...] = ()
    _errors_at: datetime | None = None

    def history(self, moments: tuple[Moment, ...], host_tokens_per_s: float, now: datetime) -> History:
        """All that a decision knows, the newest of these moments included."""
        self._observe(moments[-1])
        self._compare(host_tokens_per_s, now)
        while self._needs and (now - self._needs[0].at).total_seconds() > 2 * self.window_s:
            self._needs.popleft()
        return History(moments, self._season(now), self._errors, tuple(self._needs), self._burst_until)

    def note(self, decision: Decision, now: datetime) -> None:
        """Record a decision."""
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
