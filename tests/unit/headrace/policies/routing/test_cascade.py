"""When an answer is bad enough for the next pool, and which pool that is."""

from dataclasses import replace
from typing import Any

import pytest

from headrace.config.rules import RuleSettings
from headrace.policies.routing.cascade import REFUSAL_CHARS, JudgedAnswer, Judgement, Signal, judge, next_pool

RULE = RuleSettings(pools=("small", "middle", "large"), cascade=True)
GOOD = JudgedAnswer("The sky is blue because of Rayleigh scattering.", is_cut=False)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
AS_OBJECT = {"type": "json_object"}


def signal(rule: RuleSettings, answer: JudgedAnswer) -> Signal | None:
    return judge(rule, answer).signal


def rule(**changes: Any) -> RuleSettings:
    return RULE.model_copy(update=changes)


def test_a_bad_answer_goes_to_the_next_pool_of_the_rule_and_the_last_one_s_stays() -> None:
    assert [next_pool(RULE, pool) for pool in ("small", "middle", "large", "another")] == [
        "middle",
        "large",
        None,
        None,
    ]
    assert next_pool(rule(cascade=False), "small") is None


def test_a_good_answer_shows_no_signal() -> None:
    assert signal(rule(min_logprob=-1.0), replace(GOOD, logprobs=[-0.5, -1.4])) is None
    assert signal(RULE, replace(GOOD, response_format={"type": "text"})) is None


def test_an_answer_that_was_cut_off_is_bad_unless_the_rule_leaves_that_out() -> None:
    assert signal(RULE, replace(GOOD, is_cut=True)) == "length"
    assert signal(rule(signals=("refusal",)), replace(GOOD, is_cut=True)) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I can\u2019t do that.",
        "I am afraid I cannot share this.",
        "I cannot provide medical advice.",
        "I won't answer this.",
        "Hello. I am unable to open links.",
        "As an AI language model, I have no opinion.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Ich kann Ihnen leider nicht weiterhelfen.",
    ],
)
def test_answers_that_decline_are_bad(text: str) -> None:
    assert signal(RULE, replace(GOOD, text=text)) == "refusal"
    assert signal(rule(signals=("length",)), replace(GOOD, text=text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that your parcel is late. It arrives tomorrow.",
        "I can help with that: press the red button.",
        "She said: no. As an AIRBUS pilot, he agreed.",
        "Ich kann das gut verstehen.",
        "The clerk answers." + " word" * REFUSAL_CHARS + " I cannot help you, he says.",
    ],
)
def test_other_answers_with_some_of_these_words_are_not(text: str) -> None:
    assert signal(RULE, replace(GOOD, text=text)) is None


def test_a_rule_may_have_a_pattern_of_its_own() -> None:
    own = rule(refusal_pattern="^no comment")
    assert signal(own, replace(GOOD, text="No comment, sir.")) == "refusal"
    assert signal(own, replace(GOOD, text="I cannot help with that.")) is None


@pytest.mark.parametrize(
    ("response_format", "text", "found"),
    [
        (AS_OBJECT, '{"a": 1}', None),
        (AS_OBJECT, "[1]", "format"),
        (AS_OBJECT, '{"a": ', "format"),
        (AS_OBJECT, "", "format"),
        (AS_OBJECT, '{"a": NaN}', "format"),
        (AS_SCHEMA, '{"n": 1}', None),
        (AS_SCHEMA, '{"n": "one"}', "format"),
        (AS_SCHEMA, "{}", "format"),
        (AS_SCHEMA, "Sure! Here it is: {}", "format"),
        ({"type": "json_schema"}, "[]", None),
    ],
)
def test_json_that_is_not_what_was_asked_for_is_bad(
    response_format: dict[str, Any], text: str, found: str | None
) -> None:
    answer = JudgedAnswer(text, is_cut=False, response_format=response_format)
    assert signal(RULE, answer) == found
    assert signal(rule(signals=()), answer) is None


@pytest.mark.parametrize(
    ("response_format", "text"),
    [
        ({"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(?=a)"}}}, "1"),
        (AS_OBJECT, "[" * 100_000),
        (AS_SCHEMA, '{"n":' * 100_000),
    ],
)
def test_json_that_cannot_be_checked_passes_and_is_counted(response_format: dict[str, Any], text: str) -> None:
    answer = JudgedAnswer(text, is_cut=False, response_format=response_format)
    assert judge(RULE, answer) == Judgement(None, is_unchecked=True)
    assert judge(rule(signals=("refusal",)), answer) == Judgement(None)
    assert judge(rule(min_logprob=-1.0), replace(answer, logprobs=[-9.0])) == Judgement("logprob", is_unchecked=True)


def test_an_answer_of_which_the_model_was_unsure_is_bad() -> None:
    sure = rule(min_logprob=-1.0)
    assert signal(sure, replace(GOOD, logprobs=[-0.5, -1.6])) == "logprob"
    assert signal(sure, replace(GOOD, logprobs=[-0.5, -1.5])) is None, "the mean decides"
    assert signal(sure, replace(GOOD, logprobs=[])) is None, "an answer without tokens"
    assert signal(RULE, replace(GOOD, logprobs=[-9.0])) is None, "no rule without a bound judges it"


def test_the_first_signal_is_the_one_that_counts() -> None:
    bad = JudgedAnswer("I cannot help", is_cut=True, response_format=AS_OBJECT, logprobs=[-9.0])
    assert signal(rule(min_logprob=-1.0), bad) == "length"
    assert signal(rule(min_logprob=-1.0), replace(bad, is_cut=False)) == "refusal"


def test_an_answer_that_calls_tools_neither_declines_nor_lacks_a_format() -> None:
    sorry = replace(GOOD, text="I'm sorry, but I can't help with that.", response_format=AS_OBJECT)
    assert signal(RULE, sorry) == "refusal"
    assert signal(rule(signals=("format",)), sorry) == "format"
    called = replace(sorry, has_calls=True)
    assert signal(RULE, called) is None
    assert signal(RULE, replace(called, is_cut=True)) == "length"
    assert signal(rule(min_logprob=-1.0), replace(called, logprobs=[-3.0])) == "logprob"
