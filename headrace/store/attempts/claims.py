"""Claims: what a worker knows about a job that it may run. A claim fences every write about the job."""

from typing import Any

from headrace.domain.attempts import Claim
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import Lane, Overflow, Route
from headrace.errors import PayloadUnreadable

#: Fields that a claim copies unchanged from the job's row.
_AS_STORED = (
    *("attempt", "enqueue_no", "worker_id", "app_id", "end_user", "pool", "max_cost_usd", "prompt_tokens"),
    *("start_by", "finish_by", "stream", "suspicion", "adapter", "rule", "stand_by", "shadow_of"),
)


def claim_of(row: Any) -> Claim:
    """The claim in a row of `attempts.claim_all`; also of a job whose prompt this process cannot read."""
    messages, sampling, unread = _payload(row)
    return Claim(
        **{name: getattr(row, name) for name in _AS_STORED},
        job_id=row.id,
        lane=Lane(row.lane),
        model=row.model_requested,
        overflow=Overflow(row.overflow),
        messages=messages,
        sampling=sampling,
        has_webhook=row.webhook_url is not None,
        route=Route(row.route),
        unread=unread,
    )


def _payload(row: Any) -> tuple[tuple[Message, ...], Sampling, PayloadUnreadable | None]:
    try:
        return *read_payload(row.messages, row.sampling), None
    except PayloadUnreadable as error:
        return (), Sampling(max_tokens=1), error
