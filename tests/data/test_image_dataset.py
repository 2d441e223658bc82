"""What a loader gives of images is a function of (seed, epoch, index), whatever the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import put
from test_image_sources import opened

from selfsup_cli.config.images import Rendered
from selfsup_cli.data.framing import Crop, RandomResizedCrop
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import BadMediaError, TrainingError

SMALL = Rendered(images=24, test_images=8)


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    names = [f"{c}/{i}.jpg" for c in "ab" for i in range(6)]
    return opened(put(tmp_path / "f", *names, size=(40, 60)), labels=True)


def batches(source: ImageSource, workers: int, epoch: int, start: int = 0) -> list[dict[str, Any]]:
    dataset = ImageDataset(source, 5, plan=RandomResizedCrop((16, 20)))
    loader = EpochLoader(dataset, len(source), batch_size=4, seed=5, workers=workers)
    return list(loader.epoch(epoch, start))


def test_workers_and_start_change_nothing(source: ImageSource) -> None:
    whole = batches(source, 0, 1)
    assert whole[0]["image"].shape == (4, 3, 16, 20)
    assert whole[0]["image"].dtype == torch.uint8
    assert whole[0]["image"].is_contiguous()
    for other, expected in ((batches(source, 2, 1), whole), (batches(source, 0, 1, 2), whole[2:])):
        assert len(other) == len(expected)
        for a, b in zip(other, expected, strict=True):
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["index"], b["index"])
            assert (a["id"], a["bad"]) == (b["id"], b["bad"])


def test_a_sample_says_what_it_is(source: ImageSource) -> None:
    for batch in batches(source, 0, 0):
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        for index, name, label in zip(
            batch["index"].tolist(), batch["id"], batch["label"].tolist(), strict=True
        ):
            assert source.ids[index] == name
            assert source.classes is not None
            assert source.classes[label] == name.split("/")[0]


def test_epochs_and_seeds_see_other_parts_of_an_image(source: ImageSource) -> None:
    def seen(seed: int, epoch: int) -> torch.Tensor:
        dataset = ImageDataset(source, seed, plan=Crop((20, 20), random=True))
        return dataset[epoch, 3]["image"]

    assert torch.equal(seen(0, 0), seen(0, 0))
    assert not torch.equal(seen(0, 0), seen(0, 1))
    assert not torch.equal(seen(0, 0), seen(1, 0))
    whole = source.read(3)
    crop = seen(0, 0)[0]
    places = [
        (top, left)
        for top in range(21)
        for left in range(41)
        if torch.equal(whole[:, top : top + 20, left : left + 20], crop)
    ]
    assert len(places) == 1


def test_sizes(source: ImageSource) -> None:
    def shape(size: Any) -> list[int]:
        return list(ImageDataset(source, 0, size=size)[0, 0]["image"].shape)

    assert [shape(None), shape(20), shape((8, 9))] == [
        [1, 3, 40, 60],
        [1, 3, 20, 30],
        [1, 3, 8, 9],
    ]
    with pytest.raises(ValueError, match="either a size or a plan"):
        ImageDataset(source, 0, size=8, plan=Crop((8, 8)))


def test_several_labels_and_none() -> None:
    faces = opened("facelike", "train", labels=True, facelike=SMALL)
    loader = EpochLoader(ImageDataset(faces, 0), len(faces), batch_size=6, seed=0)
    batch = next(iter(loader.epoch(0)))
    assert batch["label"].shape == (6, 8)
    assert batch["label"].dtype == torch.uint8
    assert faces.labels is not None
    assert np.array_equal(batch["label"].numpy(), faces.labels[batch["index"].numpy()])
    plain = opened("scenes", "train", scenes=SMALL)
    assert "label" not in ImageDataset(plain, 0)[0, 0]


def test_a_bad_image_is_replaced_by_the_next_and_named(data_dir: Path) -> None:
    source = opened(data_dir / "broken")
    bad = list(source.ids).index("truncated_half.jpg")
    dataset = ImageDataset(source, 0, size=(16, 16))
    sample = dataset[0, bad]
    assert sample["bad"] == [("truncated_half.jpg", "it is truncated")]
    assert int(sample["index"]) == (bad + 1) % len(source)
    assert sample["id"] == source.ids[(bad + 1) % len(source)]
    assert torch.equal(sample["image"], dataset[0, (bad + 1) % len(source)]["image"])
    only = source.subset(np.array([bad]))
    with pytest.raises(TrainingError, match="1 images in a row cannot be read"):
        ImageDataset(only, 0)[0, 0]
    with pytest.raises(BadMediaError):
        only.read(0)


def test_arrays_through_worker_processes(data_dir: Path) -> None:
    source = opened(data_dir / "cifar10.npz", "test", labels=True).subset(np.arange(40))
    loader = EpochLoader(ImageDataset(source, 0), 40, batch_size=8, seed=1, workers=2)
    seen = torch.cat([batch["index"] for batch in loader.epoch(0)])
    assert sorted(seen.tolist()) == list(range(40))
