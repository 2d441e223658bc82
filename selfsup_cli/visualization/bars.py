"""Accuracies side by side: one group of bars for each layer."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
