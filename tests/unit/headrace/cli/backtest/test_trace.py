"""Reading traces: both forms, and files that are wrong."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.cli.backtest.trace import RateTrace, RequestTrace, read_trace
from headrace.errors import ConfigError

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
