"""What past days lead one to expect: medians by kind of day, whole days alone, in a time zone."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from headrace.policies.scaling import DayProfiles
from headrace.policies.scaling.forecast.season import Offered

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def days(rate: Callable[[int, int], float], count: int, start: datetime = MONDAY, span_s: int = 600) -> list[Offered]:
    """What was offered in each span of so many days, at a rate that depends on the day and the hour."""
    spans = (start + timedelta(seconds=second) for second in range(0, count * 86_400, span_s))
    return [(at, span_s, span_s * rate((at - start).days, at.hour)) for at in spans]


def rates(offered: Sequence[Offered], now: datetime, zone: str = "UTC", reach_s: float = 1800) -> list[float] | None:
    season = DayProfiles.of(offered, now, ZoneInfo(zone)).season(now, reach_s)
    return None if season is None else [round(rate, 3) for rate in season.rates]


def test_without_a_whole_day_of_todays_kind_nothing_is_known() -> None:
    friday = MONDAY + 4 * DAY
    assert rates([], MONDAY) is None
    assert rates(days(lambda *_: 5.0, 1), MONDAY + DAY - timedelta(seconds=1)) is None, "today is not over"
    assert rates(days(lambda *_: 5.0, 1), MONDAY + DAY) == [5.0] * 4
    assert rates(days(lambda *_: 5.0, 1)[15:], MONDAY + DAY) is None, "less than 90 % of the day"
    assert rates(days(lambda *_: 5.0, 1)[14:], MONDAY + DAY) == [5.0] * 4
    assert rates(days(lambda *_: 5.0, 1, start=friday), friday + DAY) is None, "Saturday is another kind"


def test_the_median_of_the_last_five_days_of_the_kind_counts() -> None:
    by_day = [900.0, 1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 5.0]
    offered = days(lambda day, _: by_day[day], 8)
    assert rates(offered, MONDAY + 8 * DAY) == [3.0] * 4, "Tuesday to Friday, and Monday"
    assert rates(offered, MONDAY + 12 * DAY) == [55.0] * 4, "Saturday and Sunday"


def test_rates_change_in_proportion_between_the_middles_of_two_slots() -> None:
    offered = days(lambda _, hour: 40.0 if hour >= 9 else 10.0, 1)
    nine = MONDAY + DAY + timedelta(hours=9)
    assert rates(offered, nine) == [25.0, 40.0, 40.0, 40.0]
    assert rates(offered, nine - timedelta(seconds=300)) == [10.0, 40.0, 40.0, 40.0]


def test_after_midnight_the_next_days_kind_counts() -> None:
    offered = days(lambda day, _: 10.0 if day < 5 else 2.0, 7)
    friday_night = MONDAY + 11 * DAY + timedelta(hours=23, minutes=45)
    assert rates(offered, friday_night) == [10.0, 10.0, 2.0, 2.0]


@pytest.mark.parametrize("span_s", [30, 60, 600, 3600])
def test_spans_of_any_length_are_added_up(span_s: int) -> None:
    offered = days(lambda *_: 7.0, 1, span_s=span_s)
    assert rates(offered[::-1], MONDAY + DAY) == [7.0] * 4


def test_days_are_those_of_the_zone_across_a_change_of_its_clocks() -> None:
    """Peak from 9 to 10 in Berlin. Before 29 March that is 8:00 in UTC, after it 7:00."""
    berlin = ZoneInfo("Europe/Berlin")
    thursday = datetime(2026, 3, 26, tzinfo=berlin).astimezone(UTC)
    spans = [thursday + timedelta(minutes=10 * i) for i in range(2 * 144)]
    offered = [(at, 600.0, 600.0 * (80 if at.astimezone(berlin).hour == 9 else 20)) for at in spans]
    monday = datetime(2026, 3, 30, 7, 5, tzinfo=UTC)
    assert rates(offered, monday, "Europe/Berlin", 0) == [80.0]
    assert rates(offered, monday - timedelta(minutes=10), "Europe/Berlin", 0) == [20.0]


def test_a_slot_that_no_day_observed_is_as_the_one_before() -> None:
    offered = [span for span in days(lambda _, hour: float(hour), 1) if span[0].hour != 12]
    noon = MONDAY + DAY + timedelta(hours=12, minutes=5)
    assert rates(offered, noon, reach_s=0) == [11.0]
