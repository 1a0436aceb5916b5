"""The charting core: ticks are round, marks stay on the panel, what is not finite is left out."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastguide.report.svg import Panel, element, nice_ticks, padded, tick_labels


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_lie_inside_and_are_about_as_many_as_asked(low: float, span: float, count: int) -> None:
    ticks = nice_ticks(low, low + span, count)
    slack = 1e-6 * max(abs(low), span)
    assert all(low - slack <= t <= low + span + slack for t in ticks)
    assert len(ticks) <= 2 * count + 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (75, 100, [75, 80, 85, 90, 95, 100]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0])],
)
def test_ticks_are_the_numbers_a_reader_expects(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 5) == pytest.approx(expected)


def test_labels_have_just_enough_decimals_and_a_real_minus() -> None:
    assert tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert tick_labels([0, 2.5, 5]) == ["0.0", "2.5", "5.0"]
    assert tick_labels([0, 1000, 2000]) == ["0", "1,000", "2,000"]


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_a_range_of_nothing_is_the_unit_interval(values: list[float]) -> None:
    assert padded(values) == (0.0, 1.0)


def test_a_range_of_one_value_has_width() -> None:
    low, high = padded([90.0, 90.0])
    assert low < 90 < high


def test_attributes_are_escaped() -> None:
    assert element("text", x=1.0, cls='a"b<c') == '<text x="1" class="a&quot;b&lt;c"/>'


def test_a_panel_is_well_formed_and_leaves_out_what_is_not_finite() -> None:
    panel = Panel(x=(0, 3), y=(0, 1), x_label="step <1>", y_label="share & more")
    panel.line([0, 1, 2, 3], [0.1, math.nan, -math.inf, 0.4], "guided")
    panel.points([1, 2], [0.5, math.nan], "guided")
    panel.bar(0, 1, math.inf, "guided")
    panel.vertical(9, "native", "outside")
    svg = panel.svg("a <test>")
    root = ET.fromstring(svg)
    assert len(root.findall("circle")) == 1
    assert not root.findall("rect")
    assert "nan" not in svg
    assert "inf" not in svg
    assert "outside" not in svg
    assert root.attrib["aria-label"] == "a <test>"
