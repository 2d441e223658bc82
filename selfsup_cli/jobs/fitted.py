"""How well a classifier fits the labels that it was trained on, right and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from selfsup_cli.config.transfer_images import Classifying
from selfsup_cli.data.label_noise import NoisyLabels
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.runs.report import Finding, Measurement, accuracy
from selfsup_cli.runs.statistics import Interval

SHOWN = ("omega_fewer_wrong", "omega_more_wrong", "omega_negative")


def tells_fit(preset: object) -> bool:
    """Whether a job is about that: labels that are wrong or weighted."""
    return isinstance(preset, Classifying) and preset.about_labels


def rows_of(
    found: Answers, test: Measurement, noisy: NoisyLabels | None
) -> tuple[list[Measurement], list[Finding]]:
    """Accuracy on training images, `found` by their given labels, and how far it is above `test`.

    Of labels that are wrong on purpose also how many are learned by heart, and by true labels.
    """
    about: dict[str, Any] = {
        "task": test.task,
        "subject": test.subject,
        "dataset": f"{test.dataset}, training images",
        "split": test.split,
        "layer": test.layer,
        "protocol": {
            **{name: value for name, value in test.protocol.items() if name != "per_class"},
            "images": "as in tests, by running statistics of batch norm and without dropout",
        },
    }
    given, answers, n = found.truth, found.predictions, len(found.truth)
    right = answers == given
    rows = [
        accuracy(
            "training labels",
            int(right.sum()),
            n,
            metric="accuracy on the given training labels",
            **about,
        )
    ]
    gap = rows[0].value - test.value
    interval = _difference(rows[0].interval, test.interval, gap)
    rows.append(
        Measurement(
            **about,
            name="gap",
            metric="given training labels less test",
            unit="points",
            value=gap,
            interval=interval,
            n=n,
        )
    )
    if noisy is None or not noisy.wrong.any():
        return rows, []
    wrong = noisy.wrong
    heart = accuracy(
        "wrong labels",
        int(right[wrong].sum()),
        int(wrong.sum()),
        metric="wrong training labels learned by heart",
        **about,
    )
    true = accuracy(
        "true labels",
        int((answers == noisy.true).sum()),
        n,
        metric="accuracy on the true training labels",
        **about,
    )
    text = (
        f"{heart.value:.1f} % of the {heart.n} wrong labels were learned by heart; "
        f"{true.value:.1f} % of all training images are given their true class"
    )
    return [*rows, heart, true], [Finding(text=text, verdict="note")]


def _difference(a: Interval | None, b: Interval | None, value: float) -> Interval | None:
    """Newcombe's interval of a difference of two independent shares, from their own."""
    if a is None or b is None:
        return None
    top, bottom = (a.low + a.high) / 2, (b.low + b.high) / 2
    half = float(np.hypot(a.high - top, b.high - bottom))
    return Interval(
        low=min(value, top - bottom - half),
        high=max(value, top - bottom + half),
        method="of the two accuracies, square and add",
    )
