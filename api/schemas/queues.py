"""`/v1/queues`: how full the queues are."""

from typing import Literal

from pydantic import Field

from api.schemas.fields import Answer
from headrace.domain.queues import Lane


class QueueBody(Answer):
    """One queue as it stands."""

    queue: str
    object: Literal["queue"] = "queue"
    pool: str
    lane: Lane
    depth: int = Field(description="Jobs that wait, from their acceptance to their start.")
    depth_cap: int
    backlog_tokens: int = Field(description="Prompts and the most output of all that wait.")
    expected_tokens: int = Field(description="Prompts and the likely output of all that wait, which the pool drains.")
    backlog_cap_tokens: int
    apps: int = Field(description="Apps that have jobs waiting.")
    takes: int = Field(description="The lane's share: of the takes of all lanes together while all have work.")
    max_wait_s: float = Field(description="Within which a job must start, unless it says otherwise.")
    interactive_max_wait_s: float = Field(description="The same for a job whose caller waits or streams.")
    latency_goal_s: float | None = Field(
        description="Of the pool: within which callers who wait or stream are to have the whole answer; null: no goal."
    )
    drain_tokens_per_s: float | None = Field(description="Of the whole pool while it has work; null: not measured yet.")
    expected_wait_s: float | None = Field(
        description="Seconds until a job that is submitted now starts, as fast as the pool drains; null when nobody "
        "can tell."
    )
    workers: int = Field(description="Of the whole pool: those that are alive.")
    running: int = Field(description="Of the whole pool: jobs that run now.")
    slots: int = Field(description="Of the whole pool: jobs that can run at once, on the engines that are ready.")


class QueueList(Answer):
    """Every queue, by pool and lane."""

    object: Literal["list"] = "list"
    data: list[QueueBody]
