"""A decision knows in production what it knows in a backtest of the same past, and so decides the same.

Weeks of demand are told to the backtest's memory, tick by tick. The same demand is written to Postgres as the observer
and the sweep would leave it: hours, minutes, and samples of the last day.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import ScalingSettings, Settings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import Decision, DemandHistory, Moment, PoolHosts
from headrace.policies.scaling.bounds import tokens_per_job
from headrace.policies.scaling.decisions import decide
from headrace.store import Store
from headrace.store.fleet import decisions
from headrace.store.scaling import scaling_history
from headrace.tables import decisions as decisions_table
from headrace.tables import queue_rollups, queue_samples
from plugins.backtest.pilots import Memory
from tests.integration.headrace.store.scaling.conftest import lanes

TICK = timedelta(seconds=30)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
#: A Thursday, in the middle of the rise of the morning.
END = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
START = datetime(2026, 11, 14, tzinfo=UTC)
#: Decisions are made in the last hours: an hour of them must be compared before their errors count.
DECIDED_FROM = END - 4 * HOUR
HOSTS = PoolHosts(
    3,
    tokens_per_s=1000.0,
    slots_per_host=16.0,
    provision_s=300.0,
    usd_per_hour=4.1,
    spill_usd=0.02,
    spill_tokens_per_s=800.0,
)


def demand() -> Iterator[Moment]:
    """Each tick's: level within an hour, different from hour to hour and day to day, and noisy in the last hours."""
    noise = random.Random(5)
    for number in range(1, round((END - START) / TICK) + 1):
        start = START + TICK * (number - 1)
        hour = 900 + 2500 * (6 <= start.hour < 20) + 90 * start.hour
        rate = hour * (0.4 if start.weekday() >= 5 else 1.0) * (0.9 + 0.02 * (start.day % 7))
        if start >= END - 5 * HOUR:
            rate *= noise.uniform(0.8, 1.2)
        # A burst, which is over when the last decisions are made.
        if END - 70 * timedelta(minutes=1) <= start < END - 50 * timedelta(minutes=1):
            rate *= 3
        yield Moment(start + TICK, 30.0, round(rate / 20), round(rate * 30), 1, 2, 3, 1500, 40, 48)


def as_rows(moments: list[Moment]) -> dict[sa.Table, list[dict[str, Any]]]:
    """The rows that the moments leave behind: hours older than a week, minutes older than a day, and samples."""
    samples = [_sample(moment) for moment in moments if moment.at > END - DAY]
    spans: dict[tuple[int, datetime], dict[str, Any]] = {}
    for moment in moments:
        start = moment.at - TICK
        if moment.at > END - DAY:
            continue
        span_s = 60 if start >= END - 7 * DAY else 3600
        at = start.replace(second=0) if span_s == 60 else start.replace(minute=0, second=0)
        row = spans.setdefault((span_s, at), {"span_s": span_s, "at": at, "offered": 0, "offered_tokens": 0})
        row["offered"] += moment.offered_jobs
        row["offered_tokens"] += moment.offered_tokens
    rolled = [row for span in spans.values() for row in lanes(queue_rollups, "chat", span)]
    return {queue_samples: [row for sample in samples for row in sample], queue_rollups: rolled}


def _sample(moment: Moment) -> list[dict[str, Any]]:
    names = {
        "offered": moment.offered_jobs,
        "offered_tokens": moment.offered_tokens,
        "refused": moment.refused_jobs,
        "spilled": moment.spilled_jobs,
        "depth": moment.depth,
        "depth_tokens": moment.depth_tokens,
        "running": moment.running,
        "slots": moment.slots,
    }
    return lanes(queue_samples, "chat", {"at": moment.at, **names})


def record(policy: ScalingSettings, made: Decision) -> ScalingRecord:
    forecast = made.forecast
    return ScalingRecord(
        *("chat", "active", HOSTS.count, made.target, made.reason, {}),
        need=made.need,
        spare_need=made.spare_need,
        forecast_tokens_per_s=None if forecast is None else forecast.tokens_per_s,
        forecast_at=None if forecast is None else forecast.at,
        burst_until=made.burst_until,
    )


@pytest.fixture
def policy(settings: Settings) -> ScalingSettings:
    return settings.scaling.of_pool("chat")


def check(found: DemandHistory, expected: DemandHistory, policy: ScalingSettings, now: datetime) -> None:
    """Both histories are the same, and lead to the same decision."""
    assert found.moments[1:] == expected.moments[-20:]
    assert tokens_per_job(found) == tokens_per_job(expected)
    assert found.season is not None
    assert expected.season is not None
    assert found.season.rates == pytest.approx(expected.season.rates)
    assert [replace(each, ratios=()) for each in found.errors] == [replace(each, ratios=()) for each in expected.errors]
    for ours, theirs in zip(found.errors, expected.errors, strict=True):
        assert ours.ratios == pytest.approx(theirs.ratios, abs=1e-4)
    held = [past for past in expected.needs if (now - past.at).total_seconds() < policy.window_s]
    assert list(found.needs) == held
    assert found.burst_until == expected.burst_until
    here, there = (decide(each, HOSTS, policy, now) for each in (found, expected))
    assert here.forecast is not None, here.reason
    assert there.forecast is not None
    assert here.forecast.tokens_per_s == pytest.approx(there.forecast.tokens_per_s)
    assert (here.target, here.need, here.spare_need) == (there.target, there.need, there.spare_need)


def test_production_decides_as_the_backtest_does(
    store: Store, settings: Settings, policy: ScalingSettings, add: Callable[..., None]
) -> None:
    settings = settings.model_copy(update={"observe_every_s": TICK.total_seconds()})
    moments = list(demand())
    before = [moment for moment in moments if moment.at <= DECIDED_FROM]
    for table, rows in as_rows(before).items():
        add(table, rows)
    memory, checked, kinds = Memory(policy.window_s), 0, set[str]()
    for number, moment in enumerate(moments):
        now = moment.at
        # Two windows, as production reads.
        expected = memory.history(tuple(moments[max(0, number - 39) : number + 1]), HOSTS.tokens_per_s or 0, now)
        if now <= DECIDED_FROM:
            continue
        made = decide(expected, HOSTS, policy, now)
        with store.begin() as db:
            db.execute(sa.insert(queue_samples), _sample(moment))
            # Every ten minutes, when the backtest makes its profiles again.
            if number % 20 == 0:
                found = scaling_history.load(db, settings, "chat", HOSTS, now)
                check(found, expected, policy, now)
                checked += 1
                kinds |= {made.forecast.why} if made.forecast else set()
            else:
                scaling_history.compare_forecasts(db, "chat", policy.window_s, now)
            decision_id = decisions.add(db, record(policy, made))
            db.execute(sa.update(decisions_table).where(decisions_table.c.id == decision_id).values(at=now))
        memory.note(made, now)
    assert checked == 24
    assert kinds >= {"season", "burst"}
    assert max(profile.count for profile in expected.errors) > 120, "learned errors count"
