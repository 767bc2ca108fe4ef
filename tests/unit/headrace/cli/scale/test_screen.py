"""What the terminal shows of a pool, and its chart: axes, lines without colours, and the room that it takes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from headrace.cli.scale import scale
from headrace.cli.scale.overview import HOURS, MINUTES, Frame, PoolOverview, Seen
from headrace.cli.scale.screen import Lines, draw, outcome, screen
from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.hosts import HostCounts
from headrace.domain.scaling import DemandHistory, Moment, PoolHosts, Season
from headrace.policies.scaling.decisions import DecisionInputs
from headrace.policies.scaling.horizon import horizon
from headrace.store.fleet.decisions import DecisionRun, MadeDecision
from headrace.store.fleet.observations import LoadSpan

NOW = datetime(2026, 11, 30, 8, 10, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour ahead of UTC in winter."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


LINES = Lines(
    offered=[(at(minute), 4_000.0) for minute in range(-150, 0, 3)],
    expected=[(at(minute), 14_000.0) for minute in range(0, 240, 5)],
    capacity=[(at(minute), 9_000.0) for minute in range(-150, 240, 5)],
)


def drawn(width: int, lines: Lines = LINES, frame: Frame = HOURS) -> list[str]:
    return draw(lines, NOW, frame, width, 8).splitlines()


@pytest.mark.parametrize(
    ("width", "frame", "labels"),
    [
        (80, HOURS, [f"{hour:02d}:00" for hour in range(7, 14)]),
        (140, HOURS, [f"{hour:02d}:{minute}" for hour in range(7, 13) for minute in ("00", "30")] + ["13:00"]),
        (50, HOURS, ["06:00", "08:00", "10:00", "12:00"]),
        (80, MINUTES, ["08:50", "09:00", "09:10", "09:20", "09:30", "09:40", "09:50"]),
    ],
)
def test_its_labels_are_round_local_times_at_any_width(width: int, frame: Frame, labels: list[str]) -> None:
    shown = drawn(width, frame=frame)
    assert shown[-1].split()[1:] == labels
    assert max(map(len, shown)) <= width
    assert not any(line.endswith(" ") for line in shown)


def test_its_rates_are_round_and_each_line_is_known_without_its_colour() -> None:
    shown = drawn(80)
    rates = {line[:10].strip(): line[13:] for line in shown[1:-2]}
    assert list(rates) == ["16,000", "14,000", "12,000", "10,000", "8,000", "6,000", "4,000", "2,000", "0"]
    # Now is at 9:10, in the 22nd column of 6 minutes.
    assert rates["14,000"][22:].strip("o") == ""
    assert set(rates["8,000"].strip()) == {"⠂", "⢺"}
    assert set(rates["4,000"][:20]) <= set("⠒⠤⣀⠉")
    assert rates["10,000"].strip() in {"⡇", "⢸"}


def test_events_have_a_row_each_in_the_columns_of_their_time() -> None:
    events = [
        (at(-300), at(-240), "over"),
        (at(-30), at(49.5), "now"),
        (at(109.5), at(400), "launch"),
        (at(109.5), at(110), "short"),
        (at(400), at(500), "later"),
    ]
    shown = drawn(80, replace(LINES, events=events[1:]))[-3:]
    # 9:10 is in column 21.75 of 60: an event from 8:40 to 10:00 has the columns 17 to 29, one from 11:00 the rest.
    assert shown == [" " * 30 + "[now        ]", " " * 53 + "[launch            ]", " " * 53 + "[short]"]


def test_it_has_colours_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in draw(LINES, NOW, HOURS, 80, 8)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[95m" in draw(LINES, NOW, HOURS, 80, 8)


@pytest.mark.parametrize(
    ("lines", "width", "height"),
    [
        pytest.param(Lines([], [], []), 80, 8, id="nothing is known"),
        pytest.param(Lines([(at(-9), 0.0)], [(at(9), 0.0)], [(at(0), 9.0)]), 80, 8, id="nothing was offered"),
        pytest.param(LINES, 25, 8, id="too narrow"),
        pytest.param(LINES, 80, 0, id="too low"),
    ],
)
def test_it_is_left_out_where_it_would_show_nothing(lines: Lines, width: int, height: int) -> None:
    assert draw(lines, NOW, HOURS, width, height) == ""


def test_a_single_span_and_a_small_rate_are_drawn() -> None:
    shown = drawn(80, Lines([(at(-12), 0.3)], [], []))
    assert shown[1].split()[0] == "0.32"
    assert any("⠀" < mark < "⣿" for line in shown[2:-2] for mark in line[13:34])


LAUNCH = {"name": "launch", "starts_at": "2026-11-30T11:00:00Z", "ends_at": "2026-11-30T13:00:00Z", "hosts": 6}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


POLICY = ScalingSettings(policy="predictive", staffing_beta=0.0, events=(ScalingEvent.model_validate(LAUNCH),))
HISTORY = DemandHistory(
    tuple(Moment(ago(30 * i), 30.0, 90, 9_000, 0, 0, 40, 4_000, 60, 80) for i in range(20)),
    season=Season(600.0, tuple(100.0 + 25.0 * step for step in range(13))),
)
INPUTS = DecisionInputs(HISTORY, PoolHosts(3, tokens_per_s=100.0, slots_per_host=20.0), POLICY, NOW)
RECORD = ScalingRecord("chat", "active", 3, 5, "up: 4.3 hosts needed", {}, action="up", policy="predictive")
DECISION = MadeDecision(812, ago(12), RECORD, None, 0, None)
RUN = DecisionRun(
    *(812, ago(12), 812, ago(12), 1, "up", "active", "predictive", 3, 5, "up: 4.3 hosts needed", None, 0, None)
)
HOLDS = replace(
    RUN, id=811, at=ago(42), first_id=790, first_at=ago(672), count=22, action="hold", target=3, reason="hold: enough"
)
FOUND = PoolOverview(
    pool="chat",
    now=NOW,
    seen=Seen(ago(3), LoadSpan(NOW, 120.0, 360, 36_000, 7, 5, 3.0), 40, 4_000, 12.4, 59, 60, 0.431),
    stale_after_s=60.0,
    decision=DECISION,
    failing=None,
    inputs=INPUTS,
    hosts=HostCounts(3, 1, 0),
    usd_per_hour=Decimal("16.4"),
    unpriced=0,
    frame=HOURS,
    past=tuple(LoadSpan(ago(180 * i), 180.0, 540, 54_000, 0, 0, 3.0) for i in range(40, 0, -1)),
    ahead=horizon(INPUTS),
    runs=(RUN, HOLDS),
)


def shown(found: PoolOverview = FOUND, width: int = 80, **changes: Any) -> str:
    """What a pipe gets."""
    console = Console(width=width, record=True, file=None, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(screen(replace(found, **changes), width))
    return capture.get()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_one_waiting_job_is_one() -> None:
    assert " 1 job waits, the oldest for 12 s; " in flat(shown(seen=replace(FOUND.seen, depth=1)))


def test_an_operator_sees_what_is_wanted_and_why() -> None:
    text = shown()
    assert flat(text).startswith(
        "pool chat active, predictive, 2 to 20 hosts Mon 30 Nov 09:10:30 CET"
        " seen 3.00 jobs/s and 300 tokens/s offered within 2 minutes: 7 jobs refused, 5 sent to the paid API"
        " 40 jobs wait, the oldest for 12 s; 59 of 60 slots in use, KV cache 43% full; sample 3 s old"
        " wanted up from 3 to 5 (decision 812, 12 s ago) 4.3 hosts needed not applied yet"
        " hosts 3 ready, 1 requested, 0 draining; 16.40 USD per hour"
        " ahead at 09:10 300 tokens/s (season), "
    )
    assert "at 11:10 1,165 tokens/s (season), 14 hosts, the most until 13:10" in text
    assert "event 'launch', 12:00 to 14:00: 6 hosts" in text
    assert "The season is known until 11:10. After that, the level continues." in flat(text)
    assert "⠒⠒ offered   oo expected   ⠂⠂ capacity: 4 hosts x 100 tokens/s" in text
    decisions = flat(text[text.index("\ndecisions\n") :])
    assert decisions == (
        "decisions 09:10:18 up from 3 to 5, not applied yet (812)"
        " 09:09:48 hold at 3, 22 times since 08:59:18 (790-811) enough"
    )


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_longer_than_the_terminal_or_ends_in_blanks(width: int) -> None:
    lines = shown(width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line.endswith(" ") for line in lines)


def test_stale_samples_are_said_first_and_loudly() -> None:
    assert FOUND.seen is not None
    stale = replace(FOUND, seen=replace(FOUND.seen, at=ago(190), lately=None))
    text = flat(shown(stale))
    assert "seen STALE: the newest sample is 3 m old. Are 'control' and 'beat' running? 40 jobs wait" in text
    assert "sample 3 m old" not in text.replace("newest sample is 3 m old", "")
    console = Console(width=80, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as capture:
        console.print(screen(stale, 80))
    assert "\x1b[1;31mSTALE" in capture.get()


def test_a_pool_of_which_nothing_is_known_says_so() -> None:
    nothing: dict[str, Any] = {"seen": None, "decision": None, "inputs": None, "ahead": None, "past": (), "runs": ()}
    text = shown(**nothing, hosts=HostCounts(), usd_per_hour=None)
    assert flat(text) == (
        "pool chat Mon 30 Nov 09:10:30 CET"
        " seen This pool was never observed. Are 'control' and 'beat' running?"
        " wanted No decision was made yet. Are 'control' and 'beat' running?"
        " hosts 0 ready, 0 requested, 0 draining"
    )


def test_inputs_that_this_version_does_not_read_leave_the_forecast_out() -> None:
    text = shown(inputs=None, ahead=None)
    assert "Another version of the policies wrote its inputs: no forecast." in text
    assert "offered" in text
    assert "expected" not in text


def test_without_the_rate_of_a_host_there_is_no_line_of_capacity() -> None:
    inputs = replace(INPUTS, hosts=PoolHosts(3))
    text = shown(inputs=inputs, ahead=horizon(inputs))
    assert "No hosts can be named ahead: the rate of a host is unknown." in text
    assert "capacity" not in text
    assert "at 09:10 300 tokens/s (season)\n" in text


def test_a_decision_before_the_last_one_that_a_provider_fails_to_carry_out_stays_in_sight() -> None:
    failing = replace(DECISION, id=700, at=ago(900), tries=9, error="The group 'chat' is gone.")
    text = flat(shown(failing=failing))
    assert "decision 700 (08:55:30): not applied after 9 calls of the provider: The group 'chat' is gone." in text
    # It is not said twice of the last one.
    last = replace(DECISION, tries=1, error="Denied.")
    text = flat(shown(decision=last, failing=last))
    assert text.count("not applied after 1 call of the provider: Denied.") == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action": "hold"}, ""),
        ({"mode": "advisory"}, "not carried out: it was made in mode advisory"),
        ({"applied_at": ago(12)}, "applied"),
        ({"applied_at": ago(4), "tries": 1}, "applied after 8 s"),
        (
            {"applied_at": ago(4), "tries": 3, "error": "Busy."},
            "applied after 8 s; of 3 calls of the provider some failed, the last with: Busy.",
        ),
        ({"tries": 2, "error": "Busy."}, "not applied after 2 calls of the provider: Busy."),
        ({}, "not applied yet"),
        ({"at": ago(70)}, "not applied, 0 calls of the provider"),
    ],
)
def test_it_says_what_became_of_a_decision(changes: dict[str, Any], says: str) -> None:
    assert outcome(replace(RUN, **changes), NOW)[0] == says


def test_other_days_are_named() -> None:
    text = shown(runs=(replace(HOLDS, at=ago(42), first_at=ago(2 * 86_400)),))
    assert "22 times since 28 Nov 09:10" in flat(text)


@pytest.mark.parametrize(("height", "has_chart"), [(40, True), (26, True), (20, False)])
def test_a_watched_pool_fits_into_a_low_terminal(monkeypatch: pytest.MonkeyPatch, height: int, has_chart: bool) -> None:
    console = Console(file=StringIO(), width=80, height=height, force_terminal=True)
    monkeypatch.setattr(scale, "out", console)
    fitted = console.render_lines(scale._fitted([FOUND], ""))
    assert len(fitted) <= height
    assert any("tokens/s) ^" in segment.text for line in fitted for segment in line) is has_chart
