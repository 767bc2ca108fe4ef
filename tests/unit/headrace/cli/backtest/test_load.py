"""The load of a backtest: scaled, drawn by chance, and the same for the same seed."""

from array import array
from datetime import UTC, datetime

import numpy as np
import pytest

from headrace.cli.backtest import load as module
from headrace.cli.backtest.load import MONDAY, OfferedLoad, Sizes, offered_load, smooth
from headrace.cli.backtest.trace import RateTrace, RequestTrace
from headrace.errors import ConfigError

SIZES = Sizes(100, 25)
FLAT = RateTrace(array("d", [600.0] * 120))
#: Two requests a second for half an hour, and ten a second in the ten minutes after it.
TIMES = array("d", [*np.arange(0, 1800, 0.5), *np.arange(1800, 2400, 0.1)])
BUSY = RequestTrace(
    datetime(2026, 3, 1, tzinfo=UTC), TIMES, array("d", [100.0] * len(TIMES)), array("d", [25.0] * len(TIMES))
)


def same(first: OfferedLoad, second: OfferedLoad) -> bool:
    columns = ("times_s", "work", "tokens")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in columns)


def test_a_request_is_as_much_work_as_its_prompt_and_four_times_its_answer() -> None:
    load = offered_load(BUSY, SIZES, 1)

    assert set(load.work) == {200}
    assert set(load.tokens) == {125}
    assert load.tokens_per_work == pytest.approx(125 / 200)


def test_a_request_file_that_is_not_scaled_is_kept_as_it_is() -> None:
    load = offered_load(BUSY, SIZES, 1)

    assert list(load.times_s) == list(BUSY.times_s)
    assert (load.start, load.seconds, load.scale) == (BUSY.start, 2400, 1)


@pytest.mark.parametrize("trace", [FLAT, BUSY])
@pytest.mark.parametrize("peak", [200.0, 2000.0, 20_000.0])
def test_the_peak_is_the_highest_mean_of_ten_minutes_scaled_as_asked(
    trace: RateTrace | RequestTrace, peak: float
) -> None:
    load = offered_load(trace, SIZES, 1, peak=peak)

    assert load.peak == pytest.approx(peak)
    last = load.times_s >= load.seconds - 600
    assert load.work[last].sum() / 600 == pytest.approx(peak, rel=0.15)
    assert ((load.times_s >= 0) & (load.times_s < load.seconds)).all()
    assert (np.diff(load.times_s) >= 0).all()


def test_arrivals_of_a_rate_file_are_poisson_and_their_sizes_exponential() -> None:
    load = offered_load(RateTrace(array("d", [6000.0] * 200)), SIZES, 7)

    counts = np.bincount((load.times_s // 1).astype(int))
    assert counts.mean() == pytest.approx(100, rel=0.01)
    assert counts.var() == pytest.approx(100, rel=0.1)
    assert load.work.mean() == pytest.approx(200, rel=0.01)
    assert load.work.std() == pytest.approx(200, rel=0.02)


def test_equal_sizes_are_equal() -> None:
    assert set(offered_load(FLAT, Sizes(100, 25, vary=False), 1).work) == {200}


def test_the_seed_decides_what_chance_decides() -> None:
    for trace, peak in ((FLAT, None), (BUSY, 3000.0), (BUSY, 300.0)):
        first = offered_load(trace, SIZES, 3, peak)
        assert same(first, offered_load(trace, SIZES, 3, peak))
        assert not same(first, offered_load(trace, SIZES, 4, peak))


def test_copies_do_not_arrive_together() -> None:
    load = offered_load(BUSY, SIZES, 1, peak=20_000.0)

    assert len(load.times_s) == pytest.approx(10 * len(BUSY.times_s), rel=0.01)
    assert len(set(load.times_s)) == len(load.times_s)


def test_a_trace_without_dates_starts_on_a_monday_unless_told_otherwise() -> None:
    friday = datetime(2026, 1, 9, tzinfo=UTC)

    assert MONDAY.weekday() == 0
    assert offered_load(FLAT, SIZES, 1).start == MONDAY
    assert offered_load(FLAT, SIZES, 1, start=friday).start == friday
    assert offered_load(BUSY, SIZES, 1, start=friday).start == friday


def test_a_load_that_is_too_large_or_has_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 20,000,000 can be simulated"):
        offered_load(FLAT, SIZES, 1, peak=1e9)
    with pytest.raises(ConfigError, match="no requests left"):
        offered_load(FLAT, SIZES, 1, peak=1e-9)
    nothing = RequestTrace(None, array("d", [0.0]), array("d", [0.0]), array("d", [0.0]))
    with pytest.raises(ConfigError, match="only zeros"):
        offered_load(nothing, SIZES, 1)
    assert module.MOST_REQUESTS == 20_000_000


def test_a_mean_is_over_as_many_minutes_at_the_ends_as_elsewhere() -> None:
    rates = np.array([9.0, 0, 0, 0, 0, 3])

    assert list(smooth(rates, 3)) == [3, 3, 0, 0, 1, 1]
    assert list(smooth(rates, 100)) == [2] * 6
