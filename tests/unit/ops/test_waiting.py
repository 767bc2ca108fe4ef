"""Why a job waits, in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from ops.waiting import Surroundings, reasons

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AROUND = Surroundings(NOW, ahead=3, workers=2, running=16, slots=16, expected_wait_s=42.0)


def job(**changes: Any) -> SimpleNamespace:
    values = {"state": "queued", "queue": "chat.low", "not_before": None, "attempt": 0, "suspicion": 0}
    values |= {"served_by_job": None}
    return SimpleNamespace(**{**values, "start_by": NOW + timedelta(minutes=5), "started_at": None, **changes})


def test_a_queued_job_waits_for_those_before_it_and_for_a_slot() -> None:
    assert reasons(job(), AROUND) == [
        "3 jobs entered chat.low before it.",
        "All 16 slots of 2 workers are taken.",
        "A job that came now would wait 42 s.",
        "It expires in 300 s unless it starts.",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ahead": 0}, "It is the oldest job in chat.low."),
        ({"workers": 0}, "The pool has no live worker."),
        ({"workers": 1, "slots": 8}, "All 8 slots of 1 worker are taken."),
        ({"running": 10}, "6 of 16 slots are free: its turn, its KV cache or its app's share is to come."),
    ],
)
def test_a_queued_job_s_surroundings_say_why(changes: dict[str, Any], reason: str) -> None:
    assert reason in reasons(job(), replace(AROUND, **changes))


def test_a_job_that_may_have_killed_an_engine_waits_to_run_alone() -> None:
    assert any("runs nothing else" in reason for reason in reasons(job(suspicion=2), AROUND))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"not_before": NOW + timedelta(seconds=90), "attempt": 2}, "Its next try after attempt 2 is due in 90 s."),
        (
            {"not_before": NOW - timedelta(seconds=1)},
            "Its next try is due: it enters chat.low as soon as that has room.",
        ),
        ({}, "It is held back: it waits for its budget or for room in chat.low."),
        ({"served_by_job": UUID(int=7)}, f"It waits for the answer of job_{UUID(int=7).hex}, which is asked the same."),
    ],
)
def test_a_waiting_job_is_not_in_its_queue(changes: dict[str, Any], reason: str) -> None:
    assert reasons(job(state="waiting", **changes), AROUND)[0] == reason


def test_a_started_job_does_not_expire() -> None:
    assert not any("expires" in reason for reason in reasons(job(started_at=NOW), AROUND))


def test_a_job_past_its_start_expires_now() -> None:
    assert reasons(job(start_by=NOW), AROUND)[-1] == "It expires now."


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "cancelled", "expired"])
def test_a_job_that_does_not_wait_has_no_reason(state: str) -> None:
    assert reasons(job(state=state), AROUND) == []
