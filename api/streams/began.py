"""A job as it was accepted, for the first events of its stream. Pure."""

from dataclasses import replace
from decimal import Decimal

from headrace.domain.jobs import Job
from headrace.domain.states import JobState


def as_it_began(job: Job) -> Job:
    """The job as it was accepted, whatever its state now: an early event must not contain later facts."""
    unbilled = replace(job, usd=Decimal(0), price_version=None)
    uncounted = replace(unbilled, output_tokens=None, cached_tokens=None, reasoning_tokens=None)
    unanswered = replace(uncounted, answer=None, logprobs=None, reasoning=None, finish_reason=None, tool_calls=())
    unfailed = replace(unanswered, error_code=None, error_message=None)
    unserved = replace(unfailed, model_served=None, engine=None, attempt=0)
    return replace(unserved, state=JobState.QUEUED, started_at=None, ended_at=None)
