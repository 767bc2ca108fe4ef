"""Messages for refused callers: why there is no place, and when to retry. Pure."""

import math
from datetime import UTC, datetime

from headrace.domain.apps import AppLimits
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Refusal
from headrace.errors import AppLimited, ContextLengthExceeded
from headrace.policies.routing import LatencyGoal

#: The longest Retry-After that clients honour, in seconds. Source: the openai SDK.
RETRY_AFTER_LIMIT_S = 120


def rate_limited(refusal: Refusal, tokens: int, limits: AppLimits) -> AppLimited:
    """The error for an app that has used up its minute; without a Retry-After where the job can never fit the limit."""
    if refusal.reason == "requests_per_minute":
        what = f"This app may make {limits.requests_per_minute} requests a minute, and has made them."
    else:
        what = f"This app may use {limits.tokens_per_minute} tokens a minute; this job may take {tokens}."
    fits = refusal.reason == "requests_per_minute" or tokens <= (limits.tokens_per_minute or 0)
    retry_after_s = whole((refusal.retry_in_ms or 0) / 1000) if fits else None
    if not fits:
        what += " It is too large for that limit: shorten the prompt, or ask for fewer tokens."
    rates_left = refusal.rates_left
    message = f"{what} {advice(retry_after_s)}"
    return AppLimited(message, reason=refusal.reason, retry_after_s=retry_after_s, rates_left=rates_left)


def complaint(
    refusal: Refusal, spec: JobSpec, queue: str, wait_s: float | None, goal: LatencyGoal | None = None
) -> str:
    """Why a queue has no place for this job, in one sentence. Args: goal: its pool's, if that binds the job."""
    match refusal.reason:
        case "tokens":
            return (
                f"Queue {queue} is full: {refusal.backlog_tokens} tokens wait, this job may take "
                f"{spec.kv_tokens} more, and the cap is {refusal.cap_tokens} tokens."
            )
        case "wait":
            expected = "longer" if wait_s is None else f"about {wait_s:.0f} s"
            within = f"{start_within_s(spec, goal):.3g} s"
            if goal is not None and goal.start_within_s < start_within_s(spec):
                within += f" to meet its pool's latency goal of {goal.goal_s:.3g} s"
            return f"A job would wait {expected} in queue {queue}, and must start within {within}."
        case "share":
            return (
                f"Queue {queue} is shared: {refusal.depth} jobs wait, and this app has all of the {refusal.cap_jobs} "
                "places that are its own while others want some too."
            )
        case "token_share":
            return (
                f"Queue {queue} is shared: {refusal.backlog_tokens} tokens wait, this job may take {spec.kv_tokens} "
                f"more, and this app may have {refusal.cap_tokens} tokens there while other apps want room too."
            )
        case "app_jobs":
            return f"This app has as many jobs waiting as it may have: {refusal.cap_jobs}."
    return f"Queue {queue} is full: {refusal.depth} jobs wait and its cap is {refusal.cap_jobs}."


def start_within_s(spec: JobSpec, goal: LatencyGoal | None = None) -> float:
    """Seconds within which the job must start: its `max_wait`, until a sooner deadline, or to meet the pool's goal."""
    within_s = spec.max_wait_s if goal is None else min(spec.max_wait_s, goal.start_within_s)
    if spec.deadline is None:
        return within_s
    return min(within_s, max(0.0, (spec.deadline - datetime.now(UTC)).total_seconds()))


def context_exceeded(limit: int, rest: str, param: str) -> ContextLengthExceeded:
    """The error for a prompt that is too long, with the words that LiteLLM searches its message for, and LangChain's.

    Args: rest: follows the limit in the message's first sentence.
    """
    message = f"This model's maximum context length is {limit} tokens{rest} ({ContextLengthExceeded.code})"
    return ContextLengthExceeded(message, param=param)


def advice(retry_after_s: int | None) -> str:
    """When to retry, in one sentence."""
    return "Do not retry soon." if retry_after_s is None else f"Retry after {retry_after_s} s."


def whole(seconds: float) -> int | None:
    """Seconds as a Retry-After; None when clients would not wait that long."""
    whole = max(1, math.ceil(seconds))
    return whole if whole <= RETRY_AFTER_LIMIT_S else None
