"""Figures as inline SVG text, in the colours of the page they stand on. Their input is numbers; the one text they hold is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

_SPARK_WIDTH: Final = 90
_SPARK_HEIGHT: Final = 22
_BAR_HEIGHT: Final = 26
_SCALE: Final = 300
_LABEL_WIDTH: Final = 130
_CURVE_WIDTH: Final = 300
_CURVE_HEIGHT: Final = 60

Bar = tuple[str, float, float, float]
"""A label, a share, and both ends of its interval."""


def sparkline(share_S: Sequence[float]) -> str:
    """A share at each step as a line from 0 (bottom) to 1 (top); nothing where there are no steps."""
    if not share_S:
        return ""
    reach, height = _SPARK_WIDTH - 6, _SPARK_HEIGHT - 6
    step = reach / max(1, len(share_S) - 1)
    points = [(3 + number * step, 3 + (1 - share) * height) for number, share in enumerate(share_S)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    said = ", ".join(f"{share:.2f}" for share in share_S)
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" width="{_SPARK_WIDTH}" height="{_SPARK_HEIGHT}" role="img" '
        f'aria-label="agreement by step: {said}"><title>{said}</title><polyline points="{line}"/>'
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5"/></svg>'
    )


def curve(label: str, point_S: Sequence[tuple[float, float]]) -> str:
    """A share against steps, from 0 (bottom line) to 1 (top line), with its first and last value; nothing without points."""
    if not point_S:
        return ""
    first, last = point_S[0][0], point_S[-1][0]
    reach = _CURVE_WIDTH / max(last - first, 1e-9)
    points = [(3 + (step - first) * reach, 3 + (1 - share) * _CURVE_HEIGHT) for step, share in point_S]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    said = ", ".join(f"{share:.2f} after {step:g}" for step, share in point_S)
    width, height = _CURVE_WIDTH + 6, _CURVE_HEIGHT + 6
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)} by step: {said}">'
        f'<title>{said}</title><line x1="3" x2="{width - 3}" y1="3" y2="3"/>'
        f'<line x1="3" x2="{width - 3}" y1="{height - 3}" y2="{height - 3}"/><polyline points="{line}"/>'
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5"/></svg>'
    )


def interval_bars(bars: Sequence[Bar]) -> str:
    """A horizontal bar a share, from 0 to 1, with its interval drawn over it."""
    if not bars:
        return ""
    width, height = _LABEL_WIDTH + _SCALE + 60, _BAR_HEIGHT * len(bars) + 4
    rows = "".join(_bar(number, bar) for number, bar in enumerate(bars))
    return f'<svg class="bars" viewBox="0 0 {width} {height}" role="img" aria-label="mean@k with 95 % intervals">{rows}</svg>'


def _bar(number: int, bar: Bar) -> str:
    label, share, low, high = bar
    top = _BAR_HEIGHT * number + 4
    middle = top + 9
    x, left, right = (_LABEL_WIDTH + _SCALE * value for value in (share, low, high))
    return (
        f'<text x="0" y="{top + 14}">{escape(label)}</text>'
        f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{x - _LABEL_WIDTH:.1f}" height="18"/>'
        f'<path d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 5}v10M{right:.1f} {middle - 5}v10"/>'
        f'<text x="{right + 8:.1f}" y="{top + 14}">{share:.3f}</text>'
    )
