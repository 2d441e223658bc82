"""What is drawn of a training: every number that it wrote, over its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfsup_cli.runs.report import Curve


def training_curves(
    rows: list[dict[str, Any]], chances: Mapping[str, float] | None = None
) -> list[Curve]:
    """Every number of `metrics.jsonl` over the epochs, at most 500 points each, with its chance."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch") and isinstance(value, int | float):
                series.setdefault(name, []).append((float(row["epoch"]), float(value)))
    return [
        Curve(
            name=name,
            x_label="epoch",
            y_label=_panel(name),
            points=points[:: len(points) // 500 + 1],
            chance=(chances or {}).get(name),
        )
        for name, points in series.items()
    ]


def _panel(name: str) -> str:
    """Under which heading a number of `metrics.jsonl` is drawn."""
    for start, panel in (
        ("loss", "training loss"),
        ("acc_", "training accuracy"),
        ("lr", "learning rate"),
        ("test_accuracy", "accuracy (quick)"),
        ("train_accuracy", "accuracy (quick)"),
        ("omega_negative", "share of weights below zero"),
        ("omega_", "weight of mini-batches"),
        ("autoencoder_error", "error of the autoencoder"),
        ("heldout_autoencoder_error", "error of the autoencoder"),
        ("heldout_motion", "held-out accuracy, kind"),
        ("heldout_speed", "held-out accuracy, speed"),
        ("heldout_transformation", "held-out accuracy"),
        ("heldout_border_error", "held-out error of the inpainter"),
        ("heldout_autoencode_error", "held-out error of the inpainter"),
        ("border_error", "error of the inpainter"),
        ("autoencode_error", "error of the inpainter"),
        ("knn_", "k-NN accuracy"),
        ("heldout_discriminator", "held-out accuracy of the discriminator"),
        ("heldout_gradient", "gradient at samples"),
        ("gradient_at", "gradient at samples"),
        ("heldout_noise", "noise"),
        ("noise_rms", "noise"),
    ):
        if name.startswith(start):
            return panel
    return name.replace("_", " ")
