"""Two densities in the plane over the time of a training, as they are and with noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfsup_cli.runs import atomic
from selfsup_cli.visualization.curves import COLOURS, GREY, INK, RULE

_EDGE = 1.6
_REAL, _FAKE = COLOURS[1], COLOURS[0]


@dataclass(frozen=True)
class Moment:
    """Generated points [n, 2] at a step, and noise [n, 2] where there was any."""

    step: int
    points: np.ndarray
    noise: np.ndarray | None


def densities(
    path: Path, real: np.ndarray, moments: Sequence[Moment], *, radius: float, title: str, note: str
) -> None:
    """Write a PNG with a column for each moment: real points [m, 2] and generated ones, above as
    they are, below both with the same noise, where there is any."""
    noisy = any(moment.noise is not None for moment in moments)
    lines = 2 if noisy else 1
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(own):
        width, height = 1.9 * len(moments) + 0.5, 2.0 * lines + 1.0
        figure = Figure(figsize=(max(width, 5.5), height), dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        low, high = 0.34 / height, 0.42 / height
        figure.set_layout_engine("constrained", rect=(0, low, 1, 1 - low - high))
        top = 1 - 0.1 / height
        figure.text(
            0.02, top, title, va="top", fontsize=11, weight="bold", color=INK, parse_math=False
        )
        figure.text(0.02, 0.1 / height, note, fontsize=7.5, color=GREY, parse_math=False)
        edge = _EDGE * radius
        for column, moment in enumerate(moments):
            axes = figure.add_subplot(lines, len(moments), column + 1)
            _scatter(axes, real, moment.points, edge)
            axes.set_title(f"step {moment.step}", fontsize=8.5, color=INK)
            if column == 0:
                axes.set_ylabel("clean", fontsize=8.5, color=INK)
            if not noisy:
                continue
            axes = figure.add_subplot(lines, len(moments), len(moments) + column + 1)
            noise = moment.noise
            if noise is not None:
                m = min(len(real), len(noise))
                n = min(len(moment.points), len(noise))
                _scatter(axes, real[:m] + noise[:m], moment.points[:n] + noise[:n], edge)
            if column == 0:
                axes.set_ylabel("with noise", fontsize=8.5, color=INK)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())


def _scatter(axes: Axes, real: np.ndarray, fake: np.ndarray, edge: float) -> None:
    axes.scatter(fake[:, 0], fake[:, 1], s=2, alpha=0.35, color=_FAKE, linewidths=0)
    axes.scatter(real[:, 0], real[:, 1], s=2, alpha=0.35, color=_REAL, linewidths=0)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(RULE)
