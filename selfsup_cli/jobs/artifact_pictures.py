"""What chapter 3 does to images, drawn: `pretrain artifacts` and `sample artifacts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from selfsup_cli.data.source import ImageSource
from selfsup_cli.jobs.visualize_images import some_canvases
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.models.alexnet_artifacts import Verdicts
from selfsup_cli.randomness import generator
from selfsup_cli.visualization import artifact_sheet as drawing


def training_sheet(method: Artifacts, source: ImageSource, path: Path, count: int) -> None:
    """Draw `count` images as they are damaged, repaired and judged at the end of a training."""
    seed = method.preset.train.seed
    names, images = some_canvases(method, source, count, seed)
    artifact_sheet(method, names, images, path, seed=seed, title=f"Artifacts: {source.name}")


def artifact_sheet(
    method: Artifacts,
    names: Sequence[str],
    images: Tensor,
    path: Path,
    *,
    seed: int,
    title: str,
    note: str = "",
) -> None:
    """Draw images uint8 `[n, 3, S, S]` called `names`: a row for each, and the columns of `cells`.

    The method is used in evaluation mode. What is dropped is drawn from `seed`.
    """
    device = next(method.parameters()).device
    method.eval()
    g = generator(seed, "sheet", device=str(device))
    columns = cells(method, images.to(device), g)
    rows = [
        drawing.Row(name, [(head, column[i]) for head, column in columns])
        for i, name in enumerate(names)
    ]
    preset = method.preset
    said = (
        f"{preset.drop_rate:.0%} of the entries of a code are dropped, each of which stands for 16 "
        "pixels along each side: grey in the mask. Without repair is what the decoder makes of the "
        "rest."
    )
    if preset.locate:
        said += " Red is where the discriminator suspects damage."
    drawing.sheet(path, rows, title=title, note=f"{said} {note}".rstrip())


@torch.no_grad()
def cells(
    method: Artifacts, images: Tensor, g: torch.Generator, kept: Tensor | None = None
) -> list[tuple[str, Tensor]]:
    """Columns of a sheet: headings, and images float `[n, 3, S, S]` in [-1, 1] on the CPU.

    `images` are uint8 `[n, 3, S, S]`, on the method's device, as is `g`; `kept`, where Ω is not to
    be drawn from that, bool `[n, 1, S/16, S/16]`.
    """
    made = method.examples(images, g, kept)
    masks = [drawing.covered(x, k) for x, k in zip(made.canvases, made.kept, strict=True)]
    columns = [
        ("original", made.canvases),
        ("mask", torch.stack(masks)),
        ("autoencoded", made.replicas),
        ("without repair", made.unrepaired),
        ("repaired", made.repaired),
    ]
    verdicts: Verdicts = method.plain(made.repaired)
    if verdicts.masks is not None:
        likely = (-verdicts.masks.float()).sigmoid()
        hot = [drawing.heated(x, p) for x, p in zip(made.repaired, likely, strict=True)]
        columns.append(("suspected", torch.stack(hot)))
    return [(head, column.float().cpu()) for head, column in columns]
