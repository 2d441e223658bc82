"""`selfsup data` on images: what check says of them, and packs that are used as the files are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import packing_images
from selfsup_cli.data.images import open_images

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from pictures import put

Selfsup = Callable[..., Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a command writes into its folder goes where it does no harm."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes in `train` and `test`, 40×60 pixels."""
    names = (f"{part}/{name}/{i}.jpg" for part in ("train", "test") for name in "ab" for i in "012")
    return put(tmp_path / "mine", *names, size=(40, 60))


def cells(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_check_says_of_images_what_one_wants_to_know(selfsup: Selfsup, data_dir: Path) -> None:
    told = selfsup("data", "check", str(data_dir / "photos"), "--workers", "0", "-q")
    assert told.status == 0
    found = cells(told.out)
    assert ["images", "600", "600", "7", "0"] in found
    assert ["shorter", "side", "113", "215", "300"] in found
    assert "\nformats: JPEG (600)\n" in told.out
    assert "  image: grey (7): test/butterfly/image_0059.jpg, " in told.out
    assert "split (the folders train and test): 480 train, 120 test" in told.out
    for word in ("video", "clip", "frame", "codec"):
        assert word not in told.out


def test_check_of_odd_images(selfsup: Selfsup, data_dir: Path, here: Path) -> None:
    names = [one.name for one in (data_dir / "broken").iterdir() if one.suffix in (".jpg", ".png")]
    (here / "odd").mkdir()
    for name in names:
        shutil.copyfile(data_dir / "broken" / name, here / "odd" / name)
    shutil.copyfile(here / "odd" / "cmyk.jpg", here / "odd" / "again.jpg")
    told = selfsup("data", "check", "odd", "--workers", "0", "-q")
    assert ["images", "18", "13", "13", "5"] in cells(told.out)
    for line in (
        "image: CMYK colours (2): again.jpg, cmyk.jpg",
        "image: to be turned upright (EXIF) (1): exif_rotated.jpg",
        "image: grey (1): gray.jpg",
        "image: 16 bits a value (1): gray16.png",
        "image: a palette, with transparency (1): palette_transparent.png",
        "image: progressive (1): progressive.jpg",
        "truncated_half.jpg: it is truncated",
        "again.jpg = cmyk.jpg",
    ):
        assert f"  {line}\n" in told.out
    assert "the same content: 1 files are copies of others" in told.out
    listed = (here / "quarantine.jsonl").read_text().splitlines()
    assert len(listed) == 5


def test_check_of_arrays(selfsup: Selfsup, data_dir: Path) -> None:
    told = selfsup("data", "check", str(data_dir / "cifar10_lossless.h5"), "-q", "--json")
    found = json.loads(told.out)["data"]
    assert found["counts"] == {"image": {"files": 6187, "sound": 6187, "unusual": 0, "bad": 0}}
    assert found["images"]["sizes"] == {"32×32": 6187}
    assert (found["split"]["train"], found["split"]["test"]) == (5170, 1017)


def test_a_pack_from_the_command_line(selfsup: Selfsup, pictures: Path, here: Path) -> None:
    told = selfsup("data", "pack", str(pictures), "mine.h5", "--workers", "0")
    assert told.status == 0, told.err
    first, second, third, last = told.out.splitlines()
    assert (first, second) == ("pack of image files as they are", "12 images")
    assert third.endswith(" times the files")
    assert last == str(here / "mine.h5")
    for part in ("train", "test"):
        files, pack = (
            open_images(ImageData(source=str(source)), part, labels=True, workers=0)  # type: ignore[arg-type]
            for source in (pictures, "mine.h5")
        )
        assert list(files.ids) == list(pack.ids)
        assert files.split_rule == pack.split_rule
        assert (files.labels == pack.labels).all()  # type: ignore[union-attr]
        assert all(torch.equal(files.read(i, 24), pack.read(i, 24)) for i in range(len(files)))
    told = selfsup("data", "pack", str(pictures), "small.h5", "--shorter", "20", "--workers", "0")
    first = told.out.splitlines()[0]
    assert first.startswith("pack of image files, shorter side at most 20, JPEG quality 90, off by")
    assert first.endswith("(12 images compared)")
    again = selfsup(
        *("data", "pack", str(pictures), "small.h5", "--shorter", "20", "--quality", "90"),
        *("--workers", "0", "--json"),
    )
    data = json.loads(again.out)["data"]
    assert (data["images"], data["shorter"], data["packed_before"]) == (12, 20, 12)
    told = selfsup("data", "pack", str(pictures), "small.h5", "--workers", "0")
    assert (told.status, told.out) == (2, "")
    assert "is another pack" in told.err
    checked = selfsup("data", "check", "small.h5", "--workers", "0", "-q")
    assert ["images", "12", "12", "12", "0"] in cells(checked.out)
    assert "sizes (width×height): 30×20 (12)\n" in checked.out


def test_a_signal_keeps_what_is_packed(
    selfsup: Selfsup, pictures: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(name: str) -> Any:
        return selfsup("data", "pack", str(pictures), name, "--workers", "0")

    assert pack("whole.h5").status == 0
    store, seen = packing_images.store, []

    def signalled(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return store(*arguments)

    monkeypatch.setattr(packing_images, "store", signalled)
    told = pack("cut.h5")
    assert (told.status, told.out) == (143, "")
    assert "stopped by SIGTERM after saving the images packed so far" in told.err
    assert not (here / "cut.h5").exists()
    told = pack("cut.h5")
    assert (told.status, len(seen)) == (0, 12)
    assert "5 images had been packed before" in told.out
    assert (here / "cut.h5").read_bytes() == (here / "whole.h5").read_bytes()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pack MINE out.h5 --size 96x96", "--size is for videos, and MINE holds images"),
        ("pack MINE out.h5 --raw", "--raw is for videos"),
        ("pack MINE out.h5 --quality 80", "with --shorter N"),
        ("pack MINE out.h5 --shorter 4", "--shorter"),
        ("pack MINE out.h5 --shorter 9000", "--shorter"),
        ("pack MINE out.zip", "ends in .h5"),
        ("pack MINE/train/a/0.jpg out.h5", "is a single image"),
        ("pack motion out.h5 --shorter 96", "--shorter is for images, and motion is taken"),
        ("pack nowhere/at/all out.h5 --shorter 96", "there is no folder"),
        ("pack scenes out.h5", "nothing to pack"),
        ("pack cifar10 out.h5", "$SELFSUP_DATA"),
        ("check scenes", "nothing to check"),
        ("check MINE --split 3", "split 3 does not exist"),
    ],
)
def test_mistakes(selfsup: Selfsup, pictures: Path, here: Path, line: str, said: str) -> None:
    told = selfsup("data", *line.replace("MINE", str(pictures)).split())
    assert (told.status, told.out) == (2, "")
    assert said.replace("MINE", str(pictures)) in told.err
    assert len([one for one in told.err.splitlines() if "error: " in one]) == 1
    assert list(here.iterdir()) == []
