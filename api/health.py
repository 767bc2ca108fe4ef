"""What operators ask of a process: can it serve (`ReadinessCheck`), and its Prometheus metrics."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Connection

from api.door.catalogue import Catalogue
from api.door.vacancies import Vacancies
from api.reading import Waits
from headrace.broker.admission import Admission
from headrace.cached_value import CachedValue
from headrace.config import Settings
from headrace.domain.fleet import NO_WORKER_REASON, Fleet, ProcessKind, Vacancy, fleet_of
from headrace.domain.limits import SHUT
from headrace.domain.prompts.payloads import PAYLOAD_VERSION
from headrace.domain.queues import OVERFLOW
from headrace.errors import ConfigError, StoreUnavailable, Unavailable
from headrace.http import RequestMetrics
from headrace.policies.pricing import no_price
from headrace.store import Store
from headrace.store.fleet import processes, status
from headrace.store.money import budgets, tariffs
from headrace.tables import revisions

log = logging.getLogger(__name__)

#: Seconds for which all callers share a check, from its start.
REPORT_TTL_S = 1.0
#: Seconds from its start on for which this process misses no other.
START_S = 30.0
#: Callers that wait for a check under way. Each holds a thread, for as long as a server does not answer. Further ones
#: get the report before it.
WAITERS_LIMIT = 32


class Report(NamedTuple):
    """What a check found: by part, what fails, and what an operator should know although it serves."""

    failures: Mapping[str, str]
    warnings: Mapping[str, str]


class ReadinessCheck:
    """Checks the servers, the schema and the tokenizers. Safe for many threads."""

    def __init__(
        self, settings: Settings, store: Store, admission: Admission, catalogue: Catalogue, vacancies: Vacancies
    ) -> None:
        """Check nothing yet."""
        self._settings, self._store, self._catalogue, self._vacancies = settings, store, catalogue, vacancies
        self._checks: Mapping[str, Callable[[], None]] = {
            "postgres": partial(_check_postgres, store),
            "redis": admission.check_writable,
            "tokenizer": catalogue.load,
        }
        self._checked = CachedValue(self.check, REPORT_TTL_S)
        self._made_at = time.monotonic()
        self._waiters = threading.BoundedSemaphore(WAITERS_LIMIT)
        self._last = Report({"readiness": "The first check is under way."}, {})

    def report(self) -> Report:
        """The last second's report. Concurrent callers wait for one check. Raises: StoreUnavailable."""
        if self._waiters.acquire(blocking=False):
            try:
                self._last = self._checked.get()
            finally:
                self._waiters.release()
        return self._last

    def check(self) -> Report:
        """Check every part now. Raises: StoreUnavailable: Postgres failed after it passed its check."""
        failures = {name: failure for name, check in self._checks.items() if (failure := _failure(check))}
        return Report(failures, {} if failures else self._warnings())

    def _warnings(self) -> dict[str, str]:
        """Warns of pools without workers, or with older ones; of control and beat, if they are not seen; and of a key
        for the paid API without budget or price.

        Neither a deployment nor an unfinished set-up must stop the service.
        """
        # Past the catalogue's cache: by a probe at the start, the first submits would else take no worker to be there.
        warnings = self._held_up(self._catalogue.read_fleets())
        with self._store.begin() as db:
            # After a pause of the whole system, the others start beside this process.
            if time.monotonic() - self._made_at >= START_S:
                warnings |= _silent(db)
            if self._settings.openai_api_key is None:
                return warnings
            if not budgets.limits(db, self._settings.budgets).are_set:
                warnings["overflow"] = SHUT
            unpriced = tariffs.in_force(db, self._settings).unpriced
        return {**warnings, **({"prices": " ".join(map(no_price, unpriced))} if unpriced else {})}

    def _held_up(self, fleets: Mapping[str, Fleet]) -> dict[str, str]:
        """Of the pools whose jobs wait for a worker, or for a newer one."""
        found, is_paid = {}, self._settings.openai_api_key is not None and fleet_of(OVERFLOW, fleets).slots > 0
        if unserved := self._catalogue.unserved(fleets):
            next_workers = map(self._vacancies.next_worker, unserved)
            found[NO_WORKER_REASON] = " ".join(_unserved(each, is_paid=is_paid) for each in next_workers)
        if old := sorted(pool for pool, fleet in fleets.items() if fleet.is_too_old):
            needs = f"jobs that need version {PAYLOAD_VERSION} of a stored prompt wait for newer ones"
            old_ones = f"Workers of an older release serve {', '.join(old)}"
            found["workers"] = f"{old_ones}: {needs}. Restart them with this release."
        return found


def _unserved(vacancy: Vacancy, *, is_paid: bool) -> str:
    """Args: is_paid: the paid API takes jobs."""
    where = f"No worker serves {vacancy.pool}"
    if vacancy.remedy is not None:
        return f"{where}: {vacancy.comes}."
    jobs = "jobs wait there until the paid API takes those that may go there" if is_paid else "jobs wait there"
    return f"{where}: {jobs}, and expire. Start one."


#: What an operator should know of a process that is not seen. Requests are answered without it.
_NOT_SEEN = {
    ProcessKind.CONTROL: "No control process was seen {}: no job expires, no lost job is rescued, no host is ordered.",
    ProcessKind.BEAT: "No process beat was seen {}: queues are not sampled, and the autoscaler decides nothing.",
}


def _silent(db: Connection) -> dict[str, str]:
    """Those of these kinds that are not seen, and since when."""
    found = {}
    for kind, sentence in _NOT_SEEN.items():
        silent_s = processes.silent_s(db, kind)
        if silent_s is None or silent_s > processes.GONE_S:
            found[str(kind)] = sentence.format("yet" if silent_s is None else f"for {silent_s:,.0f} s")
    return found


def _failure(check: Callable[[], None]) -> str | None:
    try:
        check()
    except (Unavailable, ConfigError) as error:
        log.warning("not_ready", extra={"code": error.code, "error": str(error)})
        return error.public_cause
    return None


def _check_postgres(store: Store) -> None:
    with store.begin() as db:
        applied = status.revision(db)
        if applied:
            status.check_writable(db)
    if reason := revisions.lacking(applied):
        raise StoreUnavailable(f"Postgres {reason}")


class WebMetrics(RequestMetrics):
    """The metrics of requests, and of the waits and streams that are open."""

    def __init__(self, waits: Waits) -> None:
        super().__init__("headrace_http")
        self._waits = waits

    def collect(self) -> Iterator[Metric]:
        """Every metric. Asks no server."""
        yield from super().collect()
        held = GaugeMetricFamily("headrace_http_open", "Waits and streams that are open.", labels=["kind"])
        slots = GaugeMetricFamily("headrace_http_slots", "Waits and streams that may be open.", labels=["kind"])
        for kind, each in self._waits.slots().items():
            held.add_metric([kind], each.held)
            slots.add_metric([kind], each.count)
        yield from (held, slots)


#: The time over which requests are judged, and the shares that are alerts: of answers with 5xx, of slow answers, and of
#: taken slots. As in docker/prometheus/alerts.yaml.
JUDGED_S = 300.0
FAILED_SHARE, SLOW_SHARE, TAKEN_SHARE = 0.01, 0.05, 0.9
#: Fewer such answers are no alert.
LEAST_FAILED = 5


class WebProblems:
    """What is wrong with the answers of this process lately. Not for several threads."""

    def __init__(self, metrics: WebMetrics, waits: Waits, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._waits, self._clock = metrics, waits, clock
        #: What the metrics said, and when; the oldest first.
        self._said = deque([(clock(), (0, 0, 0, 0))])

    def __call__(self) -> dict[str, str]:
        """A sentence for each alert."""
        now, totals = self._clock(), self._metrics.totals()
        self._said.append((now, totals))
        while len(self._said) > 2 and self._said[1][0] <= now - JUDGED_S:
            self._said.popleft()
        total, failed, plain, slow = (after - before for after, before in zip(totals, self._said[0][1], strict=True))
        found = {}
        if failed >= LEAST_FAILED and failed > FAILED_SHARE * total:
            found["HeadraceHttpErrors"] = f"{failed:,} of {total:,} requests were answered with 5xx lately."
        if slow >= LEAST_FAILED and slow > SLOW_SHARE * plain:
            found["HeadraceHttpSlow"] = f"{slow:,} of {plain:,} requests that do not wait took more than 1 s lately."
        for kind, each in self._waits.slots().items():
            if each.held > TAKEN_SHARE * each.count:
                text = f"{each.held:,} of {each.count:,} slots of the kind '{kind}' are taken."
                found["HeadraceHttpSlotsFull"] = text
        return found
