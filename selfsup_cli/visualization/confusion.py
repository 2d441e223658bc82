"""Which class was taken for which, and by how much an ordered answer was off."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfsup_cli.runs import atomic

_LABELLED = 60
_NUMBERED = 16
_MISS, _HIT = "#c4502a", "#12805c"


def matrix(path: Path, counts: np.ndarray, classes: Sequence[str], *, title: str) -> None:
    """Draw a confusion matrix as a PNG: rows are true classes, shares of each row are shaded.

    `counts` int64 [C, C]. Cells bear their number, and axes the names of classes, as long as there
    are few enough of them to be read.
    """
    n = len(classes)
    total = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, total, out=np.zeros(counts.shape), where=total > 0)
    longest = max((len(name) for name in classes), default=0) if n <= _LABELLED else 0
    side = min(max(3.6, 0.36 * n), 12) if n <= _LABELLED else 8.0
    extra = min(0.085 * longest, 2.6)
    figure = Figure(figsize=(side + extra + 1.1, side + extra + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if n <= _LABELLED:
        names = [_short(name) for name in classes]
        axes.set_xticks(range(n), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(n), names, fontsize=8, parse_math=False)
    if n <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = shares[row, column] > 55
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=7.5,
                color="white" if dark else "#1b1f24",
            )  # fmt: skip
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=11, parse_math=False)
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class (%)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    _save(figure, path)


def errors(path: Path, off_by: np.ndarray, *, most: int, unit: str, title: str) -> None:
    """Draw how often an answer was off by how much as a PNG; `off_by` int64 [N], 0 is right."""
    values = np.arange(-most, most + 1)
    shares = [100 * float((off_by == value).mean()) for value in values]
    figure = Figure(figsize=(6.4, 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar(values, shares, 0.85, color=[_HIT if value == 0 else _MISS for value in values])
    axes.set_xlabel(f"predicted minus true ({unit})")
    axes.set_ylabel("share of the answers (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
