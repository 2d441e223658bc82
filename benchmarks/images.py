"""Images a second: into the trainer against torchvision's `ImageFolder`, and one by one.

They are real ones: the folder of test data, or the one that $SELFSUP_TEST_DATA names.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image
from selfsup_cli.data.framing import Crop, RandomResizedCrop, region_of
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.images import open_images
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.randomness import generator

DATA = Path(os.environ.get("SELFSUP_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDERS = {"JPEG": "photos-unlabeled", "PNG": "cifar10-folder/train"}
SHORTER, CROP, BATCH, WORKERS, ROUNDS = 96, 80, 64, 2, 7
LOADER = {"JPEG": "≥ 1.9", "PNG": "≥ 1"}
FOLDER = "images/s to the trainer, {}, 2 workers"
RRC = "decoding and a random resized crop of 224, 1 thread"
LARGE = "decoding 1600×1200 to a shorter side of 256, 1 thread"
_DECODER = (
    "decoding, which takes more than half of our time: Pillow 13 brings the same libjpeg-turbo, "
    "and needs a fifth more for it, not half as much again; only scaling is three times as fast"
)
LIMITS = {
    FOLDER.format("JPEG"): _DECODER,
    RRC: _DECODER,
    FOLDER.format("PNG"): "decoding, by Pillow in both, and checksums that we verify beforehand",
}


def rows() -> list[measure.Row]:
    """Our images a second over those of each peer."""
    torch.set_num_threads(1)
    if not DATA.is_dir():
        print(f"images are left out: there is no folder {DATA}", file=sys.stderr)
        names = [(FOLDER.format(kind), "torchvision ImageFolder") for kind in FOLDERS]
        return [(*name, measure.ABSENT, "") for name in names]
    found: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SELFSUP_CACHE"] = scratch
        for kind, name in FOLDERS.items():
            folder = Path(scratch, kind)
            folder.mkdir()
            (folder / "all").symlink_to(DATA / name)
            spent = to_the_trainer(folder)
            ratio = spent["torchvision"] / spent["ours"]
            found.append((FOLDER.format(kind), "torchvision ImageFolder", ratio, LOADER[kind]))
    return found + one_by_one()


def to_the_trainer(folder: Path) -> dict[str, float]:
    """Median seconds of an epoch of random crops; the workers are started beforehand."""
    source = open_images(ImageData(source=str(folder)), "all", labels=False, workers=0)
    plan = Crop((CROP, CROP), SHORTER, random=True)
    ours = EpochLoader(
        ImageDataset(source, 0, plan=plan), len(source), batch_size=BATCH, seed=0, workers=WORKERS
    )
    same = v2.Compose([v2.Resize(SHORTER), v2.RandomCrop(CROP), v2.PILToTensor()])
    theirs: Any = DataLoader(
        ImageFolder(folder, same), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip

    def epoch(batches: Callable[[], Iterator[torch.Tensor]]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches():
                assert batch.shape == (BATCH, 3, CROP, CROP)
                assert batch.dtype == torch.uint8

        return run

    runs = {
        "ours": epoch(lambda: (batch["image"] for batch in ours.epoch(0))),
        "torchvision": epoch(lambda: (batch for batch, _ in theirs)),
    }
    return measure.interleaved(runs, ROUNDS, time.perf_counter)


def one_by_one() -> list[measure.Row]:
    """CPU time of others over ours, of files that are in memory."""
    photos = [path.read_bytes() for path in sorted((DATA / FOLDERS["JPEG"]).iterdir())[:64]]
    # The size of most photos in data sets: twice that of these.
    larger = [_encoded(data, 2.5) for data in photos[:24]]
    huge = [_encoded(data, (1600, 1200)) for data in photos[:6]]
    ours_plan, theirs = RandomResizedCrop((224, 224)), v2.RandomResizedCrop(224)
    to_tensor = v2.PILToTensor()

    def ours() -> None:
        for i, data in enumerate(larger):
            g = generator(0, 0, i, "framing")
            image.decode(data, lambda height, width, g=g: ours_plan(height, width, g))

    def pillow() -> None:
        for i, data in enumerate(larger):
            with Image.open(io.BytesIO(data)) as opened:
                region = ours_plan(opened.height, opened.width, generator(0, 0, i, "framing"))
                box = (region.left, region.top, region.left + region.width,
                       region.top + region.height)  # fmt: skip
                scaled = opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR, box)
                np.asarray(scaled)

    def torchvision() -> None:
        for data in larger:
            with Image.open(io.BytesIO(data)) as opened:
                to_tensor(theirs(opened.convert("RGB")))

    def build() -> None:
        for data in huge:
            image.decode(data, 256)

    def build_pillow() -> None:
        for data in huge:
            with Image.open(io.BytesIO(data)) as opened:
                size = region_of(256, opened.height, opened.width).size
                np.asarray(opened.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))

    spent = measure.interleaved({"ours": ours, "pillow": pillow, "tv": torchvision}, ROUNDS)
    built = measure.interleaved({"ours": build, "pillow": build_pillow}, ROUNDS)
    return [
        (RRC, "Pillow", spent["pillow"] / spent["ours"], "≥ 1.5"),
        (RRC, "torchvision on Pillow", spent["tv"] / spent["ours"], "≥ 1.9"),
        (LARGE, "Pillow, decoded in full", built["pillow"] / built["ours"], "≥ 4"),
    ]


def _encoded(data: bytes, size: float | tuple[int, int]) -> bytes:
    """A photo enlarged to a size, or by a factor, as a JPEG."""
    with Image.open(io.BytesIO(data)) as opened:
        if not isinstance(size, tuple):
            size = (int(opened.width * size), int(opened.height * size))
        buffer = io.BytesIO()
        opened.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()


if __name__ == "__main__":
    measure.main(rows, LIMITS)
