"""What `headrace scale` reads of a pool, and whether a decision comes out the same again."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.config import ScalingSettings, Settings
from headrace.domain.fleet import QueueSample, ScalingRecord
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import DemandHistory, Moment, PoolHosts, Season
from headrace.policies.scaling.decisions import VERSION, DecisionInputs, decide, to_json
from headrace.store import Store, clock
from headrace.store.fleet import decisions, observations
from headrace.tables import hosts, queue_rollups
from headrace.tables import queue_samples as samples
from tests.integration.terminals import Terminal

Run = Callable[..., Result]
CHAT = lane_queues("chat")


def inputs_at(now: datetime) -> DecisionInputs:
    """The inputs of a decision to add hosts: 400 tokens/s, and a season that doubles within the hour."""
    moments = (Moment(now - timedelta(seconds=30 * i), 30.0, 120, 12_000, 0, 0, 0, 0, 40, 80) for i in range(20))
    season = Season(600.0, tuple(100.0 + 20.0 * step for step in range(7)))
    found = PoolHosts(4, tokens_per_s=100.0, slots_per_host=20.0)
    return DecisionInputs(DemandHistory(tuple(moments), season), found, ScalingSettings(staffing_beta=0.0), now)


@pytest.fixture
def pool(store: Store) -> int:
    """A pool with an hour of samples, four hosts and a decision; returns the decision's id."""
    with store.begin() as db:
        now = clock.now(db)
        taken = (now - timedelta(seconds=30 * i) for i in range(120))
        load = {"offered": 120, "offered_tokens": 12_000, "running": 40, "slots": 80, "hosts": 4, "refused": 1}
        observations.add_samples(db, [QueueSample(CHAT[1], at, depth=3, oldest_wait_s=2.5, **load) for at in taken])
        for n in range(4):
            lease = {"requested_at": now - timedelta(hours=1), "ordered_at": now, "usd_per_hour": 4.1, "pool": "chat"}
            db.execute(sa.insert(hosts).values(id=f"host-{n}", **lease))
        inputs = inputs_at(now)
        made = decide(inputs.history, inputs.hosts, inputs.policy, inputs.now)
        about: dict[str, Any] = {"action": made.action, "policy": "predictive", "version": VERSION}
        record = ScalingRecord("chat", "active", 4, made.target, made.reason, to_json(inputs), **about)
        return decisions.add(db, record)


def test_a_pool_is_shown_with_what_is_seen_wanted_and_expected(run: Run, pool: int) -> None:
    shown = run("scale", COLUMNS="80")
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.split())
    assert "4.00 jobs/s and 400 tokens/s offered within 2 minutes: 4 jobs refused, 0 sent to the paid API" in text
    assert "3 jobs wait, the oldest for 2 s; 40 of 80 slots in use" in text
    assert f"wanted up from 4 to 5 (decision {pool}, " in text
    assert "hosts 0 ready, 4 requested, 0 draining; 16.40 USD per hour" in text
    assert re.search(r"ahead at \d\d:\d\d 400 tokens/s \(season\), 5 hosts ", text)
    assert "capacity: 4 hosts x 100 tokens/s" in text
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout


def test_all_of_it_is_printed_as_json(run: Run, pool: int) -> None:
    [found] = json.loads(run("scale", "--json").stdout)
    assert (found["pool"], found["is_stale"], found["failing"]) == ("chat", False, None)
    assert (found["seen"]["depth"], found["seen"]["slots"]) == (3, 80)
    assert found["seen"]["lately"]["offered_tokens"] / found["seen"]["lately"]["seconds"] == pytest.approx(400)
    assert (found["decision"]["id"], found["decision"]["target"], "inputs" in found["decision"]) == (pool, 5, False)
    assert found["hosts"] == {"ready": 0, "requested": 4, "draining": 0, "usd_per_hour": "16.400000000", "unpriced": 0}
    assert found["host_tokens_per_s"] == 100.0
    assert found["past"][-1]["offered_tokens"] > 0
    first, last = found["ahead"]["points"][0], found["ahead"]["points"][-1]
    assert (first["tokens_per_s"], last["tokens_per_s"]) == (400.0, pytest.approx(872, abs=5))
    assert [run["id"] for run in found["decisions"]] == [pool]


def test_past_days_tell_more_hours_than_a_decision_needs(run: Run, pool: int, store: Store) -> None:
    [before] = json.loads(run("scale", "--json").stdout)
    hour = timedelta(hours=1)
    with store.begin() as db:
        today = clock.now(db).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # The hours of nine days, weekends among them; each hour of a day has 10 % more than the one before.
        days = [{"at": today - n * hour, "offered_tokens": int(1e6 * 1.1 ** (-n % 24))} for n in range(1, 9 * 24 + 1)]
        zeros = {column.name: 0 for column in queue_rollups.c if not column.nullable}
        usual = {**zeros, "queue": CHAT[1], "span_s": 3600, "samples": 720, "slots": 80, "hosts": 4}
        db.execute(sa.insert(queue_rollups), [{**usual, **day} for day in days])
    [found] = json.loads(run("scale", "--json").stdout)

    def known_s(overview: dict[str, Any]) -> float:
        first = overview["ahead"]["points"][0]["at"]
        until = datetime.fromisoformat(overview["ahead"]["season_until"])
        return (until - datetime.fromisoformat(first)).total_seconds()

    assert (known_s(before), known_s(found)) == (3600, 14_400)
    assert "The season is known until" not in run("scale", COLUMNS="200").stdout


def test_old_samples_are_said_loudly(run: Run, pool: int, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.delete(samples).where(samples.c.at > sa.func.now() - timedelta(minutes=10)))
    shown = run("scale", COLUMNS="80")
    assert "STALE: the newest sample is 10 m old." in shown.stdout
    assert json.loads(run("scale", "--json").stdout)[0]["is_stale"]


def test_without_anything_it_says_what_is_missing(run: Run) -> None:
    shown = run("scale")
    assert shown.exit_code == 0, shown.output
    assert "This pool was never observed." in shown.stdout
    assert "No decision was made yet." in shown.stdout
    [found] = json.loads(run("scale", "--json").stdout)
    assert (found["seen"], found["decision"], found["ahead"], found["is_stale"]) == (None, None, None, True)


def test_inputs_of_another_version_leave_the_rest_in_place(run: Run, pool: int, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE decisions SET inputs = inputs - 'now'"))
    shown = run("scale")
    assert "Another version of the policies wrote its inputs: no forecast." in shown.stdout
    assert "3 jobs wait" in shown.stdout


def test_options_that_do_not_fit_are_explained(run: Run) -> None:
    assert "There is no pool 'nope' with hosts of its own" in run("scale", "--pool", "nope").output
    assert "--watch and --json exclude each other." in run("scale", "--watch", "--json").output
    assert "--watch needs a terminal" in run("scale", "--watch").output


@pytest.fixture
def terminal(store: Store, settings: Settings) -> Iterator[Terminal]:
    """`headrace scale --watch`."""
    opened = Terminal(["scale", "--watch"], {"DATABASE_URL": settings.database_url})
    yield opened
    opened.close()


def test_a_watcher_sees_changes_in_place_and_leaves_with_ctrl_c(terminal: Terminal, pool: int, store: Store) -> None:
    terminal.read_until("3 jobs wait")
    with store.begin() as db:
        at = clock.now(db)
        observations.add_samples(db, [QueueSample(CHAT[1], at, depth=77, slots=80)])
    terminal.read_until("77 jobs wait")
    assert terminal.press(b"\x03") == 0
    # The screen that it drew on is gone, the last one stays, and the cursor is back.
    assert "\x1b[?1049l" in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert "77 jobs wait" in terminal.text[terminal.text.rindex("\x1b[?1049l") :]
    assert "Aborted" not in terminal.text


def test_a_watcher_that_is_terminated_restores_the_terminal(terminal: Terminal, pool: int) -> None:
    terminal.read_until("3 jobs wait")
    assert terminal.send(signal.SIGTERM) == 0
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


NOW = datetime(2026, 11, 27, 9, 30, 0, 123456, UTC)


@pytest.fixture
def decided(store: Store) -> int:
    """The id of a decision to add hosts."""
    moments = tuple(
        Moment(NOW - timedelta(seconds=5 * n), 5.0, 3, 1000 + n, 0, 0, 140, 9000, 16, 16) for n in range(150)
    )
    inputs = DecisionInputs(DemandHistory(moments), PoolHosts(2), ScalingSettings(policy="reactive"), NOW)
    made = decide(inputs.history, inputs.hosts, inputs.policy, inputs.now)
    values: dict[str, Any] = {"action": made.action, "need": made.need, "spare_need": made.spare_need}
    values |= {"version": VERSION, "policy": "reactive"}
    with store.begin() as db:
        return decisions.add(
            db, ScalingRecord("chat", "active", 2, made.target, made.reason, to_json(inputs), **values)
        )


def test_a_decision_is_the_same_again(run: Run, decided: int) -> None:
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 0, shown.output
    first, last = shown.stdout.splitlines()
    assert first.startswith(f"Decision {decided} of pool chat: reactive, up from 2 to 4: ")
    assert last == "Computed again, it is the same."
    assert json.loads(run("scale", "replay", str(decided), "--json").stdout)["is_same"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("target = 7", "  target: was 7, is now 4"),
        ("reason = 'no reason'", "  reason: was no reason, is now "),
        ("inputs = jsonb_set(inputs, '{policy,up_step}', '3')", "  target: was 4, is now 5"),
        ("version = 0", f"Version 0 of the policies made it; this is version {VERSION}."),
    ],
)
def test_a_row_that_its_inputs_do_not_explain_is_an_error(
    run: Run, decided: int, store: Store, change: str, line: str
) -> None:
    with store.begin() as db:
        db.execute(sa.text(f"UPDATE decisions SET {change}"))
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 1
    assert line in shown.stdout


def test_inputs_of_another_shape_and_an_unknown_id_are_explained(run: Run, decided: int, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE decisions SET inputs = inputs - 'now'"))
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 1
    assert f"Decision {decided} cannot be computed again" in shown.output
    assert "No decision with id 999" in run("scale", "replay", "999").output
    assert run("scale", "replay", str(10**22)).exit_code == 2
