"""`/v1/models`, `/v1/queues`, `/v1/usage`, `/healthz`, `/readyz` and `/version`."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from api.schemas.fields import Answer, Request, Unserved, UsdOut, WorkerIn, refusal
from headrace.domain.apps import USAGE_GROUPS, AppUsage, UsageGroup, UsageSplit
from headrace.domain.queues import Lane
from headrace.errors import InvalidRequest


class ModelBody(Answer):
    """One model. `created` says nothing here: a model is there since its pool is."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "headrace"


class ModelList(Answer):
    """Every model, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


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
        description="Seconds within which callers who wait or stream should have the whole answer; null: no goal."
    )
    drain_tokens_per_s: float | None = Field(
        description="Tokens a second of the whole pool while it has work; null: unmeasured."
    )
    expected_wait_s: float | None = Field(
        description="Seconds until a job that is submitted now starts, as fast as the pool drains; null while it is "
        "unknown."
    )
    reason: Unserved
    worker_in_s: WorkerIn
    workers: int = Field(description="Workers of the whole pool that are alive.")
    running: int = Field(description="Jobs that run in the whole pool now.")
    slots: int = Field(description="Jobs that can run at once in the whole pool, on the engines that are ready.")


class QueueList(Answer):
    """Every queue, by pool and lane."""

    object: Literal["list"] = "list"
    data: list[QueueBody]


#: The most days, and the most rows, of one answer.
MOST_DAYS = 92
MOST_ROWS = 10_000
#: The days of an answer whose request names no `from`.
DAYS = 30

#: What stands before a key of metadata in `group_by`.
_METADATA = "metadata."
_GROUP = "|".join((*USAGE_GROUPS, r"metadata\.[A-Za-z0-9_-]{1,64}"))


def _day(value: Any) -> Any:
    try:
        if not isinstance(value, str) or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError
        day = date.fromisoformat(value)
    except ValueError:
        raise refusal("Input should be a day of UTC, such as 2026-11-27") from None
    if not 2000 <= day.year < 9999:
        raise refusal("The day is out of range")
    return day


def _groups(value: str) -> str:
    names = value.split(",")
    if unknown := [name for name in names if not re.fullmatch(_GROUP, name)]:
        known = ", ".join((*USAGE_GROUPS, f"{_METADATA}KEY"))
        raise refusal(f"'{unknown[0][:80]}' is none of {known}; separate several by commas")
    if len(set(names)) < len(names):
        raise refusal("it names a group twice")
    return value


Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date)]


class UsageQuery(Request):
    """The query string of `/v1/usage`."""

    since: Day | None = Field(
        None, alias="from", description=f"The first day, in UTC; by default the last {DAYS} days are answered."
    )
    to: Day | None = Field(None, description="The last day, itself included; by default today.")
    group_by: Annotated[
        str,
        AfterValidator(_groups),
        Field(
            description="What to split by, separated by commas: day, model, lane, end_user, and metadata.KEY for a key "
            "of metadata that the operator has chosen.",
            json_schema_extra={"pattern": f"^({_GROUP})(,({_GROUP}))*$"},
        ),
    ] = "day"

    @property
    def groups(self) -> tuple[UsageGroup, ...]:
        """What to split by."""
        named = self.group_by.split(",")
        return tuple(group for group in USAGE_GROUPS if group in named)

    def keys(self, known: Sequence[str]) -> tuple[str, ...]:
        """The keys of metadata to split by. Args: known: that may be named. Raises: InvalidRequest for another one."""
        keys = tuple(name.removeprefix(_METADATA) for name in self.group_by.split(",") if name.startswith(_METADATA))
        if unknown := [key for key in keys if key not in known]:
            named = f"It is kept by {', '.join(known)}" if known else "The operator has chosen no key"
            message = f"Invalid 'group_by': usage is not kept by the key '{unknown[0]}' of metadata. {named}."
            raise InvalidRequest(message, param="group_by")
        return keys

    def days(self, today: date) -> tuple[date, date]:
        """The first and the last day. Raises: InvalidRequest for more than `MOST_DAYS`, or for none."""
        last = self.to or today
        first = self.since or last - timedelta(days=DAYS - 1)
        if first > last:
            raise InvalidRequest(f"Invalid 'from': {first} is after {last}, the last day.", param="from")
        count = (last - first).days + 1
        if count > MOST_DAYS:
            message = f"Invalid 'from': {first} to {last} are {count} days. Ask for at most {MOST_DAYS} at once."
            raise InvalidRequest(message, param="from")
        return first, last


class UsageSum(Answer):
    """What some requests used, and what the app is charged for them."""

    requests: int
    prompt_tokens: int
    cached_tokens: int = Field(description="Part of prompt_tokens.")
    output_tokens: int
    usd: UsdOut = Field(description="What the app is charged. It pays for no failed attempt.")


class UsageBody(UsageSum):
    """One group of requests. What `group_by` does not name is null."""

    object: Literal["usage"] = "usage"
    day: date | None = Field(description="The day in UTC in which the requests ended.")
    model: str | None = Field(description="The one that answered.")
    lane: Lane | None
    end_user: str | None = Field(description="As the requests name it; null also for requests that name none.")
    metadata: dict[str, str | None] = Field(
        description="By key that `group_by` names, the first 64 characters of its value; null for requests without."
    )


class UsageList(Answer):
    """An app's usage of some days, in the order of its groups."""

    model_config = ConfigDict(serialize_by_alias=True)

    object: Literal["list"] = "list"
    first: date = Field(serialization_alias="from", description="The first day, in UTC.")
    last: date = Field(serialization_alias="to", description="The last day, itself included.")
    group_by: list[str]
    data: list[UsageBody]
    total: UsageSum

    @classmethod
    def of(cls, days: tuple[date, date], by: UsageSplit, found: Sequence[AppUsage]) -> Self:
        """The answer for these days, first and last, split as asked."""
        total = UsageSum(
            requests=sum(each.requests for each in found),
            prompt_tokens=sum(each.prompt_tokens for each in found),
            cached_tokens=sum(each.cached_tokens for each in found),
            output_tokens=sum(each.output_tokens for each in found),
            usd=sum((each.usd for each in found), Decimal(0)),
        )
        data = [UsageBody(**asdict(each)) for each in found]
        groups = [*by.groups, *(f"{_METADATA}{key}" for key in by.keys)]
        return cls(first=days[0], last=days[1], group_by=groups, data=data, total=total)


class Health(Answer):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Version(Answer):
    """The release of Headrace that answers."""

    version: str


class Readiness(Answer):
    """Whether the process can serve."""

    status: Literal["ready", "unavailable"]
    failures: dict[str, str] = Field(default_factory=dict, description="What fails, by part; empty when ready.")
    warnings: dict[str, str] = Field(
        default_factory=dict, description="What is shut on purpose, or too old, and what mends it."
    )
