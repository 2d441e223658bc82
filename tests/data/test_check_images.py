"""`data check` of images, wherever they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, put
from test_check import checked, verdicts
from test_shards import samples, shard

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.check import Checked, Leak
from selfsup_cli.data.check_images import check_images, is_images, is_stored
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import data as job


def looked_at(source: Path | str, workers: int = 0, **data: str) -> Checked:
    assert is_stored(str(source))
    return check_images(ImageData(source=str(source), **data), workers=workers)


def test_a_folder_of_images_is_divided_as_a_job_would(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png")
    shutil.copyfile(tmp_path / "train" / "a" / "1.png", tmp_path / "test" / "a" / "4.png")
    found = checked(tmp_path)
    assert (found.rule, found.parts) == ("the folders train and test", {"train": 2, "test": 2})
    assert found.leaks == [Leak("train/a/1.png", "test/a/4.png")]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_of_a_shard(tmp_path: Path, workers: int) -> None:
    cut = encoded("JPEG", 1, (200, 200))
    members = [*samples(0, 5), ("cut.jpg", cut[: len(cut) // 2]), ("none.jpg", b"x")]
    members += [("grey.png", encoded("PNG", 3)), ("same.jpg", samples(2, 1)[0][1])]
    shard(tmp_path / "a.tar", members)
    found = looked_at(tmp_path / "a.tar", workers)
    told = verdicts(found)
    assert len(told) == 9
    assert told["a.tar/cut.jpg"].bad == "it is truncated"
    assert "not a readable JPEG" in (told["a.tar/none.jpg"].bad or "")
    assert found.duplicates == [("a.tar/000002.jpg", "a.tar/same.jpg")]
    good = told["a.tar/000000.jpg"]
    assert (good.bad, good.unusual, good.codec) == (None, ("smaller than 32 pixels",), "JPEG")
    assert (good.width, good.height) == (32, 24)
    assert sum(found.parts.values()) == 8


def test_arrays_and_copies_in_train_and_test(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    values[5] = values[1]
    np.savez(tmp_path / "a.npz", x_train=values[:4], x_test=values[4:])
    found = looked_at(tmp_path / "a.npz")
    assert (found.rule, found.parts) == ("arrays x_train and x_test", {"train": 4, "test": 2})
    assert found.leaks == [Leak("train/000001", "test/000001")]
    assert found.bad() == []


def test_what_is_not_checked_this_way(tmp_path: Path, data_dir: Path) -> None:
    for source in (data_dir / "photos", data_dir / "actions", "motion", "ucf101"):
        assert not is_stored(str(source))
    assert is_stored("celeba")
    with pytest.raises(InputError, match="scenes is rendered"):
        looked_at("scenes")


def test_what_is_taken_for_images(tmp_path: Path, data_dir: Path) -> None:
    put(tmp_path, "one.jpg")
    (tmp_path / "images.csv").write_text("path,label\none.JPG,a\n")
    (tmp_path / "videos.csv").write_text("path,label\none.mp4,a\n")
    (tmp_path / "none.csv").write_text("path,label\n")
    (tmp_path / "other.csv").write_text("name\none.jpg\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.txt").touch()
    images = ("photos", "cifar10-folder", "cifar10.npz", "voc-mini", "faces")
    for source in (*(data_dir / name for name in images), tmp_path / "images.csv",
                   tmp_path / "one.jpg", "celeba", "scenes"):  # fmt: skip
        assert is_images(str(source)), source
    # In a folder of both, the videos are what it is for.
    videos = ("actions", "broken", "actions/clips.csv")
    others = ("videos.csv", "none.csv", "other.csv", "empty", "notes", "nowhere", "one.jpg/x")
    for source in (*(data_dir / name for name in videos), *(tmp_path / name for name in others),
                   "motion", "ucf101", "", "z" * 300, "a\0b", "~nobody/x", None):  # fmt: skip
        assert not is_images(None if source is None else str(source)), source


def test_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard(tmp_path / "a.tar", [*samples(0, 3), ("bad.jpg", b"x")])
    outcome = job.check(VideoData(source=str(tmp_path / "a.tar")), workers=0, quiet=True)
    assert outcome.data["counts"] == {"image": {"files": 4, "sound": 3, "unusual": 3, "bad": 1}}
    sides = [outcome.data["images"][name]["median"] for name in ("shorter_side", "longer_side")]
    assert sides == [24, 32]
    assert outcome.data["images"]["sizes"] == {"32×24": 3}
    assert outcome.data["images"]["formats"] == {"JPEG": 3}
    assert (outcome.data["clips"], outcome.data["sizes"]) == (None, {})
    # What it writes makes the data usable.
    source = ImageData(source=str(tmp_path / "a.tar"), quarantine="quarantine.jsonl")
    again = check_images(source, workers=0)
    assert again.bad() == []


def test_a_folder_is_divided_by_the_lists_that_it_brings_along(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    put(tmp_path / "JPEGImages", *names)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    (lists / "train.txt").write_text("0\n1\n2\n4\n")
    (lists / "val.txt").write_text("3\n")
    found = checked(tmp_path)
    assert (found.rule, found.parts) == ("lists train and val", {"train": 4, "test": 1})
    assert len(found.verdicts) == 6


def test_a_fold_is_looked_at_if_it_is_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=values)
    for split in (1, 2):
        data = VideoData(source=str(tmp_path / "a.npz"), split=split)
        if split == 1:
            assert job.check(data, workers=0, quiet=True).data["split"]["train"] == 3
            continue
        with pytest.raises(InputError, match="split 2 does not exist"):
            job.check(data, workers=0, quiet=True)
