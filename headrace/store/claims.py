"""A claim: what a worker knows of a job that it may run, and what every write about it is fenced by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from headrace.domain.jobs import Lane, Message, Overflow, Route, Sampling

#: What a claim has of its job as it is there.
_AS_STORED = (
    *("attempt", "enqueue_no", "worker_id", "app_id", "end_user", "pool", "max_cost_usd", "prompt_tokens"),
    *("start_by", "finish_by", "stream", "suspicion", "adapter"),
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to one attempt of one job: the fence of everything it writes about it.

    Attributes:
        reserved_usd: set aside in the budgets for its call to the paid API.
        enqueue_no: of the message it was claimed by. It tells apart, and orders, the claims of one job, also where
            `attempt` does not: an attempt that is handed back is not counted.
        stream: True when the job's tokens are to be published while they are made.
    """

    job_id: UUID
    attempt: int
    enqueue_no: int
    worker_id: UUID
    app_id: UUID
    end_user: str | None
    lane: Lane
    pool: str
    model: str
    overflow: Overflow
    max_cost_usd: Decimal | None
    prompt_tokens: int
    messages: tuple[Message, ...]
    sampling: Sampling
    start_by: datetime
    finish_by: datetime | None
    has_webhook: bool
    stream: bool
    suspicion: int
    route: Route
    adapter: str | None = None
    reserved_usd: Decimal = Decimal(0)

    @property
    def request_id(self) -> str:
        """What the engine calls this attempt."""
        return f"{self.job_id.hex}.{self.attempt}"


def claim_of(row: Row[Any]) -> Claim:
    """The claim in a row of `attempts.claim_all`."""
    return Claim(
        **{name: getattr(row, name) for name in _AS_STORED},
        job_id=row.id,
        lane=Lane(row.lane),
        model=row.model_requested,
        overflow=Overflow(row.overflow),
        messages=tuple(Message(**message) for message in row.messages),
        sampling=sampling_of(row.sampling),
        has_webhook=row.webhook_url is not None,
        route=Route(row.route),
    )


def sampling_of(stored: Mapping[str, Any]) -> Sampling:
    """Read what `job_texts` keeps of how to decode."""
    return Sampling(**{**stored, "stop": tuple(stored.get("stop", ()))})
