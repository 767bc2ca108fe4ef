"""Steps, labels, and a sheet of charts: an SVG file that loads nothing."""

import sys
from xml.etree import ElementTree

import pygal
import pytest

from headrace.charts import Panel, options, scale, sheet, stepped


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (3.2, 4), (4, 4), (5, 8), (9, 20), (119, 200), (4_000_000, 4_000_000)]
)
def test_axes_have_five_round_labels(most: float, top: float) -> None:
    labels = scale(most)
    assert (len(labels), labels[0], labels[-1]) == (5, 0, top)


def test_a_step_keeps_its_value_until_the_next_one() -> None:
    assert stepped([(0, 1), (1, 1), (2, 3), (3, 3), (4, 2)]) == [(0, 1), (2, 1), (2, 3), (4, 3), (4, 2), (4, 2)]
    assert stepped([(0, 1), (5, 1)]) == [(0, 1), (5, 1)]
    assert stepped([]) == []


def panel(heading: str, height: int) -> Panel:
    chart = pygal.XY(**options())
    chart.add("a & b", [(0, 0), (1, height)])
    return Panel(heading, "1 < 2", chart)


def test_a_sheet_is_one_file_with_a_legend_that_loads_nothing() -> None:
    svg = sheet("all <of> them", 150, [panel("first", 1), panel("<second>", 2)])

    assert "<script" not in svg
    assert "://" not in svg.replace("http://www.w3.org/", "")
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"all <of> them", "first", "<second>", "1 < 2"} <= set(texts)
    assert texts.count("a & b") == 1
    heights = [each.get("height") for each in root.iter("{http://www.w3.org/2000/svg}svg")]
    assert heights == [None, "150", "200"]
    assert root.get("viewBox") == f"0 0 900 {40 + 2 * 14 + 150 + 200}"


def test_pygal_s_old_finder_is_not_left_in_python_s_imports() -> None:
    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
