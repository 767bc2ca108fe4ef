"""A control process's Prometheus metric of budgets."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.domain.limits.budgets import share
from headrace.errors import StoreUnavailable
from headrace.store.money import budgets
from scheduler.deps import ControlDeps

#: The most budgets of apps that are reported, those with the largest used share. There may be thousands of apps.
MOST_OF_APPS = 50


@dataclass(eq=False, slots=True)
class BudgetMetrics(Collector):
    """The used share of each budget, read from Postgres at the scrape. Has no samples without Postgres."""

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metric without a query to Postgres."""
        yield self._gauge()

    def collect(self) -> Iterator[Metric]:
        """Yield one sample for each budget with a limit and at least one reservation in its period."""
        gauge = self._gauge()
        with suppress(StoreUnavailable), self.deps.store.begin() as db:
            accounts = budgets.balances(db, self.deps.settings.budgets).accounts
            used = {
                (each.app or "", each.period): share(each.used_usd, each.limit_usd)
                for each in accounts
                if each.limit_usd is not None
            }
            fullest = sorted((key for key in used if key[0]), key=lambda key: -used[key])[:MOST_OF_APPS]
            for key in (*(key for key in used if not key[0]), *fullest):
                gauge.add_metric(key, float(used[key]))
        yield gauge

    def _gauge(self) -> GaugeMetricFamily:
        about = "Share of a budget that is spent and reserved; without an app, of all apps together."
        return GaugeMetricFamily("headrace_budget_used_ratio", about, labels=["app", "period"])
