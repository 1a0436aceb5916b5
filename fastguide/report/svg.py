"""A small charting core: marks on a panel with axes, written as inline SVG that the page's style sheet colours.

Marks carry CSS classes and no colours of their own, so one drawing serves a light and a dark page. Numbers are rounded
to a tenth of a pixel, which keeps a page of a dozen charts below a few hundred kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

FONT_SIZE = 11
"""Of tick labels, in pixels of the view box."""
DIGIT_WIDTH = 6.2
"""Mean width of a digit at that size, for margins."""


def number(value: float) -> str:
    """Return a coordinate, rounded to a tenth and without trailing zeros."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Return an element; underscores in attribute names become hyphens, ``cls`` becomes ``class``, None is left out."""
    parts = [tag]
    for name, value in attributes.items():
        if value is None:
            continue
        text = number(value) if isinstance(value, float) else str(value)
        parts.append(f'{"class" if name == "cls" else name.replace("_", "-")}="{escape(text)}"')
    head = " ".join(parts)
    return f"<{head}>{content}</{tag}>" if content else f"<{head}/>"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers within ``[low, high]``, 1, 2, 2.5 or 5 times a power of ten apart."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.75)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the ticks with just as many decimals as tell them apart, thousands separated."""
    if not ticks:
        return []
    step = min((b - a for a, b in pairwise(ticks)), default=abs(ticks[0]) or 1.0)
    decimals = max(0, min(6, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 0
    if decimals < 6 and any(abs(t * 10**decimals - round(t * 10**decimals)) > 1e-6 for t in ticks):
        decimals += 1
    return [f"{t + 0.0:,.{decimals}f}".replace("-", "−") for t in ticks]


def padded(values: Iterable[float], share: float = 0.06, *, least: float = 1e-9) -> tuple[float, float]:
    """Return a range that holds all finite values with some air; (0, 1) where there is none."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = max((high - low) * share, least)
    if high - low <= least:
        air = max(abs(high) * 0.05, 0.5)
    return low - air, high + air


class Panel:
    """A plot area with two linear axes; the methods add marks, `svg` returns the drawing.

    Args:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        x_label: what the horizontal axis measures, with its unit.
        y_label: likewise for the vertical axis; it stands above the axis, where it needs no turning.
        width: of the view box, in pixels.
        height: likewise.
        x_ticks: positions of ticks, chosen if None.
        y_ticks: likewise.
        whole: the horizontal axis counts, so its ticks are whole numbers.
    """

    def __init__(
        self,
        *,
        x: tuple[float, float],
        y: tuple[float, float],
        x_label: str,
        y_label: str,
        width: int = 360,
        height: int = 216,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        whole: bool = False,
    ) -> None:
        self.width, self.height = width, height
        self.y_ticks = list(nice_ticks(*y, count=4) if y_ticks is None else y_ticks)
        ticks = nice_ticks(*x, count=max(3, width // 75)) if x_ticks is None else list(x_ticks)
        self.x_ticks = [t for t in ticks if not whole or float(t).is_integer()]
        self._y_labels = tick_labels(self.y_ticks)
        left = 12 + DIGIT_WIDTH * max((len(text) for text in self._y_labels), default=1)
        self.left, self.right, self.top, self.bottom = left, width - 10.0, 22.0, height - 36.0
        self._x, self._y = x, y
        self.x_label, self.y_label = x_label, y_label
        self._marks: list[str] = []
        self._texts: list[str] = []

    def px(self, value: float) -> float:
        """Return the horizontal pixel of a value."""
        low, high = self._x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.right - self.left)

    def py(self, value: float) -> float:
        """Return the vertical pixel of a value."""
        low, high = self._y
        return self.bottom - (value - low) / ((high - low) or 1.0) * (self.bottom - self.top)

    def add(self, mark: str) -> None:
        """Add a mark drawn elsewhere."""
        self._marks.append(mark)

    def line(self, xs: Sequence[float], ys: Sequence[float], cls: str) -> None:
        """Add a line through the points, interrupted where a value is not finite."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                path.append(f"{pen}{number(self.px(x))} {number(self.py(y))}")
                pen = "L"
            else:
                pen = "M"
        if path:
            self.add(element("path", d="".join(path), cls=f"line {cls}"))

    def steps(self, xs: Sequence[float], ys: Sequence[float], cls: str) -> None:
        """Add a step line: ``ys[i]`` holds from ``xs[i]`` to ``xs[i + 1]`` (one more x than y)."""
        path = [f"M{number(self.px(xs[0]))} {number(self.py(ys[0]))}"] if len(ys) else []
        for i, y in enumerate(ys):
            path.append(f"V{number(self.py(y))}H{number(self.px(xs[i + 1]))}")
        if path:
            self.add(element("path", d="".join(path), cls=f"line {cls}"))

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], cls: str) -> None:
        """Fill between two lines."""
        points = [(x, a, b) for x, a, b in zip(xs, low, high, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if len(points) < 2:
            return
        there = [f"{number(self.px(x))} {number(self.py(b))}" for x, _, b in points]
        back = [f"{number(self.px(x))} {number(self.py(a))}" for x, a, _ in reversed(points)]
        self.add(element("path", d="M" + "L".join(there + back) + "Z", cls=f"area {cls}"))

    def bar(self, x0: float, x1: float, y: float, cls: str, tip: str | None = None, *, inset: float = 0.5) -> None:
        """Add a bar from the bottom of the panel up to ``y``; ``tip`` shows when the pointer rests on it."""
        if not (math.isfinite(y) and y > self._y[0]):
            return
        left, right, top = self.px(x0) + inset, self.px(x1) - inset, self.py(y)
        title = "" if tip is None else element("title", escape(tip))
        box = {"x": left, "y": top, "width": max(0.6, right - left), "height": max(0.0, self.bottom - top)}
        self.add(element("rect", title, **box, cls=f"area {cls}"))

    def points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        cls: str,
        *,
        radius: float = 3.0,
        tips: Sequence[str] | None = None,
    ) -> None:
        """Add dots; those with a value that is not finite are left out."""
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            if math.isfinite(x) and math.isfinite(y):
                title = "" if tips is None else element("title", escape(tips[i]))
                self.add(element("circle", title, cx=self.px(x), cy=self.py(y), r=radius, cls=f"dot {cls}"))

    def vertical(self, x: float, cls: str, label: str = "") -> None:
        """Add a vertical rule with a label at its top."""
        if not self._x[0] <= x <= self._x[1]:
            return
        at = self.px(x)
        self.add(element("path", d=f"M{number(at)} {number(self.top)}V{number(self.bottom)}", cls=f"rule {cls}"))
        if label:
            right = at > (self.left + self.right) / 2
            self.text(at + (-4 if right else 4), self.top + 9, label, cls, anchor="end" if right else "start")

    def horizontal(self, y: float, cls: str, label: str = "") -> None:
        """Add a horizontal rule with a label at its right end."""
        if not self._y[0] <= y <= self._y[1]:
            return
        at = self.py(y)
        self.add(element("path", d=f"M{number(self.left)} {number(at)}H{number(self.right)}", cls=f"rule {cls}"))
        if label:
            self.text(self.right - 2, at - 4, label, cls, anchor="end")

    def text(self, x: float, y: float, text: str, cls: str = "", *, anchor: str = "start") -> None:
        """Add text at a pixel; texts lie above all marks."""
        place = {"x": float(x), "y": float(y), "text_anchor": anchor}
        self._texts.append(element("text", escape(text), **place, cls=f"label {cls}".strip()))

    def svg(self, description: str) -> str:
        """Return the drawing; ``description`` is what a screen reader says."""
        grid = "".join(f"M{number(self.left)} {number(self.py(t))}H{number(self.right)}" for t in self.y_ticks)
        ticks = "".join(f"M{number(self.px(t))} {number(self.bottom)}v4" for t in self.x_ticks)
        base = f"M{number(self.left)} {number(self.bottom)}H{number(self.right)}"
        parts = [element("path", d=grid, cls="grid")] if grid else []
        parts += [*self._marks, *self._texts]
        parts.append(element("path", d=base + ticks, cls="axis"))
        for t, text in zip(self.y_ticks, self._y_labels, strict=True):
            parts.append(element("text", text, x=self.left - 6, y=self.py(t) + 4, text_anchor="end", cls="tick"))
        for t, text in zip(self.x_ticks, tick_labels(self.x_ticks), strict=True):
            parts.append(element("text", text, x=self.px(t), y=self.bottom + 16, text_anchor="middle", cls="tick"))
        middle = (self.left + self.right) / 2
        parts.append(
            element("text", escape(self.x_label), x=middle, y=self.height - 4.0, text_anchor="middle", cls="axis-label")
        )
        parts.append(element("text", escape(self.y_label), x=2.0, y=11.0, cls="axis-label"))
        return drawing("".join(parts), self.width, self.height, description)


def drawing(content: str, width: float, height: float, description: str, cls: str = "chart") -> str:
    """Return an ``svg`` element that scales with its container."""
    return (
        f'<svg class="{cls}" viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{escape(description)}">{content}</svg>'
    )
