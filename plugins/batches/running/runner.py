"""The sweeps that move on the batches that this process has leased. Another process takes over those of a dead one."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from uuid import UUID

from sqlalchemy import Connection

from api.deps import WebDeps
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.sweeper import Sweep
from plugins.batches import store as batches
from plugins.batches.domain import Batch, BatchState
from plugins.batches.running.ending import end, give_back_lost, settle
from plugins.batches.running.feeding import Feeder
from plugins.batches.running.gathering import Gatherer
from plugins.batches.running.reading import read
from plugins.batches.settings import BatchSettings

log = logging.getLogger(__name__)

#: How often this process looks for new batches, and renews its leases, in seconds.
LEASE_EVERY_S = 1.0
#: How often it looks for room. While it finds some, it goes on at once, for `FEED_FOR_S` at most.
FEED_EVERY_S = 0.1
FEED_FOR_S = 1.0
SETTLE_EVERY_S = 0.25
GATHER_EVERY_S = 5.0
LOST_EVERY_S = 5.0
#: How long apps take turns in one run of a sweep. After this the run counts as done for the sweep's alert.
TURNS_FOR_S = 30.0


class Runner:
    """The sweeps of one process."""

    def __init__(self, web: WebDeps) -> None:
        self._web, self._id = web, new_id()
        self._mine: Sequence[Batch] = ()
        self._gatherer = Gatherer(web)
        self._feeder = Feeder(web, leaves=self._gatherer.takes_all)
        self._reading = Turns(lambda batch: read(web, self._id, batch))
        self._gathering = Turns(self._gatherer.gather)
        self._settling = Turns(lambda batch: settle(web, batch))
        self._ending = Turns(lambda batch: end(web, batch))

    def sweeps(self) -> list[Sweep]:
        """All of them, with their intervals."""
        return [
            Sweep("lease_batches", LEASE_EVERY_S, self.lease),
            Sweep("read_batches", LEASE_EVERY_S, self.read),
            Sweep("feed_batches", FEED_EVERY_S, self.feed),
            Sweep("gather_provider_batches", GATHER_EVERY_S, self.gather),
            Sweep("settle_lines", SETTLE_EVERY_S, self.settle),
            Sweep("give_back_lines", LOST_EVERY_S, self.give_back_lost),
            Sweep("end_batches", LEASE_EVERY_S, self.end),
        ]

    def interrupt(self) -> None:
        """Let the sweeps come to their ends early."""
        for each in (self._reading, self._gathering, self._settling, self._ending):
            each.interrupt()

    def close(self) -> None:
        """Give the leases up. Lines that are being submitted are submitted."""
        self.interrupt()
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
            self._mine = batches.lease(db, self._id, self._web.settings.of(BatchSettings).lease_s)
        return len(self._mine)

    def read(self) -> int:
        """Read the files of new batches. Returns: how many."""
        return self._reading.take(lambda: self._in(BatchState.VALIDATING))

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
        return self._gathering.take(lambda: self._in(BatchState.IN_PROGRESS))

    def settle(self) -> int:
        """Note the ends of lines, of batches in which some have ended. Returns: how many."""

        def due() -> list[Batch]:
            running = self._in(*_RUNNING)
            found = self._among(batches.with_ended_jobs, running)
            return [batch for batch in running if batch.id in found or batch.is_ending]

        return self._settling.take(due)

    def give_back_lost(self) -> int:
        """Let lines whose submit was cut off be submitted again. Returns: how many."""
        running, under_way = self._in(*_RUNNING), [*self._feeder.under_way, *self._gatherer.under_way]
        return sum([give_back_lost(self._web, batch, under_way) for batch in running])

    def end(self) -> int:
        """End batches whose lines have all ended. Returns: how many."""

        def due() -> list[Batch]:
            running = self._in(*_RUNNING, BatchState.FINALIZING)
            found = self._among(batches.with_all_ended, running)
            return [batch for batch in running if batch.id in found]

        return self._ending.take(due)

    def _among(self, which: Callable[[Connection, Sequence[UUID]], set[UUID]], running: Sequence[Batch]) -> set[UUID]:
        """Those of these batches in which there is something to do: one statement for all, and none without a batch."""
        if not running:
            return set()
        with self._web.store.autocommit() as db:
            return which(db, [batch.id for batch in running])

    def _in(self, *states: BatchState) -> list[Batch]:
        return [batch for batch in self._mine if batch.state in states]


_RUNNING = (BatchState.IN_PROGRESS, BatchState.CANCELLING)


class Turns:
    """Takes one step with many batches, piece by piece. Apps take turns after each piece, so that neither a large batch
    of one app nor many of them delay another app's.
    """

    def __init__(self, step: Callable[[Batch], Iterator[int]]) -> None:
        """Take no step yet. Args: step: yields after each piece how much it dealt with."""
        self._step = step
        #: By app, the step with one of its batches.
        self._under_way: dict[UUID, Iterator[int]] = {}
        #: By batch, the number of its last step.
        self._taken, self._numbers = dict[UUID, int](), count(1)
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Stop for good, after the piece that is being dealt with."""
        self._interrupted.set()

    def take(self, due: Callable[[], Sequence[Batch]]) -> int:
        """Take the step with each batch, for `TURNS_FOR_S` at most; what is left is for the next call.

        A step that fails does not hold up the others. Args: due: the batches, which may become more meanwhile.
        Returns: how much was dealt with. Raises: the first error, at the end.
        """
        done, failed = 0, list[Exception]()
        began = looked_at = time.monotonic()
        waiting = self._in_order(due())
        while not self._interrupted.is_set() and time.monotonic() < began + TURNS_FOR_S:
            if time.monotonic() > looked_at + LEASE_EVERY_S:
                waiting, looked_at = self._in_order(due()), time.monotonic()
            self._begin(waiting)
            if not self._under_way:
                break
            for app_id, pieces in list(self._under_way.items()):
                try:
                    done += next(pieces)
                except StopIteration:
                    del self._under_way[app_id]
                except Exception as error:
                    del self._under_way[app_id]
                    failed.append(error)
        if self._interrupted.is_set():
            self._under_way.clear()
        if failed:
            raise failed[0]
        return done

    def _in_order(self, due: Sequence[Batch]) -> list[Batch]:
        """The batch whose last step is longest ago comes first."""
        self._taken = {batch.id: self._taken.get(batch.id, 0) for batch in due}
        return sorted(due, key=lambda batch: (self._taken[batch.id], batch.id))

    def _begin(self, waiting: list[Batch]) -> None:
        """Begin with the next batch of each app that has none under way."""
        for batch in list(waiting):
            if batch.app_id not in self._under_way:
                waiting.remove(batch)
                self._taken[batch.id] = next(self._numbers)
                self._under_way[batch.app_id] = self._step(batch)
