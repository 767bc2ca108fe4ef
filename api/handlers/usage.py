"""`/v1/usage`: what the calling app used and was charged."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta

from api.call import Call, Reply
from api.deps import WebDeps
from api.handlers.operation import Operation
from api.handlers.submitting import query, reply_of
from api.schemas.usage import MOST_ROWS, UsageList, UsageQuery
from headrace.domain.apps import App
from headrace.errors import InvalidRequest, SlotsFull
from headrace.store import clock
from headrace.store.money.usage import Period, usage


def read(web: WebDeps, call: Call) -> Reply:
    """The caller's own requests that ended in these days, summed by the groups that it names."""
    asked = query(UsageQuery, call)
    with _slot(web, call.app), web.store.begin() as db:
        days = asked.days(clock.now(db).astimezone(UTC).date())
        found = usage(db, call.app.id, _period(*days), asked.groups, MOST_ROWS + 1)
    if len(found) > MOST_ROWS:
        message = f"Invalid 'group_by': it makes more than {MOST_ROWS:,} rows. Ask for fewer days, or for fewer groups."
        raise InvalidRequest(message, param="group_by")
    return reply_of(UsageList.of(days, asked.groups, found))


@contextmanager
def _slot(web: WebDeps, app: App) -> Iterator[None]:
    """Hold a slot: a read of months takes seconds of a connection that other apps need. Raises: SlotsFull."""
    slot = web.usage_slots.take(app.id)
    if slot is None:
        message = "This server reads as much usage at once as it may for this app. Try again."
        raise SlotsFull(message, reason="usage_slots", retry_after_s=1)
    try:
        yield
    finally:
        slot.release()


def _period(first: date, last: date) -> Period:
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    return Period(since, until)


OPERATIONS = (
    Operation(
        *("get", "/v1/usage", read, "usage", "Read what you used and were charged", UsageList),
        query=UsageQuery,
        refusals=(400,),
    ),
)
