"""Charts as SVG, for light and dark browsers, without a script: the pages' look, steps, and charts one above another.

The only module that sets pygal's options. Pure.
"""

import sys
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import pygal
from pygal.graph.graph import Graph
from pygal.style import Style

# pygal adds a finder of maps to Python's imports. It is of an old kind, and every later import would warn of it.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

#: Told apart by people who confuse red and green (Okabe and Ito), on light and on dark.
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
_FONT = 'system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif'
#: Dark browsers get light text; the lines keep their colours.
_DARK = """
@media (prefers-color-scheme: dark) {
  .graph, text, .axis text, .axis text.major, .legends .legend text, text.no_data { fill: #d7dce2 }
  .axis .line, .axis .guide.line, .axis .major.guide.line { stroke: #4a525c }
}
"""
#: A file stands on no page, so it brings the page's background.
_SHEET = """
.sheet { fill: #fff } .heading { fill: #1c2127 } .note { fill: #4a525c }
@media (prefers-color-scheme: dark) { .sheet { fill: #171b20 } .heading { fill: #d7dce2 } .note { fill: #a9b1ba } }
"""
WIDTH = 900
#: Room of a sheet: at its head, for each chart's heading, and for the legend.
_HEAD, _HEADING, _LEGEND = 40, 14, 50


def options(opacity: str = ".85", colors: Sequence[str] = COLORS, **more: Any) -> dict[str, Any]:
    """pygal's options for a chart.

    Args:
        opacity: of areas and bars.
        colors: of the series, in their order.
        more: options to add or to replace.
    """
    return {
        "style": _look(opacity, colors),
        "css": ("file://style.css", "file://graph.css", f"inline:{_DARK}"),
        "js": (),
        # Each chart is a document of its own, so that its rules need no id.
        "no_prefix": True,
        "width": WIDTH,
        "height": 320,
        "margin": 12,
        "margin_bottom": 30,
        "spacing": 12,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 6,
        "legend_box_size": 12,
        "show_dots": False,
        "dots_size": 3.5,
        "include_x_axis": True,
        "value_formatter": lambda value: f"{value:,.4g}",
        "no_data_text": "No data yet",
        "max_scale": 6,
        "truncate_legend": 30,
        "truncate_label": 20,
        "disable_xml_declaration": True,
        "explicit_size": False,
        **more,
    }


def _look(opacity: str, colors: Sequence[str]) -> Style:
    return Style(
        background="transparent",
        plot_background="transparent",
        foreground="#333a42",
        foreground_strong="#1c2127",
        foreground_subtle="#c9d0d8",
        guide_stroke_color="#c9d0d8",
        major_guide_stroke_color="#c9d0d8",
        guide_stroke_dasharray="1,3",
        major_guide_stroke_dasharray="1,3",
        opacity=opacity,
        stroke_opacity="1",
        stroke_width="2",
        font_family=_FONT,
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=14,
        no_data_font_size=22,
        colors=tuple(colors),
    )


def drawn(chart: Graph, **more: Any) -> str:
    """The chart as SVG. Args: more: options to add or to replace."""
    chart.add_xml_filter(_without_script)
    svg: str = chart.render(is_unicode=True, **more)
    return svg


def _without_script(root: Any) -> Any:
    """The picture without pygal's settings, which it writes as a script, and without its comments."""
    for parent in list(root.iter()):
        for child in list(parent):
            if callable(child.tag) or child.tag.endswith(("script", "desc")):
                parent.remove(child)
    return root


def scale(most: float) -> list[float]:
    """Five round labels from 0 up to `most` or above, so that axes side by side have as many."""
    steps = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    step = next(step for step in steps if step * 4 >= most)
    return [float(number * step) for number in range(5)]


def stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a line that keeps each value until the next point. Points that change nothing have no corner."""
    corners = list(points[:1])
    for at, value in points[1:]:
        if value != corners[-1][1]:
            corners += (at, corners[-1][1]), (at, value)
    return [*corners, (points[-1][0], points[-1][1])] if points else []


class Panel(NamedTuple):
    """A chart of a sheet. The note stands to the right of its heading."""

    heading: str
    note: str
    chart: Graph


def sheet(title: str, height: int, panels: Sequence[Panel]) -> str:
    """One SVG file with charts of the same series, one above another. The last one has the legend.

    Args: height: of each chart.
    """
    parts, top = [], _HEAD
    for number, (heading, note, chart) in enumerate(panels, 1):
        room = {"height": height, "margin_bottom": 4, "show_legend": False}
        if number == len(panels):
            room = {"height": height + _LEGEND}
        parts.append(
            f'<text class="heading" x="12" y="{top + 14}" font-size="14" font-weight="bold">{escape(heading)}</text>'
            f'<text class="note" x="{WIDTH - 12}" y="{top + 14}" font-size="12" text-anchor="end">{escape(note)}</text>'
            f'<g transform="translate(0 {top + _HEADING})">{drawn(chart, explicit_size=True, **room)}</g>'
        )
        top += _HEADING + room["height"]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="{escape(_FONT)}">'
        f'<title>{escape(title)}</title><style>{_SHEET}</style><rect class="sheet" width="100%" height="100%"/>'
        f'<text class="heading" x="12" y="27" font-size="17" font-weight="bold">{escape(title)}</text>'
        f"{''.join(parts)}</svg>\n"
    )
