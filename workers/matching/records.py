"""The records of the apps whose jobs this worker looks up, each read again after a while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from headrace.policies.reuse.record import Record, learned
from headrace.store.reuse import matches

#: How old a record may be, in seconds. To read one takes some tens of milliseconds.
KEEP_S = 15.0
#: The apps and pools whose records are kept.
MOST_RECORDS = 1_000


@dataclass(slots=True)
class Records:
    """What the tries of an app in a pool say of its entries. For one thread.

    Attributes:
        clock: seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[tuple[UUID, str], tuple[float, Record]] = field(default_factory=OrderedDict)

    def read(self, db: Connection, app_id: UUID, pool: str) -> Record:
        """The record of this app in this pool."""
        now = self.clock()
        known = self._known.get((app_id, pool))
        if known is not None and now - known[0] < KEEP_S:
            return known[1]
        tried = matches.tries_of(db, app_id, pool)
        found = Record(learned(tried.entries), tried.rechecks, tried.wrong)
        self._known[app_id, pool] = now, found
        self._known.move_to_end((app_id, pool))
        if len(self._known) > MOST_RECORDS:
            self._known.popitem(last=False)
        return found
