"""How a training went: curves as a picture, and as a line of text."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Curve

INK, GREY, RULE = "#1b1f24", "#6a737d", "#e4e8ec"
# Okabe and Ito's colours, told apart by colour-blind readers, in an order of falling contrast.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#5c5c5c")
# A curve of more points than this is noise around a trend: both are drawn.
_DENSE = 60
_SMOOTH = 40
_BLOCKS = "▁▂▃▄▅▆▇█"


def draw(path: Path, curves: Sequence[Curve], *, title: str = "") -> None:
    """Write `curves` as a PNG: one panel for each y label, in order of appearance.

    Long curves are drawn faintly with their running mean; short ones with their points, and upright
    bars for intervals. Chance is a dashed line.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.points:
            panels.setdefault(curve.y_label, []).append(curve)
    columns = min(3, max(len(panels), 1))
    lines = max(1, math.ceil(len(panels) / columns))
    size = (4.4 * columns + 0.3, 3.2 * lines + (0.6 if title else 0.1))
    # Settings of the user's own matplotlibrc (LaTeX, dark styles) must not reach these pictures.
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(own):
        figure = Figure(figsize=size, dpi=130, facecolor="white")
        FigureCanvasAgg(figure)
        free = 1 - (0.42 / size[1] if title else 0)
        figure.set_layout_engine("constrained", rect=(0, 0, 1, free))
        figure.text(
            0.02, 1 - 0.1 / size[1], title, va="top", fontsize=12, weight="bold", color=INK,
            parse_math=False,
        )  # fmt: skip
        if not panels:
            figure.text(0.5, 0.45, "nothing was measured", ha="center", color=GREY)
        for number, (label, own_curves) in enumerate(panels.items(), 1):
            _panel(figure.add_subplot(lines, columns, number), label, own_curves)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())


def _panel(axes: Axes, label: str, curves: Sequence[Curve]) -> None:
    lines = []
    for number, curve in enumerate(curves):
        x, y = np.array(curve.points, dtype=np.float64).T
        colour = COLOURS[number % len(COLOURS)]
        style = "-" if number < len(COLOURS) else "--"
        if len(x) > _DENSE:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.25)
            # What does not change at all is drawn as it is: its mean differs by rounding.
            smooth = running_mean(y) if np.ptp(y) > 0 else y
            (line,) = axes.plot(x, smooth, style, color=colour, linewidth=1.7)
        else:
            (line,) = axes.plot(
                x, y, style, color=colour, linewidth=1.7, marker="o", markersize=3.5
            )
        for at, bar in zip(x, curve.intervals or (), strict=False):
            if bar is not None:
                axes.plot([at, at], bar, color=colour, linewidth=1.1, alpha=0.5, zorder=1)
        lines.append(line)
    names = [curve.name for curve in curves]
    for chance in dict.fromkeys(c.chance for c in curves if c.chance is not None):
        lines.append(axes.axhline(chance, color=GREY, linewidth=1.1, linestyle=(0, (4, 3))))
        names.append(f"chance {chance:.3g}")
    axes.set_title(label, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.set_xlabel(curves[0].x_label, fontsize=9, color=GREY, parse_math=False)
    axes.tick_params(labelsize=8, colors=GREY, length=3)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    axes.margins(x=0.02)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set(fontsize=8, color=GREY)
    if len(lines) > 1:
        # Below the panel it covers no line.
        legend = axes.legend(
            lines, names, frameon=False, fontsize=7.5, ncols=2, labelcolor=INK,
            handlelength=1.4, borderaxespad=0, labelspacing=0.3, columnspacing=1.0,
            loc="upper left", bbox_to_anchor=(0, -0.2),
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def running_mean(y: np.ndarray, parts: int = _SMOOTH) -> np.ndarray:
    """Mean of `y` [n] over a centred window of about n / parts points, shorter at the ends."""
    half = max(1, len(y) // parts) // 2 + 1
    sums = np.concatenate([[0.0], np.cumsum(y)])
    low = np.clip(np.arange(len(y)) - half, 0, None)
    high = np.clip(np.arange(len(y)) + half + 1, None, len(y))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """`values` as at most `width` blocks of eight heights, lowest to highest: `▁▂▄▆▇█`.

    Each block is the mean of its share of the values. What is not finite is left out; equal values
    stand in the middle; no values give an empty string.
    """
    finite = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if len(finite) == 0 or width < 1:
        return ""
    means = np.array([part.mean() for part in np.array_split(finite, min(width, len(finite)))])
    span = float(means.max() - means.min())
    if span == 0:
        return _BLOCKS[3] * len(means)
    steps = np.minimum((means - means.min()) / span * len(_BLOCKS), len(_BLOCKS) - 1)
    return "".join(_BLOCKS[int(step)] for step in steps)
