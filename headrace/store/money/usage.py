"""What an app used and was charged, by day, model, lane and end user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.apps import USAGE_GROUPS, AppUsage, UsageGroup
from headrace.store.jobs.finding import BILLED
from headrace.tables import jobs, ledger

#: A correction changes the amount and is no request. Wasted attempts are left out: the app does not pay for them.
_CHARGED = (*BILLED, "adjustment")


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until before `until`."""

    since: datetime
    until: datetime


def usage(db: Connection, app_id: UUID, period: Period, groups: Sequence[UsageGroup], limit: int) -> list[AppUsage]:
    """The app's charges of this period by at least one group, at most `limit` rows."""
    return [AppUsage(**row._mapping) for row in db.execute(_select(app_id, period, groups).limit(limit))]


def _select(app_id: UUID, period: Period, groups: Sequence[UsageGroup]) -> sa.Select[Any]:
    # Literals: Postgres does not see that two parameters of a column and its GROUP BY are the same.
    day = sa.cast(sa.func.timezone(sa.literal_column("'UTC'"), ledger.c.at), sa.Date)
    split: Mapping[UsageGroup, Any] = {
        "day": day,
        "model": ledger.c.model,
        "lane": jobs.c.lane,
        "end_user": ledger.c.end_user,
    }
    by = [split[group] for group in USAGE_GROUPS if group in groups]
    sums = (ledger.c.prompt_tokens, ledger.c.cached_tokens, ledger.c.output_tokens, ledger.c.usd)
    source = ledger.outerjoin(jobs, jobs.c.id == ledger.c.job_id) if "lane" in groups else ledger
    return (
        sa.select(
            *((split[group] if group in groups else sa.null()).label(group) for group in USAGE_GROUPS),
            sa.func.count().filter(ledger.c.kind.in_(BILLED)).label("requests"),
            *(sa.func.sum(column).label(column.name) for column in sums),
        )
        .select_from(source)
        .where(
            *(ledger.c.app_id == app_id, ledger.c.at >= period.since, ledger.c.at < period.until),
            ledger.c.kind.in_(_CHARGED),
        )
        .group_by(*by)
        .order_by(*by)
    )
