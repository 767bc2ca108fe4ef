"""Claims: what a worker knows about a job that it may run. A claim fences every write about the job."""

from typing import Any

from headrace.domain.attempts import Claim
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane, Overflow, Route
from headrace.store.jobs.texts import sampling_of

#: Fields that a claim copies unchanged from the job's row.
_AS_STORED = (
    *("attempt", "enqueue_no", "worker_id", "app_id", "end_user", "pool", "max_cost_usd", "prompt_tokens"),
    *("start_by", "finish_by", "stream", "suspicion", "adapter", "rule", "stand_by", "shadow_of"),
)


def claim_of(row: Any) -> Claim:
    """The claim in a row of `attempts.claim_all`."""
    return Claim(
        **{name: getattr(row, name) for name in _AS_STORED},
        job_id=row.id,
        lane=Lane(row.lane),
        model=row.model_requested,
        overflow=Overflow(row.overflow),
        messages=tuple(map(Message.of, row.messages)),
        sampling=sampling_of(row.sampling),
        has_webhook=row.webhook_url is not None,
        route=Route(row.route),
    )
