"""Which answers a worker judges, what it asks the engine for, and where a bad answer sends the job."""

from dataclasses import replace
from typing import Any

import pytest

from headrace.config import PoolSettings
from headrace.config.rules import RuleSettings
from headrace.domain.answers import TokenLogprob
from headrace.domain.attempts import Usage
from headrace.domain.prompts import Sampling
from headrace.domain.prompts.tools import ToolCall
from headrace.domain.queues import Overflow, Route
from tests.unit.workers.running import claims
from workers.engines.base import Generation
from workers.running.cascading import Cascading, Judged, without_judged

POOLS = {
    "fast": PoolSettings(model="small"),
    "chat": PoolSettings(model="large"),
    "paid": PoolSettings(model="gpt-4o", engine="openai"),
}
RULES = {"short": RuleSettings(pools=("fast", "chat", "paid"), cascade=True, escalation_wait_s=7)}
CLAIM = replace(claims.CLAIM, rule="short")
CUT = Generation("An answer that", Usage(5, 8), "length", "small")
TOKEN: TokenLogprob = {"token": "a", "logprob": -3.0, "bytes": [97], "top_logprobs": []}


def cascading(**changes: Any) -> Cascading:
    return Cascading({"short": RULES["short"].model_copy(update=changes)}, POOLS)


def test_a_bad_answer_sends_the_job_to_the_next_pool_s_queue_of_its_lane() -> None:
    to = cascading().judge(CLAIM, CUT).to

    assert to is not None
    assert (to.signal, to.pool, to.model, to.queue, to.route) == ("length", "chat", "large", "chat.low", Route.POOL)
    assert to.reason == "rule 'short': chat, because the answer of fast was cut off"
    assert to.wait_s == 7
    assert cascading().judge(CLAIM, replace(CUT, finish_reason="stop")) == Judged()


def test_the_paid_api_is_reached_by_its_own_queue_and_not_by_a_job_that_must_stay() -> None:
    of_chat = replace(CLAIM, pool="chat", model="large")
    to = cascading().judge(of_chat, CUT).to

    assert to is not None
    assert (to.pool, to.model, to.queue, to.route) == ("paid", "gpt-4o", "overflow.low", Route.OVERFLOW)
    assert cascading().judge(replace(of_chat, overflow=Overflow.NEVER), CUT).to is None
    assert cascading().judge(replace(CLAIM, overflow=Overflow.NEVER), CUT).to is not None


@pytest.mark.parametrize(
    "change",
    [
        {"rule": None},
        {"rule": "gone"},
        {"stream": True},
        {"sampling": Sampling(8, n=2)},
        {"route": Route.OVERFLOW},
        {"pool": "paid"},
        {"pool": "another"},
    ],
    ids=str,
)
def test_what_is_not_judged_is_given_as_it_is(change: dict[str, Any]) -> None:
    claim = replace(CLAIM, **change)
    assert cascading(min_logprob=-1.0).judge(claim, CUT).to is None
    assert cascading(min_logprob=-1.0).asked(claim) is claim


def test_log_probabilities_are_asked_for_only_where_a_rule_needs_them_and_are_not_given() -> None:
    assert cascading().asked(CLAIM) is CLAIM
    judging = cascading(min_logprob=-1.0)
    asked = judging.asked(CLAIM)
    assert asked.sampling == replace(CLAIM.sampling, top_logprobs=0)
    unsure = replace(CUT, finish_reason="stop", logprobs=(TOKEN,))
    to = judging.judge(CLAIM, unsure).to
    assert to is not None
    assert to.signal == "logprob"
    assert without_judged(CLAIM, unsure).logprobs is None


def test_log_probabilities_that_the_caller_wants_are_given() -> None:
    wants = replace(CLAIM, sampling=Sampling(8, top_logprobs=3))
    assert cascading(min_logprob=-1.0).asked(wants) is wants
    answer = replace(CUT, logprobs=(TOKEN,))
    assert without_judged(wants, answer) is answer


def test_a_refusal_beside_a_call_is_none() -> None:
    said = Generation("I'm sorry, but I can't help with that.", Usage(5, 8), "stop", "small")
    cascading = Cascading(RULES, POOLS)
    assert cascading.judge(CLAIM, said).to is not None
    assert cascading.judge(CLAIM, replace(said, tool_calls=(ToolCall("c", "f", "{}"),))).to is None
