"""The cascade of a rule: whether an answer is good enough, and which pool answers next. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.config.rules import RuleSettings, VisibleSignal
from headrace.policies.routing.json_schema import violation

#: Why an answer is not good enough; `logprob`: the model was unsure of it.
Signal = VisibleSignal | Literal["logprob"]
#: A refusal is sought in so many characters at an answer's beginning. Further on the same words may be its subject.
REFUSAL_CHARS = 200
#: How answers begin that decline, in English and German.
REFUSAL = (
    r"\bI(?:['\u2019]m| am) (?:sorry|afraid),? (?:but )?I (?:can|am|['\u2019]m)"
    r"|\bI(?:['\u2019]m| am) (?:unable|not able) to\b"
    r"|\bI (?:can(?:no|['\u2019])t|won['\u2019]t) (?:help|assist|answer|provide|comply|do that|fulfil)"
    r"|\bas an AI\b"
    r"|\bes tut mir leid, (?:aber )?(?:ich|das) kann"
    r"|\bich kann (?:dir|ihnen|das|dabei) (?:leider )?(?:dabei )?nicht\b"
)

#: What each signal says of an answer, in a job's `route_reason`.
SAID: Mapping[Signal, str] = {
    "length": "was cut off",
    "refusal": "declined",
    "format": "was not the JSON that was asked for",
    "logprob": "was unsure",
}


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """What a cascade sees of an answer.

    Attributes:
        is_cut: it reached `max_tokens`.
        response_format: as the job asked for it.
        logprobs: of its tokens; None if the engine gave none.
        has_calls: it calls tools, so its text is neither a refusal nor the JSON that was asked for.
    """

    text: str
    is_cut: bool
    response_format: Mapping[str, Any] | None = None
    logprobs: Sequence[float] | None = None
    has_calls: bool = False


def next_pool(rule: RuleSettings, pool: str) -> str | None:
    """The pool to which a bad answer of this pool sends its job; None after the last one."""
    if not rule.cascade or pool not in rule.pools:
        return None
    after = rule.pools[rule.pools.index(pool) + 1 :]
    return after[0] if after else None


def signal(rule: RuleSettings, answer: JudgedAnswer) -> Signal | None:
    """The first signal that calls the answer bad; None if it is good enough."""
    if "length" in rule.signals and answer.is_cut:
        return "length"
    if not answer.has_calls and (said := _said_badly(rule, answer)):
        return said
    if rule.min_logprob is not None and answer.logprobs:
        mean = sum(answer.logprobs) / len(answer.logprobs)
        return "logprob" if mean < rule.min_logprob else None
    return None


def _said_badly(rule: RuleSettings, answer: JudgedAnswer) -> Signal | None:
    pattern = rule.refusal_pattern or REFUSAL
    if "refusal" in rule.signals and re.search(pattern, answer.text[:REFUSAL_CHARS], re.IGNORECASE):
        return "refusal"
    if "format" in rule.signals and not _has_format(answer.text, answer.response_format):
        return "format"
    return None


def _has_format(text: str, response_format: Mapping[str, Any] | None) -> bool:
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return True
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if kind == "json_object":
        return isinstance(value, dict)
    schema = response_format.get("json_schema", {}).get("schema", {})
    return violation(value, schema) is None
