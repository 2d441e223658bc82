"""Images with masks: how they lie on disk, what is read, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked_folders import disc, divided, folders, put_pair, voc, write_mask
from PIL import Image

from selfsup_cli.config.segment import MaskData
from selfsup_cli.data.framing import Region
from selfsup_cli.data.mask_classes import read_classes, voc_named
from selfsup_cli.data.mask_dataset import MaskDataset, ScaledCrop
from selfsup_cli.data.mask_source import open_masked
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import Coding, cut, decode_mask, encode_mask, read_mask, voc_palette
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.randomness import generator

NAMES = [f"p{i}" for i in range(6)]


def opened(root: Path, split: Any = "train", **data: Any) -> MaskedImages:
    return open_masked(MaskData(source=str(root), **data), split, workers=0)


def test_voc_colours_are_those_that_its_authors_print() -> None:
    palette = voc_palette()
    assert len(set(palette)) == 256
    assert palette[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert (palette[15], palette[20], palette[255]) == (
        (192, 128, 128), (0, 64, 128), (224, 224, 192),
    )  # fmt: skip


def test_a_mask_that_is_written_comes_back(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    data = encode_mask(labels, voc_palette())
    np.testing.assert_array_equal(decode_mask(data), labels)
    (tmp_path / "m.png").write_bytes(data)
    seen = Image.open(tmp_path / "m.png")
    np.testing.assert_array_equal(np.array(seen.convert("RGB")), np.array(voc_palette())[labels])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "m", Coding()), labels)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_masks_of_numbers_and_of_colours_say_the_same(mode: str, tmp_path: Path) -> None:
    root = folders(tmp_path / mode, NAMES, mode)
    if mode == "RGB":
        lines = ["ground 0 0 0", "disc 1, 2, 3", "2 4 6\tbar", "void 255 254 253"]
        (root / "classes.txt").write_text("\n".join(lines))
    else:
        (root / "classes.txt").write_text("# three\nground\ndisc\nbar\n")
    source = opened(root, "all")
    assert source.classes == ("ground", "disc", "bar")
    for i, name in enumerate(source.ids):
        image, labels = disc(int(name[-5]))
        np.testing.assert_array_equal(source.mask(i).numpy(), labels)
        np.testing.assert_array_equal(source.read(i).permute(1, 2, 0).numpy(), image)
    assert source.present.all()


def test_a_void_class_in_the_middle_does_not_count(tmp_path: Path) -> None:
    root = folders(tmp_path, NAMES, "L")
    (root / "classes.txt").write_text("ground\nvoid\nbar\n")
    source = opened(root, "all")
    assert (source.classes, source.label_of) == (("ground", "bar"), (0, 2))
    _, labels = disc(0)
    expected = np.select([labels == 0, labels == 2], [0, 1], 255)
    np.testing.assert_array_equal(source.mask(0).numpy(), expected)
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    assert opened(root, "all", void=[1]).classes == ("ground", "bar")


def test_voc_with_lists_and_without(tmp_path: Path) -> None:
    root = voc(tmp_path / "with", NAMES)
    train, test = opened(root), opened(root, "test")
    assert [Path(one).stem for one in train.ids] == ["p1", "p2", "p4", "p5"]
    assert [Path(one).stem for one in test.ids] == ["p0", "p3"]
    assert train.split_rule == "lists train and val"
    assert train.classes == voc_named().classes
    assert len(train.classes) == 21
    bare = voc(tmp_path / "without", NAMES, lists=False)
    parts = [set(opened(bare, part).ids) for part in ("train", "test")]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 6
    assert opened(bare).split_rule == "seeded 20 % held out (seed 0)"
    kit = tmp_path / "kit"
    voc(kit / "VOCdevkit" / "VOC2012", NAMES)
    named = open_masked(MaskData(source="voc2012", root=str(kit)), "train", workers=0)
    assert (named.name, len(named)) == ("voc2012", 4)


@pytest.mark.parametrize("form", ["{part}/{kind}", "{kind}/{part}"])
def test_parts_in_folders(form: str, tmp_path: Path) -> None:
    root = divided(tmp_path, NAMES, form)
    assert (len(opened(root)), len(opened(root, "test")), len(opened(root, "all"))) == (4, 2, 6)
    assert opened(root).classes == ("class 0", "class 1", "class 2")
    assert opened(root).fingerprint != opened(root, "test").fingerprint


def test_real_data_parses(data_dir: Path) -> None:
    train, test = (opened(data_dir / "camvid", part) for part in ("train", "test"))
    assert (len(train), len(test)) == (26, 10)
    assert train.classes is not None
    assert (len(train.classes), train.classes[3], train.classes[-1]) == (11, "road", "cyclist")
    stored = np.array(Image.open(data_dir / "camvid/trainannot/0001TP_006690.png"))
    expected = np.where(stored == 11, 255, stored)
    np.testing.assert_array_equal(train.mask(0).numpy(), expected)
    mini = opened(data_dir / "voc-mini", "all")
    assert len(mini) == 3
    assert mini.classes is not None
    there = [mini.classes[c] for c in np.flatnonzero(mini.present[0])]
    assert there == ["_background_", "bottle", "person"]


def test_what_is_cut_out_of_image_and_mask_is_the_same(tmp_path: Path) -> None:
    """Of an image that shows its mask, any crop at any scale shows that of the mask."""
    labels = np.zeros((60, 80), np.uint8)
    labels[20:45, 10:50] = 1
    for path in ("images/a.png", "images/b.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.repeat(labels[..., None] * 200, 3, 2)).save(tmp_path / path)
        write_mask(tmp_path / path.replace("images", "masks"), labels, "L")
    source = opened(tmp_path, "all")
    for epoch, scale in enumerate([(1.0, 1.0), (0.5, 0.7), (1.5, 2.0)]):
        dataset = MaskDataset(source, 0, ScaledCrop(48, None, scale))
        sample = dataset[epoch, 0]
        image, mask = sample["image"][0].float(), sample["mask"][0]
        assert image.shape[1:] == mask.shape == (48, 48)
        known = mask != 255
        assert ((image[0] > 100) == (mask == 1))[known].float().mean() > 0.95
        assert (image[:, ~known] == 128).all()
    small = MaskDataset(source, 0, ScaledCrop(48, 30, (1.0, 1.0)))[0, 0]["mask"][0]
    assert int((small != 255).sum()) == 30 * 40


def test_crops_lie_anywhere_and_inside() -> None:
    plan = ScaledCrop(32, 64, (0.5, 2.0))
    regions = [plan(80, 120, generator(0, i)) for i in range(200)]
    for region in regions:
        assert 0 <= region.top <= 80 - region.height
        assert 0 <= region.left <= 120 - region.width
        assert max(region.size) <= 32
        scale = region.size[0] / region.height
        assert 0.5 * 0.8 * 0.9 < scale < 2.0 * 0.8 * 1.1
    assert len({region.top for region in regions}) > 20
    assert {min(region.size) for region in regions} == {32}
    assert plan(80, 120, generator(0, 1)) == regions[1]


def test_scaled_masks_keep_their_labels() -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 7, 200], np.uint8), (30, 30))
    found = cut(labels, Region(3, 5, 20, 10, (40, 20)))
    np.testing.assert_array_equal(found.numpy(), labels[3:23, 5:15].repeat(2, 0).repeat(2, 1))
    assert set(cut(labels, Region(0, 0, 30, 30, (13, 17))).unique().tolist()) <= {0, 7, 200}


def test_a_mask_that_cannot_be_read_leaves_its_image_out(tmp_path: Path) -> None:
    root = folders(tmp_path, NAMES)
    whole = (root / "masks/p2.png").read_bytes()
    (root / "masks/p2.png").write_bytes(whole[: len(whole) // 2])
    source = opened(root, "all")
    assert len(source) == 5
    (out,) = source.left_out
    assert (out.id, out.reason) == ("images/p2.png", "its mask masks/p2.png: it is truncated")
    write_mask(root / "masks/p3.png", np.zeros((10, 10), np.uint8))
    place = list(source.ids).index("images/p3.png")
    with pytest.raises(BadMediaError, match="size has changed"):
        source.mask(place)


def test_subsets_keep_their_masks(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, NAMES), "all")
    part = source.subset(np.array([4, 1]))
    assert torch.equal(part.mask(0), source.mask(4))
    np.testing.assert_array_equal(part.present, source.present[[4, 1]])
    assert part.fingerprint != source.fingerprint


def _mistake(root: Path, what: str) -> str:
    """Make a mistake in a good folder; gives what the message has to say of it."""
    if what == "size":
        put_pair(root / "x.png", root / "masks/p1.png", 0, size=(20, 30))
        (root / "x.png").unlink()
        return r"the mask .*masks/p1\.png has 30×20 pixels and its image images/p1\.png 48×40"
    if what == "no mask":
        (root / "masks/p1.png").unlink()
        return r"images/p1\.png has no mask: there is no masks/p1\.png"
    if what == "no image":
        (root / "images/p1.png").unlink()
        return r"the mask .*masks/p1\.png belongs to no image"
    if what == "two of a name":
        put_pair(root / "images/p1.jpg", root / "masks/p1.png", 1)
        return r"'p1\.png' and 'p1\.jpg' have one name"
    if what == "label":
        (root / "classes.txt").write_text("ground\ndisc\n")
        return r"the mask .*masks/p0\.png has the label 2, and its 2 classes have the labels 0 to 1"
    if what == "16 bits":
        labels = np.full((40, 48), 300, np.uint16)
        Image.fromarray(labels).save(root / "masks/p1.png")
        return r"the mask .*masks/p1\.png has the label 300; labels are 0 to 254"
    if what == "colours":
        write_mask(root / "masks/p1.png", disc(1)[1], "RGB")
        return r"the mask .*masks/p1\.png: it has colours, and no classes\.txt says"
    if what == "unknown colour":
        for name in NAMES:
            write_mask(root / f"masks/{name}.png", disc(int(name[1]))[1], "RGB")
        (root / "classes.txt").write_text("ground 0 0 0\ndisc 1 2 3\nvoid 255 254 253\n")
        return r"the mask .*masks/p0\.png: the colour 2 4 6 stands for no class"
    if what == "one label":
        for name in NAMES:
            write_mask(root / f"masks/{name}.png", (disc(0)[1] > 3).astype(np.uint8) * 255, "L")
        return "have no two labels .255 does not count.; for masks in black and white"
    if what == "twice":
        (root / "classes.txt").write_text("ground\ndisc\nDisc\n")
        return r"classes\.txt:3: there are two classes 'Disc'"
    if what == "half of the colours":
        (root / "classes.txt").write_text("ground 0 0 0\ndisc\nbar\n")
        return r"classes\.txt: 1 of 3 classes have a colour"
    if what == "one colour":
        (root / "classes.txt").write_text("ground 0 0 0\ndisc 0 0 0\n")
        return r"classes\.txt:2: the colour 0 0 0 stands for two classes"
    if what == "no colour":
        (root / "classes.txt").write_text("ground 0 0 300\ndisc 0 0 1\n")
        return r"classes\.txt:1: 'ground 0 0 300': a colour is three numbers from 0 to 255"
    if what == "one class":
        (root / "classes.txt").write_text("ground\nvoid\n")
        return r"classes\.txt names 1 classes; there have to be 2 to 255"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    ["size", "no mask", "no image", "two of a name", "label", "16 bits", "colours",
     "unknown colour", "one label", "twice", "half of the colours", "one colour", "no colour",
     "one class"],
)  # fmt: skip
def test_mistakes_are_named(what: str, tmp_path: Path) -> None:
    root = folders(tmp_path, NAMES)
    said = _mistake(root, what)
    with pytest.raises(InputError, match=said):
        opened(root)


def test_a_part_of_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    root = divided(tmp_path / "parts", NAMES, "{part}/{kind}")
    for path in (root / "val/masks").iterdir():
        write_mask(path, np.full((40, 48), 255, np.uint8), "L")
    assert len(opened(root, "train")) == 4
    with pytest.raises(InputError, match="no pixel of the 2 masks of the split test counts"):
        opened(root, "test")


def test_data_without_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for data, said in (
        ({"source": str(tmp_path)}, "has no masks: expected in it are JPEGImages/"),
        ({"source": str(tmp_path / "nowhere")}, "nowhere does not exist: give a folder"),
        ({"source": "stl10"}, "stl10 has no masks; those that have are voc2007, voc2012"),
        ({"source": "ucf101"}, "ucf101 is a dataset of videos"),
        ({}, "no data is named; give --data voc2012"),
    ):
        with pytest.raises(InputError, match=said):
            open_masked(MaskData(**data), "train", workers=0)
    root = voc(tmp_path / "voc", NAMES)
    with pytest.raises(InputError, match="split 3 does not exist"):
        open_masked(MaskData(source=str(root), split=3), "train", workers=0)
    (root / "ImageSets/Segmentation/val.txt").write_text("p0\nunmasked\n")
    with pytest.raises(InputError, match=r"val\.txt:2: the image 'unmasked' has no mask"):
        opened(root)
    (root / "ImageSets/Segmentation/val.txt").write_text("p9\n")
    with pytest.raises(InputError, match=r"val\.txt:1: there is no image JPEGImages/p9\.jpg"):
        opened(root)


def test_lines_of_classes(tmp_path: Path) -> None:
    (tmp_path / "label_colors.txt").write_text("64 128 64\tAnimal\n192 0 128\tArch way\n")
    named = read_classes(tmp_path)
    assert named is not None
    assert named.classes == ("Animal", "Arch way")
    assert named.coding.colors == ((64, 128, 64), (192, 0, 128))
    assert read_classes(tmp_path / "nowhere") is None
