"""Sources whose labels or pixels are not their own, and Clothing1M, where labels are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.data.framing import Crop
from selfsup_cli.data.images import open_images
from selfsup_cli.data.label_noise import uniform
from selfsup_cli.data.relabelled import Relabelled
from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import generator


def scenes() -> ImageSource:
    settings = Rendered(images=24, test_images=8, side=32)
    return open_images(ImageData(source="scenes", scenes=settings), "train", labels=True, workers=0)


def test_other_labels_leave_the_images_as_they_are() -> None:
    source = scenes()
    assert source.labels is not None
    assert source.classes is not None
    noisy = uniform(source.labels, source.classes, 0.5, 0)
    found = Relabelled(source, noisy)
    assert isinstance(found, ImageSource)
    assert np.array_equal(np.asarray(found.labels), noisy.given)
    assert torch.equal(found.read(3), source.read(3))
    assert found.fingerprint != source.fingerprint
    chosen = np.array([5, 2, 9])
    part = found.subset(chosen)
    assert np.array_equal(np.asarray(part.labels), noisy.given[chosen])
    assert part.noisy is not None
    assert np.array_equal(part.noisy.true, source.labels[chosen])
    assert torch.equal(part.read(1), source.read(2))


def test_permuted_pixels_are_the_same_in_every_epoch_and_cut_out_after() -> None:
    source = scenes()
    found = Relabelled(source, None, 7)
    image, own = found.read(0), source.read(0)
    assert torch.equal(found.read(0), image)
    assert not torch.equal(image, own)
    for c in range(3):
        assert torch.equal(image[c].flatten().sort().values, own[c].flatten().sort().values)
    plan = Crop((16, 16), 32)
    region = plan(32, 32, generator(0, "crop"))
    cut = found.read(0, lambda h, w: plan(h, w, generator(0, "crop")))
    top, left = region.top, region.left
    assert torch.equal(cut, image[:, top : top + 16, left : left + 16])
    assert found.labels is source.labels
    assert found.fingerprint != source.fingerprint != Relabelled(source, None, 8).fingerprint


def clothes(root: Path) -> Path:
    (root / "images" / "0").mkdir(parents=True)
    names = [f"images/0/{number}.jpg" for number in range(6)]
    for name in names:
        Image.new("RGB", (8, 8)).save(root / name)
    lists = {
        "category_names_eng": ["T-Shirt", "Shirt"],
        "noisy_train_key_list": names[:3],
        "noisy_label_kv": [f"{name} {number % 2}" for number, name in enumerate(names[:3])],
        "clean_train_key_list": names[1:3],
        "clean_test_key_list": names[3:],
        "clean_label_kv": [f"{name} 1" for name in names[1:]],
    }
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_clothing1m_has_wrong_labels_and_right_ones(tmp_path: Path) -> None:
    root = clothes(tmp_path / "clothing1m")

    def opened(split: str, **more: str) -> ImageSource:
        data = ImageData.model_validate({"source": "clothing1m", "root": str(root), **more})
        return open_images(data, split, labels=True, workers=0)  # type: ignore[arg-type]

    train, clean, test = opened("train"), opened("train", part="clean"), opened("test")
    assert train.classes == ("T-Shirt", "Shirt")
    assert (list(train.ids), train.labels.tolist()) == (  # type: ignore[union-attr]
        [f"images/0/{n}.jpg" for n in range(3)], [0, 1, 0],
    )  # fmt: skip
    assert (len(clean), clean.labels.tolist()) == (2, [1, 1])  # type: ignore[union-attr]
    assert (len(test), test.labels.tolist()) == (3, [1, 1, 1])  # type: ignore[union-attr]
    own = open_images(ImageData(source=str(root)), "train", labels=True, workers=0)
    assert own.fingerprint == train.fingerprint
    with pytest.raises(InputError, match="the training parts auto"):
        opened("train", part="train")
    (root / "noisy_label_kv.txt").write_text("images/0/0.jpg 2\n")
    with pytest.raises(InputError, match=r"noisy_label_kv.txt:1: .* from 0 to 1"):
        opened("train")
    (root / "noisy_label_kv.txt").write_text("images/0/0.jpg 1\n")
    with pytest.raises(InputError, match=r"gives no label to images/0/1.jpg"):
        opened("train")
