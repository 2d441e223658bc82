"""The weights that mini-batches got in training, over time (thesis, chapter 8)."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfsup_cli.runs import atomic
from selfsup_cli.visualization.curves import COLOURS, GREY, INK, RULE

_BINS = 40
_ROUNDED = 1e-6


def over_time(
    path: Path, epochs: np.ndarray, weights: np.ndarray, wrong: np.ndarray, *, title: str
) -> None:
    """Write a PNG: the distribution of weights, and the share of them below zero.

    `epochs` `[S]` says when each step was, `weights` `[S, K]` are those of its mini-batches, and
    `wrong` `[S, K]` their shares of wrong labels (0 … 1; NaN where nobody knows): those with fewer
    wrong labels than the mean of their step are drawn apart from those with more.
    """
    groups: list[tuple[str, str, np.ndarray]] = []
    if wrong.size and np.isfinite(wrong).all():
        # Of equal shares the mean is rounded, and none of them is to be off it.
        middle = wrong.mean(1, keepdims=True, dtype=np.float64)
        groups = [
            ("fewer wrong labels", COLOURS[0], wrong < middle - _ROUNDED),
            ("more wrong labels", COLOURS[1], wrong > middle + _ROUNDED),
        ]
    if not any(chosen.any() for *_, chosen in groups):
        groups = [("all mini-batches", COLOURS[0], np.ones(weights.shape, bool))]
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(own):
        figure = Figure(figsize=(9.2, 3.9), dpi=130, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(
            title, x=0.02, ha="left", fontsize=12, weight="bold", color=INK, parse_math=False
        )
        left, right = figure.subplots(1, 2)
        for name, colour, chosen in groups:
            _band(left, right, name, colour, epochs, weights, chosen)
        left.axhline(0, color=GREY, linewidth=1)
        if weights.size:
            even = 1 / weights.shape[1]
            left.axhline(even, color=GREY, linewidth=1.1, linestyle=(0, (4, 3)))
            left.text(
                1, even, " equal", transform=left.get_yaxis_transform(), va="center", fontsize=8,
                color=GREY,
            )  # fmt: skip
        _finish(left, "weight of a mini-batch: mean, 10th to 90th percentile")
        _finish(right, "share of weights below zero")
        right.set_ylim(bottom=0)
        left.legend(frameon=False, fontsize=8, labelcolor=INK)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())


def _band(
    left: Axes,
    right: Axes,
    name: str,
    colour: str,
    epochs: np.ndarray,
    weights: np.ndarray,
    chosen: np.ndarray,
) -> None:
    points = []
    for part in np.array_split(np.arange(len(epochs)), min(_BINS, max(len(epochs), 1))):
        found = weights[part][chosen[part]]
        if len(found):
            low, high = np.quantile(found, (0.1, 0.9))
            when = float(epochs[part].mean())
            points.append((when, float(found.mean()), low, high, float((found < 0).mean())))
    if not points:
        return
    when, mean, low, high, negative = np.array(points).T
    left.fill_between(when, low, high, color=colour, alpha=0.18, linewidth=0)
    left.plot(when, mean, color=colour, linewidth=1.8, label=name)
    right.plot(when, negative, color=colour, linewidth=1.8, label=name)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.set_xlabel("epoch", fontsize=9, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY, length=3)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    axes.margins(x=0.02)
