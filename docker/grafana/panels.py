"""How a dashboard of Headrace is put together: charts of PromQL in rows, with the same variables on each dashboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.models import common, dashboard

#: The height of a chart, and of the 24 columns of a dashboard those that it takes.
HEIGHT, SPAN = 8, 8
#: Selectors by the dashboard's variables, and the legend of a queue.
OF_QUEUE, OF_POOL, QUEUE = '{pool=~"$pool", lane=~"$lane"}', '{pool=~"$pool"}', "{{pool}}.{{lane}}"
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time.

    Attributes:
        about: what an operator should know to read it.
        unit: Grafana's name of the unit.
        queries: PromQL, and the legend of its series.
    """

    title: str
    about: str
    unit: str
    queries: Sequence[tuple[str, str]]
    is_stacked: bool = False


def board(uid: str, title: str, about: str, rows: Sequence[tuple[str, Sequence[Chart]]]) -> Dashboard:
    """A dashboard. Args: rows: the title of each, and its charts."""
    made = (
        Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["headrace"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            DashboardLink("Headrace").type(dashboard.DashboardLinkType.DASHBOARDS).tags(["headrace"]).as_dropdown(True)
        )
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("pool", "label_values(headrace_queue_depth, pool)"))
        .with_variable(_choice("lane", "label_values(headrace_queue_depth, lane)"))
    )
    # Numbered, so that links to a chart stay valid.
    ids = count(1)
    for name, charts in rows:
        made.with_row(Row(name).id(next(ids)))
        for chart in charts:
            made.with_panel(_panel(chart).id(next(ids)))
    return made


def _choice(name: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(text="All", value="$__all"))
    )


def _panel(chart: Chart) -> Timeseries:
    panel = (
        Timeseries()
        .title(chart.title)
        .description(chart.about)
        .datasource(SOURCE)
        .unit(chart.unit)
        .height(HEIGHT)
        .span(SPAN)
        .min(0)
        .fill_opacity(60 if chart.is_stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs([])
        )
    )
    if chart.is_stacked:
        panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    for number, (expr, legend) in enumerate(chart.queries):
        panel.with_target(Dataquery().ref_id(chr(ord("A") + number)).expr(expr).legend_format(legend))
    return panel


def rate(name: str, by: str, selector: str = "") -> str:
    """The increase of a counter in a second, summed. Args: by: labels to keep, none if empty."""
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed} (rate({name}{selector}[$__rate_interval]))"


def share(name: str, part: str, whole: str, by: str = "") -> str:
    """The share of a counter's increase that one selector has of another's, by labels."""
    on = " on () group_left" if by else ""
    return f"{rate(name, by, part)} /{on} {rate(name, '', whole)}"


def quantile(share_below: float, name: str, by: str, selector: str) -> str:
    """A quantile of a histogram, by labels."""
    return f"histogram_quantile({share_below}, {rate(f'{name}_bucket', f'le, {by}', selector)})"
