"""Samples of queues become minutes, minutes hours, and hours go after a year; none is lost or counted twice."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from headrace.config import PROJECT_ROOT
from headrace.domain.fleet import QueueSample
from headrace.store import Store
from headrace.store.fleet import history, observations
from headrace.tables import queue_rollups, queue_samples
from scheduler.deps import ControlDeps
from scheduler.sweep import roll_up_samples
from tests.integration.conftest import empty

DAY, MINUTE, HOUR = timedelta(days=1), timedelta(minutes=1), timedelta(hours=1)
SUMS = ("arrivals", "refused", "started", "started_tokens", "offered", "offered_tokens", "spilled", "finished")
MEANS = ("depth", "running", "slots", "hosts", "hosts_requested", "hosts_draining", "kv_use")
MAXIMA = ("most_depth", "oldest_wait_s")
#: Every row with the length of its span; a sample's span is 0.
ROWS = f"""
    SELECT queue, 0 AS span_s, at, 1 AS samples, depth AS most_depth, oldest_wait_s, {", ".join(SUMS + MEANS)}
    FROM queue_samples
    UNION ALL
    SELECT queue, span_s, at, samples, most_depth, oldest_wait_s, {", ".join(SUMS + MEANS)} FROM queue_rollups
    ORDER BY queue, at
"""

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture
def rows(store: Store) -> Callable[[], Rows]:
    """All samples and roll-ups, oldest first."""

    def read() -> Rows:
        with store.begin() as db:
            return db.execute(sa.text(ROWS)).mappings().all()

    return read


@pytest.fixture
def put(store: Store) -> Callable[..., None]:
    """Writes samples."""

    def write(*samples: QueueSample) -> None:
        with store.begin() as db:
            observations.add_samples(db, samples)

    return write


def start_of(span: timedelta, at: datetime) -> datetime:
    return at - timedelta(seconds=at.timestamp() % span.total_seconds())


def ago(age: timedelta, span: timedelta = HOUR) -> datetime:
    """The start of the span that began so long ago, or up to a span before."""
    return start_of(span, datetime.now(UTC) - age)


def sample(at: datetime, queue: str = "chat.normal", **counts: Any) -> QueueSample:
    return QueueSample(queue, at, **counts)


def sums(rows: Rows) -> dict[str, Any]:
    """What no roll-up may change."""
    totals = {name: sum(row[name] for row in rows) for name in ("samples", *SUMS)}
    means = {
        name: pytest.approx(sum((row[name] or 0) * row["samples"] for row in rows))
        for name in MEANS
        if name != "kv_use"
    }
    return totals | means | {name: max(row[name] for row in rows) for name in MAXIMA}


def test_samples_of_a_minute_become_a_row_after_a_day(deps: ControlDeps, put: Any, rows: Any) -> None:
    at = ago(DAY + MINUTE)
    first = sample(at, depth=2, oldest_wait_s=9.0, offered=3, offered_tokens=2**40, hosts=1, kv_use=0.5)
    second = sample(at + timedelta(seconds=59.9), depth=5, oldest_wait_s=4.0, offered=4, hosts=2, hosts_draining=1.0)
    young = sample(datetime.now(UTC) - DAY + MINUTE, depth=7)
    put(first, second, young)
    assert roll_up_samples(deps) == 2
    minute, left = rows()
    wanted = {"depth": 3.5, "most_depth": 5, "oldest_wait_s": 9.0, "offered": 7, "offered_tokens": 2**40, "hosts": 1.5}
    wanted |= {"queue": "chat.normal", "span_s": 60, "at": at, "samples": 2, "hosts_draining": 0.5, "kv_use": 0.5}
    assert {name: minute[name] for name in wanted} == wanted
    assert (left["span_s"], left["at"], left["depth"]) == (0, young.at, 7)
    assert roll_up_samples(deps) == 0


def test_minutes_become_an_hour_after_a_week_and_go_after_a_year(deps: ControlDeps, put: Any, rows: Any) -> None:
    week, year = ago(7 * DAY + HOUR), ago(365 * DAY + HOUR)
    minutes = [sample(week + number * MINUTE, depth=number, offered=1) for number in (0, 1, 59)]
    put(*minutes, sample(week + 59.5 * MINUTE, depth=100), sample(ago(7 * DAY) + HOUR), sample(ago(6 * DAY)))
    put(sample(year), sample(year + 2 * HOUR))
    while roll_up_samples(deps):
        pass
    old, hour, *younger = rows()
    wanted = {"span_s": 3600, "at": week, "samples": 4, "depth": 40.0, "most_depth": 100, "offered": 3}
    assert {name: hour[name] for name in wanted} == wanted
    assert (old["span_s"], old["at"]) == (3600, year + 2 * HOUR)
    assert [row["span_s"] for row in younger] == [60, 60]


def test_each_queue_has_rows_of_its_own(deps: ControlDeps, put: Any, rows: Any) -> None:
    at = ago(2 * DAY)
    put(*(sample(at + timedelta(seconds=s), queue, offered=1) for queue in ("chat.high", "chat.low") for s in (1, 2)))
    roll_up_samples(deps)
    assert [(row["queue"], row["offered"]) for row in rows()] == [("chat.high", 2), ("chat.low", 2)]


def test_a_kv_use_that_was_never_reported_stays_unknown(deps: ControlDeps, put: Any, rows: Any) -> None:
    at = ago(2 * DAY)
    put(*(sample(at + number * MINUTE / 4, kv_use=use) for number, use in enumerate((None, None, None, None, 0.25))))
    roll_up_samples(deps)
    assert [row["kv_use"] for row in rows()] == [None, 0.25]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns"])
def test_hours_are_whole_hours_of_utc_in_each_time_zone(store: Store, put: Any, rows: Any, zone: str) -> None:
    at = ago(8 * DAY)
    put(sample(at + 10 * MINUTE), sample(at + 50 * MINUTE))
    with store.begin() as db:
        db.exec_driver_sql(f"SET LOCAL timezone = '{zone}'")
        history.roll_up(db)
    assert [(row["span_s"], row["at"]) for row in rows()] == [(3600, at)]


def test_samples_that_come_late_are_added_to_their_minute_and_hour(deps: ControlDeps, put: Any, rows: Any) -> None:
    day, week = ago(2 * DAY), ago(8 * DAY)
    late = timedelta(seconds=1)
    for depth, wait_s, use in ((3, 9.0, None), (6, 1.0, 0.5)):
        put(
            *(
                sample(at + number * late, depth=depth, oldest_wait_s=wait_s, offered=1)
                for at in (day, week)
                for number in (0, 1)
            )
        )
        put(*(sample(at + 2 * late, depth=depth, kv_use=use) for at in (day, week)))
        roll_up_samples(deps)
        late += timedelta(seconds=5)
    wanted = {"samples": 6, "depth": 4.5, "most_depth": 6, "oldest_wait_s": 9.0, "offered": 4, "kv_use": 0.5}
    assert [{name: row[name] for name in wanted} for row in rows()] == [wanted, wanted]


class Died(Exception): ...


def test_a_sweep_that_dies_half_way_changes_nothing(store: Store, put: Any, rows: Any) -> None:
    put(*(sample(ago(8 * DAY) + number * MINUTE, offered=1) for number in range(3)))
    before = rows()

    def die() -> None:
        with store.begin() as db:
            assert history.roll_up(db) > 0
            raise Died

    with pytest.raises(Died):
        die()
    assert rows() == before


def test_after_a_long_stop_batches_of_whole_spans_catch_up(
    deps: ControlDeps, put: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.fleet.history.FORGET_ROWS", 10)
    start = ago(30 * DAY)
    put(
        *(
            sample(start + number * MINUTE / 4, queue, offered=1)
            for number in range(480)
            for queue in ("a.low", "b.low")
        )
    )
    before, moved = sums(rows()), []
    while last := roll_up_samples(deps):
        moved.append(last)
        found = rows()
        assert sums(found) == before
        spans = {(row["queue"], row["span_s"], start_of(HOUR, row["at"])) for row in found}
        hours = {(queue, at) for queue, span_s, at in spans if span_s == 3600}
        assert not hours & {(queue, at) for queue, span_s, at in spans if span_s < 3600}, "an hour is one row or none"
        minutes = {(row["queue"], row["at"]) for row in found if row["span_s"] == 60}
        raw = {(row["queue"], start_of(MINUTE, row["at"])) for row in found if row["span_s"] == 0}
        assert not minutes & raw, "a minute is one row or none"
    assert len(moved) > 50
    assert max(moved) <= 2 * (10 + 2 * 60)
    assert [(row["span_s"], row["samples"]) for row in rows()] == [(3600, 240)] * 4


def test_old_rows_are_found_in_an_index(store: Store, query: Any) -> None:
    values = "'chat.normal', now() - make_interval(secs => i), 0, 0, 0, 0, 0, 0, 0, 0 FROM generate_series(1, 20000) i"
    columns = "queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts"
    query(f"INSERT INTO queue_samples ({columns}) SELECT {values}")
    for span_s in (60, 3600):
        rows = values.replace(" FROM", f", 0, 1, 0, {span_s} FROM")
        query(f"INSERT INTO queue_rollups ({columns}, started_tokens, samples, most_depth, span_s) SELECT {rows}")
    query("ANALYZE queue_samples")
    query("ANALYZE queue_rollups")
    scans = "SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname ~ '^queue_'"
    with store.begin() as db:
        before = db.exec_driver_sql(scans).scalar()
        assert history.roll_up(db) == 0
        assert db.exec_driver_sql(scans).scalar() == before, "no scan of a whole table"


@pytest.mark.parametrize("span", ["1 hour", "10 minutes"])
def test_the_operators_query_charts_a_week_of_samples_and_roll_ups(
    deps: ControlDeps, put: Any, query: Any, span: str
) -> None:
    page = (PROJECT_ROOT / "docs" / "operations.md").read_text()
    chart = page.partition("## The week in numbers")[2].partition("```sql\n")[2].partition("```")[0]
    assert "1 hour" in chart
    steps = timedelta(hours=1) if span == "1 hour" else timedelta(minutes=10)
    ages = [HOUR, 2 * DAY, 6 * DAY, 9 * DAY]
    for at in (ago(age) for age in ages):
        minutes = [at, at + 5 * MINUTE]
        put(*(sample(each, "chat.high", depth=4, hosts=3, offered=5, refused=1, oldest_wait_s=2.0) for each in minutes))
        put(
            *(
                sample(each, "chat.low", depth=n, hosts=3, offered=2, spilled=1, oldest_wait_s=8.0 * n)
                for n, each in enumerate(minutes)
            )
        )
        put(sample(at, "overflow.low", depth=99))
    roll_up_samples(deps)
    charted = query(chart.replace("1 hour", span))
    assert {row[0] for row in charted} == {start_of(steps, ago(age)) for age in ages[:3]}
    assert [tuple(map(float, row[1:])) for row in charted] == [(14.0, 2.0, 2.0, 4.5, 8.0, 3.0)] * 3


COUNTS = st.integers(0, 1000)
SAMPLES = st.builds(
    lambda age_s, queue, rates, counts, use: QueueSample(
        queue, datetime.now(UTC) - timedelta(seconds=age_s), **rates, **counts, kv_use=use
    ),
    st.one_of(st.floats(0, 3 * 86_400), st.floats(6.9 * 86_400, 7.1 * 86_400), st.floats(0, 360 * 86_400)),
    st.sampled_from(["chat.normal", "chat.low"]),
    st.fixed_dictionaries({"oldest_wait_s": st.floats(0, 100), "hosts_requested": st.floats(0, 9)}),
    st.fixed_dictionaries(dict.fromkeys((*SUMS, "depth", "running", "slots", "hosts"), COUNTS)),
    st.none() | st.floats(0, 1),
)


@given(st.lists(SAMPLES, min_size=1, max_size=60), st.integers(1, 20))
@effort(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_of_samples_are_those_of_minutes_and_of_hours(
    deps: ControlDeps, put: Any, rows: Any, samples: list[QueueSample], batch: int
) -> None:
    with deps.store.begin() as db:
        empty(db, [queue_samples, queue_rollups])
    # Batches of one minute each, so that the steps meet at every place.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.store.fleet.history.FORGET_ROWS", batch)
        put(*samples)
        before = sums(rows())
        while roll_up_samples(deps):
            assert sums(rows()) == before
    oldest = {0: DAY + 2 * MINUTE, 60: 7 * DAY + 2 * HOUR, 3600: 365 * DAY}
    assert all(datetime.now(UTC) - row["at"] < oldest[row["span_s"]] for row in rows())
