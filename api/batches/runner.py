"""The sweeps that move on the batches that this process has leased. Another process takes over those of a dead one."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from api.batches.ending import end, give_back_lost, settle
from api.batches.feeding import Feeder
from api.batches.gathering import Gatherer
from api.batches.reading import read
from api.deps import WebDeps
from headrace.domain.batches import Batch, BatchState
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.store import batches
from headrace.sweeper import Sweep

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: How often this process looks for new batches, and renews its leases, in seconds.
LEASE_EVERY_S = 1.0
#: How often it looks for room. While it finds some, it goes on at once, for `FEED_FOR_S` at most.
FEED_EVERY_S = 0.1
FEED_FOR_S = 1.0
SETTLE_EVERY_S = 0.25
GATHER_EVERY_S = 5.0
LOST_EVERY_S = 5.0


class Runner:
    """The sweeps of one process."""

    def __init__(self, web: WebDeps) -> None:
        self._web, self._id = web, new_id()
        self._mine: Sequence[Batch] = ()
        #: How often the file of each new batch was begun.
        self._tries = Counter[UUID]()
        self._gatherer = Gatherer(web)
        self._feeder = Feeder(web, leaves=self._gatherer.takes_all)

    def sweeps(self) -> list[Sweep]:
        """All of them, with their intervals."""
        return [
            Sweep("lease_batches", LEASE_EVERY_S, self.lease),
            Sweep("read_batches", LEASE_EVERY_S, self.read),
            Sweep("feed_batches", FEED_EVERY_S, self.feed),
            Sweep("gather_provider_batches", GATHER_EVERY_S, self.gather),
            Sweep("settle_lines", SETTLE_EVERY_S, self.settle, batch=batches.SETTLE_ROWS),
            Sweep("give_back_lines", LOST_EVERY_S, self.give_back_lost),
            Sweep("end_batches", LEASE_EVERY_S, self.end),
        ]

    def close(self) -> None:
        """Give the leases up. Lines that are being submitted are submitted."""
        self._feeder.close()
        self._gatherer.close()
        try:
            with self._web.store.begin() as db:
                batches.release(db, self._id)
        except StoreUnavailable as error:
            log.warning("batches_not_released", extra={"error": str(error)})

    def lease(self) -> int:
        """Renew the leases, and take over batches that no process moves on. Returns: how many there are."""
        with self._web.store.begin() as db:
            self._mine = batches.lease(db, self._id, self._web.settings.batches.lease_s)
        return len(self._mine)

    def read(self) -> int:
        """Read the files of new batches, one of each app: an app with many delays no other. Returns: how many."""
        fresh, chosen = self._in(BatchState.VALIDATING), dict[UUID, Batch]()
        self._tries = Counter({batch.id: self._tries[batch.id] for batch in fresh})
        for batch in sorted(fresh, key=lambda each: (self._tries[each.id], each.id)):
            chosen.setdefault(batch.app_id, batch)
        self._tries.update(batch.id for batch in chosen.values())
        return len(self._each(lambda batch: read(self._web, self._id, batch), list(chosen.values())))

    def feed(self) -> int:
        """Submit lines. Returns: how many were accepted."""
        until, accepted = time.monotonic() + FEED_FOR_S, 0
        while now := self._feeder.feed(self._in(BatchState.IN_PROGRESS)):
            accepted += now
            if time.monotonic() > until:
                break
        return accepted

    def gather(self) -> int:
        """Choose lines for the provider's batch tier. Returns: how many."""
        return self._gatherer.gather(self._in(BatchState.IN_PROGRESS))

    def settle(self) -> int:
        """Note the ends of lines, of batches in which some have ended. Returns: the most of one batch."""
        running = self._in(*_RUNNING)
        found = self._among(batches.with_ended_jobs, running)
        due = [batch for batch in running if batch.id in found or batch.is_ending]
        return max(self._each(lambda batch: settle(self._web, batch), due), default=0)

    def give_back_lost(self) -> int:
        """Let lines whose submit was cut off be submitted again. Returns: how many."""
        return sum(self._each(lambda batch: give_back_lost(self._web, batch), self._in(*_RUNNING)))

    def end(self) -> int:
        """End batches whose lines have all ended. Returns: how many."""
        running = self._in(*_RUNNING, BatchState.FINALIZING)
        found = self._among(batches.with_all_ended, running)
        return sum(self._each(lambda batch: end(self._web, batch), [each for each in running if each.id in found]))

    def _among(self, which: Callable[[Connection, Sequence[UUID]], set[UUID]], running: Sequence[Batch]) -> set[UUID]:
        """Those of these batches in which there is something to do: one statement for all, and none without a batch."""
        if not running:
            return set()
        with self._web.store.autocommit() as db:
            return which(db, [batch.id for batch in running])

    @staticmethod
    def _each(step: Callable[[Batch], Result], mine: Sequence[Batch]) -> list[Result]:
        """Take a step with each of these batches. One that fails does not hold up the others.

        Raises: the first error, once all have been tried.
        """
        done, failed = list[Result](), list[Exception]()
        for batch in mine:
            try:
                done.append(step(batch))
            except Exception as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return done

    def _in(self, *states: BatchState) -> list[Batch]:
        return [batch for batch in self._mine if batch.state in states]


_RUNNING = (BatchState.IN_PROGRESS, BatchState.CANCELLING)
