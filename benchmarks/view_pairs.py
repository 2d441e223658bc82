"""Pairs of views into the trainer: from prepared crops against from video; what sharing Φ saves."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import measure
import numpy as np
import torch
import torch.nn.functional as F
from videos import FRAMES, HEIGHT, WIDTH, make

from selfsup_cli.config.figures import Figures
from selfsup_cli.config.multiview import Pairs
from selfsup_cli.data.figures import open_figures
from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.data.video import decode, probe
from selfsup_cli.data.view_pairs import Anchor, AnchorDataset, Anchors, Stretch
from selfsup_cli.methods.multiview import IMAGES, losses, pairs_of
from selfsup_cli.models import build
from selfsup_cli.models.siamese import Question, Siamese
from selfsup_cli.transforms.views import Prepared

SIDE, ANCHORS, BATCH, ROUNDS = 64, 64, 8, 3
SPEED, SHARED = "≥ 5", "≥ 1.3"
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """CPU time on one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return [*_reading(Path(folder)), _sharing()]


def _reading(folder: Path) -> list[measure.Row]:
    figures = Figures(actions=["walking"], seconds=FRAMES / 50)
    views = open_figures(figures, SIDE, subjects=("S1", "S9"), cache=folder)
    whole = [Stretch(k, 0, one.frames) for k, one in enumerate(views.recordings)]
    anchors = Anchors(views, whole, Pairs(), name="figures", split="train", split_rule="all")
    dataset = AnchorDataset(anchors, seed=0)
    chosen = np.linspace(0, len(anchors) - 1, ANCHORS).round().astype(int).tolist()
    files = [(path, probe(path)) for path in make(folder / "videos", "h264", 4)]
    contenders = {
        "crops": lambda: [dataset[0, index] for index in chosen],
        "video": lambda: [_from_video(files, anchors.anchor(0, 0, i)) for i in chosen],
    }
    spent = measure.interleaved(contenders, ROUNDS)
    began = time.perf_counter()
    contenders["crops"]()
    rate = ANCHORS / (time.perf_counter() - began)
    what = f"anchors of two cameras, three crops of {SIDE} pixels and masks"
    return [
        (what, f"three frames of {WIDTH}×{HEIGHT} H.264", spent["video"] / spent["crops"], SPEED),
        (f"{what}, a second", "–", rate, ""),
    ]


def _from_video(files: list[tuple[Path, VideoInfo]], anchor: Anchor) -> torch.Tensor:
    """The same three images, exactly decoded, cut out and scaled."""
    parts = []
    for camera, times in (
        (anchor.first, [anchor.time]),
        (anchor.second, [anchor.time, anchor.later]),
    ):
        clip = decode(*files[camera], np.array(times))
        square = clip[..., :HEIGHT].transpose(0, 1).float()
        parts.append(F.interpolate(square, size=(SIDE, SIDE), mode="bilinear", antialias=True))
    return torch.cat(parts)


def _sharing() -> measure.Row:
    """Four images of an anchor once, or the six of its three pairs one pair after the other."""
    network = Siamese(build("resnet18", crop=SIDE, signed=True, colours="imagenet", seed=0))
    network.train()
    g = torch.Generator().manual_seed(0)
    images = torch.rand(IMAGES * BATCH, 3, SIDE, SIDE, generator=g) * 2 - 1
    second = torch.arange(BATCH) % 2 == 0
    asked = pairs_of(Prepared(torch.zeros(BATCH, IMAGES, 3, 1, 1, dtype=torch.uint8), second))

    def once() -> None:
        _descend(losses(network(images, asked)))

    def apart() -> None:
        kinds = {
            "p": asked["sync"][:BATCH], "n": asked["sync"][BATCH:], "f": asked["flip"][BATCH:],
        }  # fmt: skip
        features = {
            name: [network.backbone(images[ij[:, side]]) for side in (0, 1)]
            for name, ij in kinds.items()
        }
        answers: tuple[tuple[Question, str], ...] = (("sync", "n"), ("flip", "f"))
        found = {
            question: torch.cat(
                [network.score(question, *features["p"]), network.score(question, *features[no])]
            )
            for question, no in answers
        }
        _descend(losses(found))

    spent = measure.interleaved({"once": once, "apart": partial(apart)}, ROUNDS)
    what = f"a step of ResNet-18, {BATCH} anchors of {SIDE} pixels, each image seen once"
    return what, "each pair by itself", spent["apart"] / spent["once"], SHARED


def _descend(parts: dict[Question, torch.Tensor]) -> None:
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    measure.main(rows, LIMITS)
