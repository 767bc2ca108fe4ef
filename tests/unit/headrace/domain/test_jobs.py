from itertools import pairwise
from uuid import UUID

import pytest

from headrace.domain.answers import LEAST_LOGPROB, alternative
from headrace.domain.ids import new_id, parse_id, show_id
from headrace.domain.prompts import storable
from headrace.domain.queues import Lane
from headrace.domain.states import TERMINAL, TRANSITIONS, JobState, check_transition
from headrace.errors import IllegalTransition, NotFound


def test_every_state_has_a_row_in_the_transition_table() -> None:
    assert set(TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_state_has_no_exit(state: JobState) -> None:
    for target in JobState:
        with pytest.raises(IllegalTransition):
            check_transition(state, target)


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_open_state_leads_to_an_end(state: JobState) -> None:
    assert TRANSITIONS[state] & TERMINAL


def test_expiry_is_only_for_jobs_that_do_not_run() -> None:
    assert JobState.EXPIRED not in TRANSITIONS[JobState.RUNNING]


@pytest.mark.parametrize("prefix", ["job_", "resp_", "chatcmpl-"])
def test_id_reads_back_in_every_spelling(prefix: str) -> None:
    job_id = new_id()

    assert parse_id(show_id(job_id, prefix)) == job_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "job_123",
        "job_" + "g" * 32,
        "batch_" + "0" * 32,
        "0" * 32,
        "job_\0",
        "job_" + "0_" * 16,
        "job_" + "\uff11" * 32,
    ],
)
def test_malformed_id_names_no_job(text: str) -> None:
    with pytest.raises(NotFound):
        parse_id(text)


def test_ids_sort_by_creation() -> None:
    ids = [new_id() for _ in range(100)]

    assert all(isinstance(each, UUID) for each in ids)
    assert all(first < second for first, second in pairwise(ids))


def test_lanes_are_ranked_best_first() -> None:
    assert [lane.priority for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW, Lane.BATCH)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "stored"), [("plain é 😀", "plain é 😀"), ("a\0b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("", "")]
)
def test_text_is_made_storable(text: str, stored: str) -> None:
    assert storable(text) == stored
    stored.encode()


@pytest.mark.parametrize(
    ("computed", "told"),
    [
        (-0.25, -0.25),
        (0.0, 0.0),
        (-1e30, LEAST_LOGPROB),
        *((bad, LEAST_LOGPROB) for bad in map(float, ("nan", "-inf", "inf"))),
    ],
)
def test_log_probability_is_a_number_that_json_has(computed: float, told: float) -> None:
    assert alternative(" é", computed) == {"token": " é", "logprob": told, "bytes": [32, 195, 169]}


def test_token_that_postgres_cannot_hold_is_replaced() -> None:
    assert alternative("a\0\ud800", -1.0) == {
        "token": "a\ufffd\ufffd",
        "logprob": -1.0,
        "bytes": list("a\ufffd\ufffd".encode()),
    }
