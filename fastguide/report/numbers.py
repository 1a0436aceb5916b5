"""Numbers as a reader wants them: significant digits, a real minus, errors that say how far a mean is known."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastguide.report.data import Estimate


def show(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits, a dash for None and nan, typographic minus."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{int(value):,}".replace("-", "−")
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "−")


def show_estimate(value: Estimate | None, digits: int = 3) -> tuple[str, str]:
    """Return a mean and its error as texts of equal decimals; the error is empty where there is none."""
    if value is None or math.isnan(value.mean):
        return "–", ""
    if math.isnan(value.error) or value.error == 0:
        return show(value.mean, digits), ""
    # One significant digit of the error says how far the mean is known; two where it begins with 1.
    size = math.floor(math.log10(value.error))
    decimals = max(0, min(4, (1 if value.error < 2 * 10.0**size else 0) - size))
    return f"{value.mean:,.{decimals}f}".replace("-", "−"), f"±\N{NO-BREAK SPACE}{value.error:,.{decimals}f}"


def decimals_of(values: Iterable[float | None]) -> int:
    """Return the decimals that suit a column: none for whole numbers, two below a hundred, one below a thousand."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if all(float(v).is_integer() for v in finite):
        return 0
    largest = max(map(abs, finite))
    return 2 if largest < 100 else 1 if largest < 1000 else 0


def fixed(value: float | None, decimals: int) -> str:
    """Return a number with so many decimals, a dash for None and nan."""
    if value is None or not math.isfinite(value):
        return show(value)
    return f"{value:,.{decimals}f}".replace("-", "−")
