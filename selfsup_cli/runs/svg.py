"""Curves and intervals as SVG inside a page: coloured by its style sheet, explained by titles.

No line is told from another by colour alone: each has its own dashes, and its name with a sample
of it below the panel.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

from selfsup_cli.runs.curves import running_mean
from selfsup_cli.runs.markup import Html, el
from selfsup_cli.runs.report import Curve, Measurement
from selfsup_cli.runs.tables import interval, method, number, value

WIDTH, HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 10, 36
# A curve of more points than this is noise around a trend: both are drawn.
DENSE = 60
SMOOTH = 40
COLOURS, DASHES = 6, 4
_LARGEST = sys.float_info.max
# Points that say their value when they are pointed at.
_ASKED = 40


def line_class(index: int) -> str:
    """The classes of the line number `index`: no two of the first twelve look alike."""
    return f"c{index % COLOURS} d{index % DASHES}"


def panel(label: str, curves: Sequence[Curve]) -> Html:
    """Curves (each with a point or more) with the same meaning of y in one picture."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points] + chances(curves)
    up = _ticks(min(ys), max(ys))
    low, high = min(*ys, up[0]), max(*ys, up[-1])
    left, right = _ends(xs)
    across = [x for x in _ticks(left, right) if left <= x <= right]

    def place(x: float, y: float) -> tuple[float, float]:
        wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return (
            round(_LEFT + wide * _share(x, left, right), 1),
            round(_TOP + tall * _share(y, high, low), 1),
        )

    drawn: list[Html] = []
    for y in up:
        at = place(left, y)[1]
        drawn.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="rule"))
        drawn.append(el("text", _number(y), x=_LEFT - 6, y=at + 4, class_="tick end"))
    for x in across:
        at = place(x, low)[0]
        drawn.append(el("line", x1=at, x2=at, y1=HEIGHT - _BOTTOM, y2=HEIGHT - _BOTTOM + 4))
        drawn.append(el("text", _number(x), x=at, y=HEIGHT - _BOTTOM + 17, class_="tick mid"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    drawn.append(el("text", curves[0].x_label, x=middle, y=HEIGHT - 3, class_="tick mid"))
    for chance in chances(curves):
        at = place(left, chance)[1]
        title = el("title", f"chance {chance:.6g}")
        drawn.append(el("line", title, x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="chance"))
    for index, curve in enumerate(curves):
        drawn += _line(curve, [place(x, y) for x, y in curve.points], index)
    asked = [
        el(
            "circle",
            el("title", f"{curve.name} {y:.6g} at {curve.x_label} {x:.6g}"),
            cx=place(x, y)[0],
            cy=place(x, y)[1],
            r=7,
            class_="ask",
        )
        for curve in curves
        for x, y in _some(curve.points)
    ]
    names = ", ".join(curve.name for curve in curves)
    return el(
        "svg",
        *drawn,
        *asked,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="panel",
        role="img",
        aria_label=f"{label}: {names}; the values stand in the table below",
    )


def chances(curves: Sequence[Curve]) -> list[float]:
    """What needs no learning, by any of the curves."""
    return sorted({curve.chance for curve in curves if curve.chance is not None})


def _line(curve: Curve, points: Sequence[tuple[float, float]], index: int) -> list[Html]:
    style = line_class(index)
    first, last = curve.points[0], curve.points[-1]
    title = el(
        "title",
        f"{curve.name}: {first[1]:.6g} at {curve.x_label} {first[0]:.6g}, "
        f"{last[1]:.6g} at {last[0]:.6g}",
    )
    if len(points) > DENSE:
        smooth = running_mean([y for _, y in points], SMOOTH)
        trend = [(x, round(y, 1)) for (x, _), y in zip(points, smooth, strict=True)]
        return [
            el("polyline", points=_path(points), class_=f"faint {style}"),
            el("polyline", title, points=_path(trend), class_=f"line {style}"),
        ]
    marks = [el("circle", cx=x, cy=y, r=2.6, class_=f"mark {style}") for x, y in points]
    if len(points) == 1:
        return [el("circle", title, cx=points[0][0], cy=points[0][1], r=4, class_=f"mark {style}")]
    return [el("polyline", title, points=_path(points), class_=f"line {style}"), *marks]


def sample(index: int | None) -> Html:
    """A short piece of the line number `index`, for the list of names; None is that of chance."""
    style = "chance" if index is None else f"line {line_class(index)}"
    return el(
        "svg",
        el("line", x1=1, x2=27, y1=5, y2=5, class_=style),
        viewBox="0 0 28 10",
        class_="sample",
        aria_hidden="true",
    )


def reach(measurements: Sequence[Measurement]) -> int | None:
    """How far the axis of `spread` goes for these percentages: 10, 25, 50 or 100; None if not %."""
    if not measurements or any(m.unit != "%" for m in measurements):
        return None
    ends = [m.interval.high if m.interval else m.value for m in measurements]
    most = max([*ends, *(m.chance or 0.0 for m in measurements)])
    return next(end for end in (10, 25, 50, 100) if most <= end)


def spread(m: Measurement, end: int) -> Html:
    """A percentage on an axis from 0 to `end`: a dot, its interval, and a tick at chance."""

    def at(value: float) -> float:
        return round(5 + 130 * value / end, 1)

    said = value(m)
    parts = [el("line", x1=5, x2=135, y1=9, y2=9, class_="track")]
    if m.chance is not None:
        said += f", chance {number(m.chance, m.unit)}"
        parts.append(el("line", x1=at(m.chance), x2=at(m.chance), y1=1, y2=17, class_="chance"))
    if m.interval is not None:
        said += f", interval {interval(m)} ({method(m)})"
        low, high = at(m.interval.low), at(m.interval.high)
        parts.append(el("line", x1=low, x2=high, y1=9, y2=9, class_="reach"))
    parts.append(el("circle", cx=at(m.value), cy=9, r=4, class_="dot"))
    return el(
        "svg", el("title", f"{said}, n {m.n}"), *parts, viewBox="0 0 140 18", class_="spread",
        role="img",
    )  # fmt: skip


def _share(value: float, start: float, end: float) -> float:
    """Where `value` lies between `start` (0) and `end` (1), halved as differences may overflow."""
    span = end / 2 - start / 2
    return (value / 2 - start / 2) / span if span else 0.0


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _some(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_ASKED` of the points, the first and the last among them."""
    if len(points) <= _ASKED:
        return list(points)
    return [points[i * (len(points) - 1) // (_ASKED - 1)] for i in range(_ASKED)]


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that reach from `low` or below to `high` or above; at least two."""
    if not high > low:
        room = abs(low) * 0.1 or 0.5
        low, high = max(low - room, -_LARGEST), min(high + room, _LARGEST)
    rough = (high - low) / about
    if not 1e-290 < rough < 1e290:
        return [low, high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    return ticks if all(b > a for a, b in pairwise(ticks)) and len(ticks) > 1 else [low, high]


def _ends(xs: Sequence[float]) -> tuple[float, float]:
    """Where the x axis begins and ends: with the points, or at zero if they begin close to it."""
    left, right = min(xs), max(xs)
    if 0 < left < 0.2 * right:
        left = 0.0
    return (left, right) if right > left else (left - 0.5, left + 0.5)


def _number(value: float) -> str:
    return f"{value:.6g}"
