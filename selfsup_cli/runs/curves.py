"""Which curves tell most, and a curve as a line of text."""

from __future__ import annotations

from collections.abc import Sequence

from selfsup_cli.runs.report import Curve

SPARKS = "▁▂▃▄▅▆▇█"
FEW = 6
# Numbers about the training itself: of interest when it goes wrong.
_BACKGROUND = ("lr", "embedding_", "grad_", "weight_decay", "skipped", "bad_")


def telling(curves: Sequence[Curve], most: int = FEW) -> list[Curve]:
    """The few curves that say how it went, of those with two points or more.

    Details are left out: a curve whose name goes on from another's (`loss_speed` beside `loss`,
    `heldout_speed_x2` beside `heldout_speed`), and what is only of interest when training fails.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    names = {curve.name for curve in curves}
    overall = [
        curve
        for curve in drawn
        if not curve.name.startswith(_BACKGROUND)
        and not any(curve.name.startswith(f"{name}_") for name in names)
    ]
    return (overall or drawn)[:most]


def panels(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves that have points, by what their y axis says, in order of appearance.

    Where no curve of a panel has two points there is nothing to draw, and the panel is left out.
    """
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.points:
            found.setdefault(curve.y_label, []).append(curve)
    return {
        label: own for label, own in found.items() if any(len(curve.points) > 1 for curve in own)
    }


def spark(curve: Curve, width: int) -> str:
    """The shape of a curve in at most `width` blocks, each the mean of its share of the points."""
    values = [y for _, y in curve.points]
    count = min(width, len(values))
    parts = [
        values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)
    ]
    # Halved and divided before they are added or taken apart: nothing overflows.
    means = [sum(value / 2 / len(part) for value in part) for part in parts]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((mean - low) / span * (len(SPARKS) - 1))] for mean in means)


def running_mean(values: Sequence[float], parts: int) -> list[float]:
    """Mean of `values` over a centred window of about n / parts of them, shorter at the ends."""
    half = max(1, len(values) // parts) // 2 + 1
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    out = []
    for i in range(len(values)):
        low, high = max(i - half, 0), min(i + half + 1, len(values))
        out.append((sums[high] - sums[low]) / (high - low))
    return out
