"""A web process's Prometheus metrics: its requests, its refusals, and the requests that it holds open."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from api.reading.waits import Waits
from headrace.http.request_metrics import RequestMetrics


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
