"""Runs sweeps, each on a timer of its own. Knows neither Celery nor what a sweep does."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import LockHeld, Unavailable
from headrace.metrics import Counts

log = logging.getLogger(__name__)

#: Seconds that `stop` waits for running sweeps. A sweep that is cut off is rolled back, and safe to repeat.
STOP_TIMEOUT_S = 5.0
#: A sweep that has not come to its end for longer than this and three of its intervals is a problem.
LATE_S = 300.0
#: Seconds for which a sweep leaves out what it could not deal with: an operator may have repaired it meanwhile. Each
#: further failure doubles the time, at most ASIDE_DOUBLINGS times (17 hours): else failing items fill its runs.
ASIDE_S, ASIDE_DOUBLINGS = 60.0, 10
#: The most that a problem names of what was set aside.
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Sweep:
    """Work that runs at an interval.

    Attributes:
        run: does one batch, and returns its size: the rows, jobs or messages that it dealt with.
        batch: the size of a full batch. After a full batch more work may wait, so `run` is called again at once.
    """

    name: str
    every_s: float
    run: Callable[[], int]
    batch: float = math.inf


#: How a run of a sweep ended. `skipped`: another process held its lock.
Outcome = Literal["done", "failed", "skipped"]


class _Aside(NamedTuple):
    """An item that a sweep leaves out: since when (monotonic clock), its message, and its earlier failures."""

    since: float
    said: str
    before: int

    def over_s(self) -> float:
        """Seconds since it is to be tried again; below 0 until then."""
        return time.monotonic() - self.since - self.for_s()

    def for_s(self) -> float:
        """Seconds for which it is left out."""
        return ASIDE_S * 2.0 ** min(self.before, ASIDE_DOUBLINGS)


class SweepCounts(Collector):
    """The runs of a process's sweeps, for Prometheus, and what they set aside."""

    def __init__(self) -> None:
        self._runs = Counts("headrace_sweep_runs", "Runs of sweeps.", ("sweep", "outcome"))
        self._every_s: dict[str, float] = {}
        self._swept_at: dict[str, float] = {}
        self._aside: dict[tuple[str, UUID], _Aside] = {}
        self._began = time.time()

    def note(self, sweep: Sweep, outcome: Outcome) -> None:
        """Count a run."""
        self._runs.add(sweep.name, outcome)
        self._every_s[sweep.name] = sweep.every_s
        if outcome == "done":
            self._swept_at[sweep.name] = time.time()

    def set_aside(self, sweep: str, of: UUID, shown: str, error: str) -> None:
        """Leave this out of the sweep's runs, longer each time, so that it holds up nothing else, and say so."""
        log.error("set_aside", extra={"sweep": sweep, "id": shown, "error": error})
        kept = {key: each for key, each in self._aside.items() if each.over_s() < each.for_s()}
        before = kept[sweep, of].before + 1 if (sweep, of) in kept else 0
        kept[sweep, of] = _Aside(time.monotonic(), f"{sweep} set {shown} aside: {error}", before)
        self._aside = kept

    def aside(self, sweep: str) -> list[UUID]:
        """Returns the items that this run of the sweep leaves out."""
        return [of for (name, of), each in self._aside.items() if name == sweep and each.over_s() < 0]

    def problems(self) -> dict[str, str]:
        """The alert of sweeps that fail or hang, since they have not come to their end for long; and what is set aside.

        A repaired one is named until a minute after its next try.
        """
        found = {}
        late = [name for name, every_s in dict(self._every_s).items() if self._silent_s(name) > LATE_S + 3 * every_s]
        if late:
            silent_s = max(map(self._silent_s, late))
            text = f"The sweeps {', '.join(sorted(late))} have not come to their end for {silent_s / 60:.0f} minutes."
            found["HeadraceSweepNotRunning"] = text
        aside = [each.said for each in self._aside.values() if each.over_s() < ASIDE_S]
        if aside:
            more = f" And {len(aside) - MOST_NAMED} more." if len(aside) > MOST_NAMED else ""
            found["HeadraceSweepFailing"] = " ".join(aside[:MOST_NAMED]) + more
        return found

    def _silent_s(self, name: str) -> float:
        return time.time() - self._swept_at.get(name, self._began)

    def collect(self) -> Iterator[Metric]:
        yield from self._runs.collect()
        about = "When the sweep last came to its end, since 1970."
        yield _by_sweep("headrace_sweep_done_timestamp_seconds", about, self._swept_at)
        yield _by_sweep("headrace_sweep_interval_seconds", "From one run of the sweep to the next.", self._every_s)


def _by_sweep(name: str, about: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=["sweep"])
    for sweep, value in sorted(dict(values).items()):
        family.add_metric([sweep], value)
    return family


class Sweeper:
    """Runs each sweep in its own thread, so that one that fails or hangs does not delay the others."""

    def __init__(self, sweeps: Sequence[Sweep], note: Callable[[Sweep, Outcome], None] = lambda *_: None) -> None:
        """Args: note: called after each run of a sweep."""
        self._note = note
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_running, args=(sweep,), name=f"sweep-{sweep.name}", daemon=True)
            for sweep in sweeps
        ]

    def start(self) -> None:
        """Start the threads; each sweep first runs at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads; returns when no sweep runs any more, or after `STOP_TIMEOUT_S`."""
        self._stopping.set()
        until = time.monotonic() + STOP_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _keep_running(self, sweep: Sweep) -> None:
        failing = False
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + sweep.every_s
            failing = self._run_once(sweep, failing)

    def _run_once(self, sweep: Sweep, failing: bool) -> bool:
        """Run a sweep; returns whether it failed. An outage is logged when it begins and when it ends, not between."""
        try:
            self._run_batches(sweep)
        except LockHeld:
            self._note(sweep, "skipped")
            return failing
        except Unavailable as error:
            self._note(sweep, "failed")
            if not failing:
                log.warning("sweep_failing", extra={"sweep": sweep.name, "error": str(error)})
            return True
        except Exception:
            self._note(sweep, "failed")
            if not failing:
                log.exception("sweep_failing", extra={"sweep": sweep.name})
            return True
        if failing:
            log.info("sweep_recovered", extra={"sweep": sweep.name})
        return False

    def _run_batches(self, sweep: Sweep) -> None:
        """Run until a batch is not full. Logs when the sweep is behind, and when it has caught up."""
        done, began = self._run(sweep), time.monotonic()
        if done < sweep.batch:
            return
        log.info("sweep_behind", extra={"sweep": sweep.name, "done": done})
        total = done
        while done >= sweep.batch:
            if self._stopping.is_set():
                return
            done = self._run(sweep)
            total += done
        facts = {"sweep": sweep.name, "done": total, "took_s": round(time.monotonic() - began, 1)}
        log.info("sweep_caught_up", extra=facts)

    def _run(self, sweep: Sweep) -> int:
        done = sweep.run()
        self._note(sweep, "done")
        return done
