"""Accuracies side by side: one group of bars for each layer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Measurement

_COLOURS = ("#1f5fa8", "#c8c8c8", "#e0a458", "#6aa67a")


def layers(path: Path, rows: Sequence[Measurement], *, title: str) -> None:
    """Draw accuracies by layer as a PNG: subjects beside each other, intervals, chance dashed.

    `rows` hold one measurement for each (subject, control, layer), in the order of the layers.
    """
    names = list(dict.fromkeys(row.layer or "" for row in rows))
    groups = list(dict.fromkeys((row.subject, row.control) for row in rows))
    figure = Figure(figsize=(max(5.0, 1.2 * len(names) + 2), 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(groups)
    for number, (subject, control) in enumerate(groups):
        own = [row for row in rows if (row.subject, row.control) == (subject, control)]
        shift = (number - (len(groups) - 1) / 2) * width
        at = [names.index(row.layer or "") + shift for row in own]
        below = [row.value - row.interval.low if row.interval else 0.0 for row in own]
        beyond = [row.interval.high - row.value if row.interval else 0.0 for row in own]
        axes.bar(
            at,
            [row.value for row in own],
            width * 0.92,
            yerr=[below, beyond],
            color=_COLOURS[number % len(_COLOURS)],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#444444"},
            label=subject if control is None else f"{subject}, {control} videos",
        )
    chances = {row.chance for row in rows if row.chance is not None}
    if len(chances) == 1:
        axes.axhline(chances.pop(), color="#444444", linewidth=1, linestyle="--", label="chance")
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(0, 100)
    axes.set_ylabel(" or ".join(dict.fromkeys(f"{row.metric} (%)" for row in rows)))
    axes.set_title(title, fontsize=11, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    _save(figure, path)


def attributes(
    path: Path, precisions: Mapping[str, float], chances: Mapping[str, float], *, title: str
) -> None:
    """Draw the average precision (0 … 1) of each attribute as a PNG, the best on top.

    `chances` (0 … 1) are drawn across the bars: what a random order gets on average.
    """
    names = sorted(precisions, key=lambda name: precisions[name])
    figure = Figure(figsize=(6.4, 1.2 + 0.22 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    at = range(len(names))
    axes.barh(at, [100 * precisions[name] for name in names], 0.72, color=_COLOURS[0])
    low = [100 * chances[name] for name in names]
    axes.vlines(low, [y - 0.36 for y in at], [y + 0.36 for y in at], color="#e0a458", linewidth=2)
    axes.set_yticks(at, names, fontsize=8, parse_math=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("average precision (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
