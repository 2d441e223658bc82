"""A pack of images is a source like the files that it was made of, and as sound as they were."""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251 (how things travel to loader processes)
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, put
from PIL import Image
from test_image_sources import opened, refused
from test_shards import samples, shard

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.images import ImageData
from selfsup_cli.data import packing_images
from selfsup_cli.data.check_images import check_images, is_images
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.pack_about import ImageCoding
from selfsup_cli.data.pack_layout import START
from selfsup_cli.data.packing import Packed
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.jobs import data as job

AS_THEY_ARE = ImageCoding(shorter=None, quality=None)


def packed(
    source: Path | str,
    target: Path,
    coding: ImageCoding = AS_THEY_ARE,
    workers: int = 0,
    **how: Any,
) -> Packed:
    data = ImageData(source=str(source), **how)
    plan = packing_images.plan(data, coding, workers=0, progress=None)
    return packing_images.pack(plan, target, workers=workers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = ["train/a/1.jpg", "train/a/2.png", "train/b/3.webp", "test/a/4.jpg", "test/b/5.bmp"]
    return put(tmp_path / "mine", *names, size=(40, 60))


def test_a_pack_gives_what_the_files_give(root: Path, tmp_path: Path) -> None:
    packed(root, tmp_path / "p.h5")
    for part in ("train", "test", "all"):
        for labels in (True, False):
            ours, files = (opened(s, part, labels=labels) for s in (tmp_path / "p.h5", root))
            assert list(ours.ids) == list(files.ids)
            assert ours.split_rule == files.split_rule
            assert (ours.name, ours.classes) == (files.name, files.classes)
            assert ours.sizes.tolist() == files.sizes.tolist()
            if labels:
                assert np.array_equal(ours.labels, files.labels)
            for i in range(len(files)):
                assert torch.equal(ours.read(i), files.read(i))
                assert torch.equal(ours.read(i, (8, 9)), files.read(i, (8, 9)))
    there = pickle.loads(pickle.dumps(ours))  # noqa: S301
    assert torch.equal(there.read(1), ours.read(1))
    assert ImageDataset(ours, 0, size=8)[0, 0]["image"].shape == (1, 3, 8, 12)


def test_large_images_are_scaled_down_and_small_ones_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "f", "small.jpg", size=(16, 24))
    (tmp_path / "f" / "large.jpg").write_bytes(encoded("JPEG", 1, (64, 90), exif=exif))
    result = packed(tmp_path / "f", tmp_path / "p.h5", ImageCoding(shorter=32, quality=95))
    pack, files = opened(tmp_path / "p.h5"), opened(tmp_path / "f")
    assert list(pack.ids) == ["large.jpg", "small.jpg"]
    assert pack.sizes.tolist() == [[45, 32], [16, 24]]
    assert torch.equal(pack.read(1), files.read(1))
    difference = (pack.read(0).int() - files.read(0, 32).int()).abs().float()
    assert difference.mean() < 4
    loss = result.tables.about.loss
    assert loss is not None
    assert loss.frames == 1
    assert loss.mean == pytest.approx(float(difference.mean()), abs=1e-3)
    assert "off by" in pack.notes[0]


def test_data_without_a_split_is_divided_as_the_files_are(tmp_path: Path) -> None:
    root = put(tmp_path / "f", *(f"{i}.png" for i in range(20)))
    (root / "7 bad.jpg").write_text("no")
    (root / "cut.jpg").write_bytes(encoded("JPEG", 1, (99, 99))[:-300])
    result = packed(root, tmp_path / "p.h5")
    assert result.tables.about.reasons.keys() == {"20", "21"}
    for part in ("train", "test"):
        for share in (0.2, 0.45):
            files = opened(root, part, test_share=share)
            ours = opened(tmp_path / "p.h5", part, test_share=share)
            assert [name for name in files.ids if name != "cut.jpg"] == list(ours.ids)
            assert ours.split_rule == files.split_rule
    assert {out.id for out in opened(tmp_path / "p.h5").left_out} == {"7 bad.jpg", "cut.jpg"}


def test_attributes_and_shards_can_be_packed(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("path,Smiling,Male\n1.png,1,\n2.png,0,1\n")
    packed(tmp_path / "t.csv", tmp_path / "p.h5")
    pack = opened(tmp_path / "p.h5", labels=True)
    assert pack.attributes == ("Smiling", "Male")
    assert pack.labels is not None
    assert (pack.labels.dtype, pack.labels.tolist()) == (np.uint8, [[1, 255], [0, 1]])
    shard(tmp_path / "s.tar", samples(0, 5))
    packed(tmp_path / "s.tar", tmp_path / "q.h5")
    ours, theirs = (opened(tmp_path / name, labels=True) for name in ("q.h5", "s.tar"))
    assert list(ours.ids) == list(theirs.ids)
    assert np.array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("after", [1, 3])
def test_packing_goes_on_where_it_was_stopped(root: Path, tmp_path: Path, after: int) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(done: int, total: int) -> None:
        if done == after:
            raise Stop

    whole = packed(root, tmp_path / "whole.h5")
    plan = packing_images.plan(ImageData(source=str(root)), AS_THEY_ARE, workers=0, progress=None)
    with pytest.raises(Stop):
        packing_images.pack(plan, tmp_path / "p.h5", workers=0, progress=stop)
    again = packed(root, tmp_path / "p.h5", workers=2 if after == 1 else 0)
    assert again.resumed == after
    assert whole.path.read_bytes() == again.path.read_bytes()
    assert packed(root, tmp_path / "p.h5").resumed == 5
    with pytest.raises(InputError, match="another pack"):
        packed(root, tmp_path / "p.h5", ImageCoding(shorter=32, quality=90))


def test_damage_in_a_pack_is_found_and_told(root: Path, tmp_path: Path) -> None:
    packed(root, tmp_path / "p.h5")
    data = bytearray((tmp_path / "p.h5").read_bytes())
    data[START + 200] ^= 1
    (tmp_path / "p.h5").write_bytes(data)
    pack = opened(tmp_path / "p.h5")
    with pytest.raises(BadMediaError, match="do not match their checksum"):
        pack.read(0)
    pack.read(1)
    found = check_images(ImageData(source=str(tmp_path / "p.h5")), workers=0)
    assert [out.id for out in found.bad()] == [pack.ids[0]]
    data[-500] ^= 1
    (tmp_path / "p.h5").write_bytes(data)
    assert "is damaged or not ours" in refused(tmp_path / "p.h5")


def test_what_is_no_pack_of_images(root: Path, tmp_path: Path, data_dir: Path) -> None:
    packed(root, tmp_path / "p.h5")
    with pytest.raises(InputError, match="is a pack of images, and this command reads videos"):
        open_source(VideoData(source=str(tmp_path / "p.h5")), "all", labels=False, workers=0)
    clips = shutil.copytree(data_dir / "ucf101-sample", tmp_path / "clips")
    job.pack(VideoData(source=str(clips)), tmp_path / "v.h5", size=(16, 16), workers=0, quiet=True)
    assert "is a pack of videos, and this command reads images" in refused(tmp_path / "v.h5")
    assert not is_images(str(tmp_path / "v.h5"))
    for source in ("scenes", data_dir / "cifar10_lossless.h5"):
        with pytest.raises(InputError, match="there is nothing to pack"):
            packed(source, tmp_path / "x.h5")
    put(tmp_path / "flat", "a.jpg")
    packed(tmp_path / "flat", tmp_path / "flat.h5")
    assert "what was packed into it had none" in refused(tmp_path / "flat.h5", labels=True)


def test_the_job(root: Path, tmp_path: Path) -> None:
    data = ImageData(source=str(root))
    outcome = job.pack_images(data, tmp_path / "p.h5", shorter=20, workers=0, quiet=True)
    assert outcome.data["images"] == 5
    assert (outcome.data["shorter"], outcome.data["quality"]) == (20, 90)
    assert "5 images" in outcome.text
    json.dumps(outcome.data)
    first = opened(tmp_path / "p.h5").store.stored(0, "x")  # type: ignore[attr-defined]
    assert Image.open(io.BytesIO(first)).size == (30, 20)
