"""The worker's pulse: one thread renews the lease and hears of cancels and deadlines, another minds the engine.

Every job this process runs stands under its one lease. When the lease cannot be renewed for its whole length the
jobs are somebody else's, and their generations are stopped.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from uuid import UUID

from headrace import store
from headrace.errors import EngineUnavailable, StoreUnavailable
from headrace.store import Store
from workers.attempts import RunningAttempts, StopReason
from workers.engines.base import Engine

log = logging.getLogger(__name__)

#: How long `end` waits for each thread: a renewal is bounded by the database's time-outs, an engine that is just
#: being started is not waited for to its end.
END_TIMEOUT_S = 15.0


@dataclass(slots=True)
class Lease:
    """Renews one worker's lease until `end`."""

    store: Store
    engine: Engine
    worker_id: UUID
    running: RunningAttempts
    ready: threading.Event
    lease_s: float
    renew_every_s: float
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        """Start renewing; the worker's row must be there."""
        # Two threads: a look at an engine that hangs takes longer than a lease lasts.
        for name, target in (("lease", self._renew_until_ended), ("engine-minder", self._mind_until_ended)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Stop renewing and give the lease up."""
        self._ended.set()
        for thread in self._threads:
            thread.join(END_TIMEOUT_S)
        try:
            with self.store.begin() as db:
                store.workers.retire(db, self.worker_id)
        except StoreUnavailable:
            log.warning("lease_not_retired", extra={"worker_id": str(self.worker_id)})

    def _renew_until_ended(self) -> None:
        last_good = time.monotonic()
        while not self._ended.wait(self.renew_every_s):
            try:
                self._renew()
                last_good = time.monotonic()
            except StoreUnavailable:
                log.warning("lease_not_renewed", extra={"worker_id": str(self.worker_id)})
                if time.monotonic() - last_good > self.lease_s:
                    self.stop_all("lease_lost")
            except Exception:
                # A fault here must not end the thread: without it the worker's jobs would be taken from it.
                log.exception("lease_fault", extra={"worker_id": str(self.worker_id)})

    def _renew(self) -> None:
        with self.store.begin() as db:
            ready, running = self.ready.is_set(), len(self.running)
            requests = store.workers.renew(db, self.worker_id, self.lease_s, running=running, ready=ready)
        for request in requests:
            self._stop(request.request_id, request.reason)

    def stop_all(self, reason: StopReason) -> None:
        """Stop every running attempt."""
        for request_id in self.running.ids():
            self._stop(request_id, reason)

    def _stop(self, request_id: str, reason: StopReason) -> None:
        if self.running.stop(request_id, reason):
            log.info("attempt_stopped", extra={"request_id": request_id, "reason": reason})
        # Asked for at every renewal: the first time, the attempt may not have reached the engine yet.
        self.engine.abort(request_id)

    def _mind_until_ended(self) -> None:
        while not self._ended.wait(self.renew_every_s):
            try:
                self.engine.check()
            except EngineUnavailable as error:
                log.error("engine_dead", extra={"worker_id": str(self.worker_id), "error": str(error)})
                self._restart_engine()

    def _restart_engine(self) -> None:
        """Take no work while the engine is dead. A start that fails is tried again at the next look."""
        self.ready.clear()
        try:
            self.engine.start()
        except EngineUnavailable as error:
            log.error("engine_not_restarted", extra={"worker_id": str(self.worker_id), "error": str(error)})
        else:
            self.ready.set()
            log.info("engine_restarted", extra={"worker_id": str(self.worker_id)})
