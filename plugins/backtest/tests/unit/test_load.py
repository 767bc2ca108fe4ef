"""The load of a backtest: traces of both forms, wrong files; scaled, drawn by chance, the same for the same seed."""

from array import array
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import ConfigError
from plugins.backtest import load as module
from plugins.backtest.load import (
    MONDAY,
    OfferedLoad,
    RateTrace,
    RequestTrace,
    Sizes,
    offered_load,
    read_trace,
    smooth,
)

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
OWN = "time,prompt_tokens,output_tokens\n"
RATES = "minute,requests\n"


def read(tmp_path: Path, text: str | bytes) -> RequestTrace | RateTrace:
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_trace(path)


def requests(tmp_path: Path, text: str | bytes) -> RequestTrace:
    trace = read(tmp_path, text)
    assert isinstance(trace, RequestTrace)
    return trace


def test_azures_columns_and_dates_are_read_to_the_fraction_of_a_second(tmp_path: Path) -> None:
    lines = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,110,27"
    trace = requests(tmp_path, AZURE + lines)

    assert trace.start == datetime(2023, 11, 16, 18, 17, 3, 979960, tzinfo=UTC)
    assert list(trace.times_s) == pytest.approx([0, 1], abs=1e-5)
    assert (list(trace.prompt_tokens), list(trace.output_tokens)) == ([4808, 110], [10, 27])


def test_dates_with_an_offset_are_read_in_utc(tmp_path: Path) -> None:
    trace = requests(tmp_path, OWN + "2026-03-01T08:00:00+02:00,1,1\n2026-03-01T06:00:30Z,1,1\n")

    assert trace.start == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert list(trace.times_s) == [0, 30]


@pytest.mark.parametrize(
    ("times", "start"), [("7.5 9", None), ("1700000000 1700000001.5", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))]
)
def test_seconds_count_from_the_first_request_and_those_since_1970_are_a_date(
    tmp_path: Path, times: str, start: datetime | None
) -> None:
    first, second = times.split()
    trace = requests(tmp_path, f"{OWN}{first},1,2\n{second},3,4\n")

    assert (list(trace.times_s), trace.start) == ([0, 1.5], start)


def test_requests_that_are_out_of_order_are_sorted_with_their_sizes(tmp_path: Path) -> None:
    trace = requests(tmp_path, OWN + "20,2,22\n10,1,11\n30,3,33\n")

    assert list(trace.times_s) == [0, 10, 20]
    assert (list(trace.prompt_tokens), list(trace.output_tokens)) == ([1, 2, 3], [11, 22, 33])


def test_other_columns_any_case_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfTimestamp,Model,Request tokens,Response tokens,Total tokens\r\n5,ChatGPT,472,18,490\r\n\r\n"
    trace = requests(tmp_path, text)

    assert (list(trace.prompt_tokens), list(trace.output_tokens)) == ([472], [18])


def test_minutes_that_a_rate_file_leaves_out_have_no_requests_and_two_lines_of_one_minute_add_up(
    tmp_path: Path,
) -> None:
    trace = read(tmp_path, RATES + "4,2\n1,7\n1,0.5\n")

    assert isinstance(trace, RateTrace)
    assert list(trace.per_minute) == [0, 7.5, 0, 0, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "trace.csv is empty. A trace has either the columns"),
        (OWN, "has no requests"),
        (RATES + "0,0\n1,0\n", "has no requests"),
        ("a,b\n1,2\n", "line 1: the column time, prompt_tokens, output_tokens is missing; it has a, b"),
        ("minute,count\n1,2\n", "line 1: the column requests is missing; it has minute, count"),
        (OWN + "1,2\n", "line 2, column output_tokens: empty because the line is too short. Complete the line"),
        (OWN + "1,2,3\n2,,3\n", "line 3, column prompt_tokens: empty is not a number"),
        (OWN + "1,2,x\n", "line 2, column output_tokens: 'x' is not a number. Correct the value"),
        (AZURE + "1,-2,3\n", "line 2, column ContextTokens: '-2' is negative"),
        (OWN + "1,nan,3\n", "'nan' is beyond 1e+09"),
        (OWN + "1,2,1e99\n", "'1e99' is beyond 1e+09"),
        (OWN + "soon,2,3\n", "line 2, column time: 'soon' is not a time. Write seconds, or a time like 2026-"),
        (OWN + "1,2,3\n2026-03-01,2,3\n", "line 3, column time: '2026-03-01' is not a time in seconds, as the first"),
        (OWN + "2026-03-01T08:00,2,3\n17,2,3\n", "line 3, column time: '17' is not a time"),
        (OWN + "-1,2,3\n", "'-1' is not a time in seconds"),
        (OWN + "0,2,3\n1e10,2,3\n", "spans 115,741 days; at most 366 are read. Times are dates or seconds"),
        (RATES + "0.5,1\n", "line 2, column minute: '0.5' is not a whole minute. Minutes count from 0"),
        (RATES + "28333333,1\n", "line 2, column minute: '28333333' is more than 366 days. Minutes count from 0"),
        (RATES + "1,-1\n", "line 2, column requests: '-1' is negative"),
        (b"\x89PNG\r\n\xff\xfe", "is not UTF-8 text"),
        (b"time,prompt_tokens,output_tokens\n1,\x00,3\n", "is not "),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place_and_the_remedy(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)

    assert words in str(caught.value)
    assert "trace.csv" in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_trace(path)


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
