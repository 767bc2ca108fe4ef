"""How every chart looks, in a light and a dark browser. The only module that sets pygal's options."""

import sys
from typing import Any

import pygal
from pygal.graph.graph import Graph
from pygal.style import Style

# pygal adds a finder of maps to Python's imports. It is of an old kind, of which every later import would warn.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

#: Told apart by people who confuse red and green (Okabe and Ito), on light and on dark.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_FONT = 'system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif'
#: Dark browsers get light text; the lines keep their colours.
_DARK = """
@media (prefers-color-scheme: dark) {
  .graph, text, .axis text, .axis text.major, .legends .legend text, text.no_data { fill: #d7dce2 }
  .axis .line, .axis .guide.line, .axis .major.guide.line { stroke: #4a525c }
}
"""


def _look(opacity: str) -> Style:
    """pygal's style. Args: opacity: of areas and bars."""
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
        colors=COLORS,
    )


def options(opacity: str = ".85", **more: Any) -> dict[str, Any]:
    """pygal's options for a chart; `more` adds or replaces some."""
    return {
        "style": _look(opacity),
        "css": ("file://style.css", "file://graph.css", f"inline:{_DARK}"),
        "js": (),
        # Each chart is a document of its own, so that its rules need no id.
        "no_prefix": True,
        "width": 900,
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


def drawn(chart: Graph) -> str:
    """The chart as SVG."""
    chart.add_xml_filter(_without_script)
    svg: str = chart.render(is_unicode=True)
    return svg


def _without_script(root: Any) -> Any:
    """The picture without pygal's settings, which it writes as a script, and without its comments."""
    for parent in list(root.iter()):
        for child in list(parent):
            if callable(child.tag) or child.tag.endswith(("script", "desc")):
                parent.remove(child)
    return root
