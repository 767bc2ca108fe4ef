"""The worker's lease: one thread renews it and receives cancels and deadlines; another checks the engine.

One lease covers every job that this process runs. If the lease cannot be renewed for its whole length, other workers
may take the jobs, so their generations are stopped here.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.domain.attempts import HeldAttempt
from headrace.domain.fleet import WorkerReport
from headrace.errors import ConfigError, EngineUnavailable, StoreUnavailable
from headrace.store import Store
from headrace.store.fleet import workers
from workers.engines.base import Engine
from workers.running.worker_state import MOST_CRASHES, WITHIN_S, StopReason, WorkerState

log = logging.getLogger(__name__)

#: Seconds that `end` waits for each thread. The database's time-outs bound a renewal. `end` does not wait for an
#: engine's start to finish.
END_TIMEOUT_S = 15.0
#: Seconds that an engine may take to end an aborted request before the engine counts as hanging.
ABORT_WITHIN_S = 60.0
#: Seconds for which only this process, or only Postgres, may know an attempt. Each claim and each end causes a short
#: gap.
APART_FOR_S = 2.0


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts and how often it is renewed, and how long one attempt may run under it, in seconds."""

    lease_s: float
    renew_every_s: float
    max_run_s: float = math.inf


@dataclass(slots=True)
class Lease:
    """Renews one worker's lease until `end`.

    Attributes:
        give_up: called when the engine has died too often, or hangs. Ends the process with an error.
        serves: False while the worker takes jobs but cannot serve them, as in a lock-out.
        called_back: called when the host no longer drains.
    """

    state: WorkerState
    store: Store
    engine: Engine
    times: LeaseTimes
    give_up: Callable[[], object]
    serves: Callable[[], bool] = lambda: True
    called_back: Callable[[], object] = lambda: None
    _stop_reason: str | None = None
    _draining: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _is_down: bool = False
    _apart: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Start renewing. The worker's row must exist."""
        # Two threads, because a check of a hanging engine takes longer than a lease lasts.
        for name, target in (("lease", self._renew_until_ended), ("engine-minder", self._mind_until_ended)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def drain(self) -> None:
        """Take no more jobs, for good."""
        self._draining.set()
        self.state.ready.clear()

    def end(self) -> None:
        """Stop renewing, and give up the lease."""
        self._ended.set()
        for thread in self._threads:
            thread.join(END_TIMEOUT_S)
        try:
            with self.store.begin() as db:
                workers.retire(db, self.state.id, self._stop_reason)
        except StoreUnavailable:
            log.warning("lease_not_retired", extra={"worker_id": str(self.state.id)})

    def _renew_until_ended(self) -> None:
        last_good = time.monotonic()
        while not self._ended.wait(self.times.renew_every_s):
            try:
                self._abort_again()
                self._end_overlong()
                self._renew()
                last_good = time.monotonic()
            except StoreUnavailable:
                log.warning("lease_not_renewed", extra={"worker_id": str(self.state.id)})
                if time.monotonic() - last_good > self.times.lease_s:
                    self.stop_all("lease_lost")
            except Exception:
                # A fault here must not end the thread: the lease would expire, and other workers would take the jobs.
                log.exception("lease_fault", extra={"worker_id": str(self.state.id)})

    def _renew(self) -> None:
        here = set(self.state.attempts.ids())
        # `draining` is reported one renewal late, when also the last jobs are claimed that were taken before.
        report = WorkerReport(len(here), self.state.takes() and self.serves(), self.state.host_drains.is_set())
        with self.store.begin() as db:
            renewal = workers.renew(db, self.state.id, self.times.lease_s, report)
        self.follow_host(drains=renewal.host_drains)
        self.state.confined.set(renewal.confined)
        for attempt in renewal.held:
            if attempt.stop is not None:
                self._stop(attempt.request_id, attempt.stop)
        self._compare(here, {attempt.request_id: attempt for attempt in renewal.held})

    def follow_host(self, *, drains: bool) -> None:
        """Take no more jobs while the host drains, and take jobs again when it is called back."""
        if drains == self.state.host_drains.is_set():
            return
        if drains:
            self.state.host_drains.set()
        else:
            self.state.host_drains.clear()
            self.called_back()
        log.info("host_drains" if drains else "host_called_back", extra={"worker_id": str(self.state.id)})

    def _abort_again(self) -> None:
        """Abort each attempt that must stop once more: the first time, it may not have reached the engine yet."""
        for request_id in self.state.attempts.stopping():
            self.engine.abort(request_id)

    def _end_overlong(self) -> None:
        """Abort attempts that ran too long. Stop this worker if the engine does not end an aborted attempt."""
        for request_id in self.state.attempts.longer_than(self.times.max_run_s):
            self._stop(request_id, "run_timeout")
        late = self.state.attempts.longer_than(self.times.max_run_s + ABORT_WITHIN_S)
        if late and self._stop_reason is None and (held := self.engine.progress().keys() & set(late)):
            self._take_out(f"The engine has not ended {len(held)} requests that were aborted {ABORT_WITHIN_S:g} s ago.")

    def _compare(self, here: set[str], held: dict[str, HeldAttempt]) -> None:
        """Settle attempts that only this process or only Postgres knows."""
        now = time.monotonic()
        self._apart = {request_id: self._apart.get(request_id, now) for request_id in here ^ held.keys()}
        for request_id in [each for each, since in self._apart.items() if now - since >= APART_FOR_S]:
            if request_id not in held:
                # `rescue` took the job while this process was stalled. The answer could not be stored any more.
                self._stop(request_id, "lease_lost")
                continue
            # The reply to the claim was lost, or the end could not be written. The job would stay running forever.
            log.warning("attempt_disowned", extra=_facts(request_id))
            with self.store.begin() as db:
                workers.disown(db, self.state.id, held[request_id])

    def stop_all(self, reason: StopReason) -> None:
        for request_id in self.state.attempts.ids():
            self._stop(request_id, reason)

    def _stop(self, request_id: str, reason: StopReason) -> None:
        if self.state.attempts.stop(request_id, reason):
            log.info("attempt_stopped", extra={**_facts(request_id), "reason": reason})
            self.engine.abort(request_id)

    def _mind_until_ended(self) -> None:
        while not self._ended.wait(self.times.renew_every_s):
            try:
                self._mind()
            except Exception:
                # A fault here must not end the thread: an engine that dies later would never be restarted.
                log.exception("engine_minder_fault", extra={"worker_id": str(self.state.id)})

    def _mind(self) -> None:
        try:
            self.engine.check()
        except EngineUnavailable as error:
            log.error("engine_dead", extra={"worker_id": str(self.state.id), "error": str(error)})
            self._replace_engine()
        else:
            self._open()

    def _open(self) -> None:
        """Take jobs again, unless this worker is draining."""
        if not self._draining.is_set():
            self.state.ready.set()

    def _replace_engine(self) -> None:
        """Take no jobs while the engine is dead, and restart it. Stop this worker if the engine died too often."""
        self.state.ready.clear()
        if not self._is_down and self.state.crashes.note():
            self._take_out(f"The engine died {MOST_CRASHES} times in {WITHIN_S / 60:.0f} minutes.")
        self._is_down = True
        if self._stop_reason is None:
            self._restart_engine()

    def _take_out(self, why: str) -> None:
        self._stop_reason = why
        log.critical("worker_takes_itself_out", extra={"worker_id": str(self.state.id), "why": why})
        self.drain()
        self.give_up()

    def _restart_engine(self) -> None:
        """Start the engine. The next check retries a failed start."""
        try:
            self.engine.start()
        except (EngineUnavailable, ConfigError) as error:
            log.error("engine_not_restarted", extra={"worker_id": str(self.state.id), "error": str(error)})
        else:
            self._is_down = False
            self._open()
            log.info("engine_restarted", extra={"worker_id": str(self.state.id)})


def _facts(request_id: str) -> dict[str, str]:
    """The log fields of an attempt; see `Claim.request_id`."""
    digits, _, enqueue_no = request_id.partition(".")
    return {"job_id": f"job_{digits}", "enqueue_no": enqueue_no}
