"""`/v1/usage`: what an app used and was charged."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta

from flask import Blueprint, Response

from api.calls import caller, parts
from api.door.refusals import slots_full
from api.routes.operations import describes
from api.routes.requests import listed, query
from api.schemas.reports import MOST_ROWS, UsageList, UsageQuery
from headrace.domain.apps import UsageSplit
from headrace.errors import InvalidRequest
from headrace.store import clock
from headrace.store.money.costs import Period, usage

ROUTES = Blueprint("usage", __name__)


@ROUTES.get("/v1/usage")
@describes("usage", "Read what you used and were charged", UsageList, query=UsageQuery, refusals=(400,))
def read_usage() -> Response:
    """Returns the caller's own requests that ended in these days, summed by the groups that it names."""
    asked = query(UsageQuery)
    by = UsageSplit(asked.groups, asked.keys(parts().settings.costs.label_keys))
    with _slot(), parts().store.begin() as db:
        days = asked.days(clock.now(db).astimezone(UTC).date())
        found = usage(db, caller().id, _period(*days), by, MOST_ROWS + 1)
    if len(found) > MOST_ROWS:
        message = f"Invalid 'group_by': it makes more than {MOST_ROWS:,} rows. Ask for fewer days, or for fewer groups."
        raise InvalidRequest(message, param="group_by")
    return listed(lambda: UsageList.of(days, by, found))


@contextmanager
def _slot() -> Iterator[None]:
    """Hold a slot: a read of months takes seconds of a connection that other apps need. Raises: SlotsFull."""
    slot = parts().usage_slots.take(caller().id)
    if slot is None:
        raise slots_full("usage")
    try:
        yield
    finally:
        slot.release()


def _period(first: date, last: date) -> Period:
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    return Period(since, until)
