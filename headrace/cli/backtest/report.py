"""What a backtest prints: its terms, a table of the policies, and one line of figures for scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from headrace.cli.backtest.runs import CaseResult
from headrace.cli.output import table

#: Of the table.
LEGEND = (
    "wait: until a request starts on a host; an expired one counts in full. 429, expired, spilled: % of all requests. "
    "use: % of slots busy; peak: over the top tenth of the load. USD/1k: hosts and paid API, for 1,000 answered "
    "requests. up/down: changes of the number of hosts."
)


def results_table(results: Sequence[CaseResult]) -> Table:
    """A row for each policy."""
    rows = table("policy")
    names = ("USD/1k", "p50 s", "p95 s", "p99 s", "429", "exp.", "spill", "use", "peak", "host-h", "up/down")
    for name in names:
        rows.add_column(name, justify="right", no_wrap=True)
    for result in results:
        rows.add_row(result.case.name, *_cells(result))
    return rows


def _cells(result: CaseResult) -> list[str]:
    found = result.figures
    waits = (f"{wait:.1f}" for wait in (found.p50_wait_s, found.p95_wait_s, found.p99_wait_s))
    turned_away = (f"{100 * share:.2f}" for share in (found.refused_share, found.expired_share, found.spilled_share))
    uses = (f"{100 * use:.0f}" for use in (found.use, found.peak_use))
    changes = f"{found.ups}/{found.downs}"
    return [f"{found.usd_per_1000:.3f}", *waits, *turned_away, *uses, f"{found.host_hours:,.0f}", changes]


def last_line(results: Mapping[str, CaseResult]) -> str:
    """The figures of `predictive`. A ratio to a policy that did not run is `nan`.

    Args:
        results: by name; with `predictive`.
    """
    own = results["predictive"].figures

    def ratio(other: str) -> float:
        return own.usd_per_1000 / results[other].figures.usd_per_1000 if other in results else float("nan")

    return (
        f"usd_vs_reactive={ratio('reactive'):.3f} usd_vs_oracle={ratio('oracle'):.3f} peak_use={own.peak_use:.3f} "
        f"refused_share={own.refused_share:.5f} p95_wait_s={own.p95_wait_s:.1f} p99_wait_s={own.p99_wait_s:.1f}"
    )


def as_json(terms: Mapping[str, Any], results: Sequence[CaseResult]) -> dict[str, Any]:
    """Everything, for programs. Args: terms: the options and what follows from them."""
    return {"terms": terms, "policies": {result.case.name: _record(result) for result in results}}


def _record(result: CaseResult) -> dict[str, Any]:
    found = result.figures
    shares = {name: getattr(found, name) for name in ("refused_share", "expired_share", "spilled_share")}
    return {
        **asdict(found),
        **shares,
        "usd_per_1000": found.usd_per_1000,
        "changes": [{"second": second, "hosts": hosts} for second, hosts in result.changes],
    }
