"""The cascade of a rule: whether an answer is good enough, and which pool answers next. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.config.rules import RuleSettings, VisibleSignal
from headrace.policies.routing.json_schema import Verdict, verdict

#: Why an answer is not good enough; `logprob`: the model was unsure of it.
Signal = VisibleSignal | Literal["logprob"]
#: Characters at an answer's beginning in which a refusal is sought. Further on, the same words may be its subject.
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
        logprobs: log probabilities of its tokens; None if the engine gave none.
        has_calls: it calls tools, so its text is neither a refusal nor the JSON that was asked for.
    """

    text: str
    is_cut: bool
    response_format: Mapping[str, Any] | None = None
    logprobs: Sequence[float] | None = None
    has_calls: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer is good enough.

    Attributes:
        signal: the first one that calls it bad; None if it is good enough.
        is_unchecked: it passes for the JSON that was asked for because that cannot be checked at a bounded cost.
    """

    signal: Signal | None
    is_unchecked: bool = False


def next_pool(rule: RuleSettings, pool: str) -> str | None:
    """The pool to which a bad answer of this pool sends its job; None after the last one."""
    if not rule.cascade or pool not in rule.pools:
        return None
    after = rule.pools[rule.pools.index(pool) + 1 :]
    return after[0] if after else None


def judge(rule: RuleSettings, answer: JudgedAnswer) -> Judgement:
    """Judge an answer by the rule's signals. Bound: of `json_schema.verdict`, whatever the caller's schema is."""
    if "length" in rule.signals and answer.is_cut:
        return Judgement("length")
    is_unchecked = False
    if not answer.has_calls:
        if "refusal" in rule.signals and _declines(rule, answer.text):
            return Judgement("refusal")
        if "format" in rule.signals:
            found = _format(answer.text, answer.response_format)
            if found == "broken":
                return Judgement("format")
            is_unchecked = found == "unchecked"
    if rule.min_logprob is not None and answer.logprobs:
        mean = sum(answer.logprobs) / len(answer.logprobs)
        return Judgement("logprob" if mean < rule.min_logprob else None, is_unchecked)
    return Judgement(None, is_unchecked)


def _declines(rule: RuleSettings, text: str) -> bool:
    return re.search(rule.refusal_pattern or REFUSAL, text[:REFUSAL_CHARS], re.IGNORECASE) is not None


def _format(text: str, response_format: Mapping[str, Any] | None) -> Verdict:
    """Whether an answer is the JSON that was asked for."""
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return "kept"
    try:
        value = json.loads(text, parse_constant=_no_json)
    except ValueError:
        return "broken"
    except RecursionError:  # It may be JSON, deeper than Python reads it.
        return "unchecked"
    if kind == "json_object":
        return "kept" if isinstance(value, dict) else "broken"
    return verdict(value, response_format.get("json_schema", {}).get("schema", {}))


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
