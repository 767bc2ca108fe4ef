"""A webhook worker's Prometheus metrics."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.webhooks import deliveries
from workers.delivering.slots import DeliverySlots

#: Due deliveries are counted up to this number, because the count reads each row.
MOST_COUNTED = 10_000
OUTCOMES = ("delivered", "failed", "given_up")


@dataclass(eq=False, slots=True)
class DeliveryMetrics(Collector):
    """Reads every value at the scrape. Due deliveries are absent without Postgres. Safe for many threads."""

    store: Store
    slots: DeliverySlots
    _tries: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, outcome: str) -> None:
        """Count a try by its outcome, one of `OUTCOMES`."""
        with self._lock:
            self._tries[outcome] += 1

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a query to Postgres."""
        yield CounterMetricFamily("headrace_webhook_tries", "Tries, by how they ended.")

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        about = "Tries by outcome: `failed` is tried again, `given_up` was the last, or needed no try."
        tries = CounterMetricFamily("headrace_webhook_tries", about, labels=["outcome"])
        with self._lock:
            for outcome in OUTCOMES:
                tries.add_metric([outcome], self._tries[outcome])
        yield tries
        in_hand = sum(self.slots.held().of_receiver.values())
        yield GaugeMetricFamily("headrace_webhooks_running", "Tries in hand, slots held.", in_hand)
        with suppress(StoreUnavailable), self.store.begin() as db:
            number, late_s = deliveries.oldest_due(db, MOST_COUNTED)
            yield GaugeMetricFamily("headrace_webhooks_due", f"Deliveries due, up to {MOST_COUNTED:,}.", number)
            yield GaugeMetricFamily(
                "headrace_webhooks_late_seconds", "How long the first of them has been due.", late_s
            )
