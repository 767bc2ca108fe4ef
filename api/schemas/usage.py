"""`/v1/usage`: what an app used and was charged."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from api.schemas.fields import Answer, Request, UsdOut, refusal
from headrace.domain.apps import USAGE_GROUPS, AppUsage, UsageGroup
from headrace.domain.queues import Lane
from headrace.errors import InvalidRequest

#: The most days, and the most rows, of one answer.
MOST_DAYS = 92
MOST_ROWS = 10_000
#: The days of an answer whose request names no `from`.
DAYS = 30

_GROUP = "|".join(USAGE_GROUPS)


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
    if unknown := [name for name in names if name not in USAGE_GROUPS]:
        raise refusal(f"'{unknown[0][:80]}' is none of {', '.join(USAGE_GROUPS)}; separate several by commas")
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
            description="What to split by, separated by commas: day, model, lane, end_user.",
            json_schema_extra={"pattern": f"^({_GROUP})(,({_GROUP}))*$"},
        ),
    ] = "day"

    @property
    def groups(self) -> tuple[UsageGroup, ...]:
        """What to split by."""
        named = self.group_by.split(",")
        return tuple(group for group in USAGE_GROUPS if group in named)

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
    day: date | None = Field(description="Of UTC, in which the requests ended.")
    model: str | None = Field(description="The one that answered.")
    lane: Lane | None
    end_user: str | None = Field(description="As the requests name it; null also for requests that name none.")


class UsageList(Answer):
    """An app's usage of some days, in the order of its groups."""

    model_config = ConfigDict(serialize_by_alias=True)

    object: Literal["list"] = "list"
    first: date = Field(serialization_alias="from", description="The first day, in UTC.")
    last: date = Field(serialization_alias="to", description="The last day, itself included.")
    group_by: list[UsageGroup]
    data: list[UsageBody]
    total: UsageSum

    @classmethod
    def of(cls, days: tuple[date, date], groups: Sequence[UsageGroup], found: Sequence[AppUsage]) -> Self:
        """The answer for these days, first and last, by these groups."""
        total = UsageSum(
            requests=sum(each.requests for each in found),
            prompt_tokens=sum(each.prompt_tokens for each in found),
            cached_tokens=sum(each.cached_tokens for each in found),
            output_tokens=sum(each.output_tokens for each in found),
            usd=sum((each.usd for each in found), Decimal(0)),
        )
        data = [UsageBody(**asdict(each)) for each in found]
        return cls(first=days[0], last=days[1], group_by=list(groups), data=data, total=total)
