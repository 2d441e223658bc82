"""Proposals: what selective search makes, what is kept of it, and files of one's own."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from boxed_toys import opened, voc
from torchvision.ops import box_iou

from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.proposals import (
    SelectiveSearch,
    cache_folder,
    file_regions,
    from_file,
    searched,
)
from selfsup_cli.errors import InputError, MachineError

BIRD = ("bird", (11, 6, 20, 25))
SMALL = SelectiveSearch(side=60)


@pytest.fixture
def source(tmp_path: Path) -> BoxedImages:
    return opened(voc(tmp_path / "data", {name: [BIRD] for name in "abcd"}))


# Selective search


def test_it_finds_what_stands_out(data_dir: Path) -> None:
    image = torch.full((3, 120, 160), 40, dtype=torch.uint8)
    image[0, 30:90, 50:110] = 220
    found = SelectiveSearch(side=160)(image)
    assert found.dtype == np.float32
    best = box_iou(torch.from_numpy(found), torch.tensor([[50.0, 30, 110, 90]])).max()
    assert best > 0.9
    area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
    assert (np.diff(area) <= 1).all()
    raccoon = opened(data_dir / "voc-raccoon", "test").subset(np.array([3]))
    boxes = SelectiveSearch(side=200)(raccoon.read(0))
    height, width = raccoon.sizes[0].tolist()
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes) > 50
    truth = torch.from_numpy(raccoon.boxes[0].boxes).float()
    assert box_iou(torch.from_numpy(boxes), truth).max() > 0.7
    np.testing.assert_array_equal(SelectiveSearch(side=200)(raccoon.read(0)), boxes)
    np.testing.assert_array_equal(SelectiveSearch(side=200, most=20)(raccoon.read(0)), boxes[:20])


def test_an_image_too_narrow_to_search_has_none() -> None:
    assert SelectiveSearch(side=100)(torch.zeros(3, 2, 300, dtype=torch.uint8)).shape == (0, 4)


# The cache


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    plain = SelectiveSearch.__call__

    def called(self: SelectiveSearch, image: torch.Tensor) -> np.ndarray:
        calls.append(1)
        return plain(self, image)

    monkeypatch.setattr(SelectiveSearch, "__call__", called)
    return calls


def test_what_was_found_is_not_searched_again(
    source: BoxedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch)
    some = searched(source.subset(np.array([2, 0])), SMALL, workers=0)
    assert len(calls) == 2
    told: list[tuple[int, int]] = []
    every = searched(source, SMALL, workers=0, told=lambda *two: told.append(two))
    assert len(calls) == 4
    assert told == [(3, 4), (4, 4)]
    for ours, theirs in zip(some, (every[2], every[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for place, boxes in enumerate(searched(source, SMALL, workers=0)):
        np.testing.assert_array_equal(boxes, every[place])
    assert len(calls) == 4
    searched(source, SelectiveSearch(side=61), workers=0)
    assert len(calls) == 8


def test_a_search_that_is_stopped_goes_on(
    source: BoxedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(source, SMALL, workers=0, told=stop)
    assert len(calls) == 2
    searched(source, SMALL, workers=0)
    assert len(calls) == 4


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_damage_is_found_and_searched_again(
    source: BoxedImages, where: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(source, SMALL, workers=0)
    (shard,) = cache_folder(source, SMALL).glob("*.h5")
    content = bytearray(shard.read_bytes())
    content[int(where * len(content))] ^= 1
    shard.write_bytes(content)
    calls = counting(monkeypatch)
    again = searched(source, SMALL, workers=0)
    assert len(calls) == 4
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert shard.exists()


def test_without_opencv_the_way_out_is_told(
    source: BoxedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "cv2":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(MachineError, match="opencv-contrib") as caught:
        searched(source, SMALL, workers=0)
    assert caught.value.hint is not None
    assert "pip install 'selfsup[detect]'" in caught.value.hint


# Files

ROWS = {"a": [[0, 0, 9, 9], [1.5, 2, 40, 30]], "JPEGImages/b.png": [], "c.png": [[3, 3, 9, 9]],
        "d": [[-2, 1, 60, 8]]}  # fmt: skip


def written(path: Path, rows: dict[str, list[list[float]]]) -> Path:
    boxes = np.array([box for each in rows.values() for box in each], np.float64).reshape(-1, 4)
    offsets = np.cumsum([0, *(len(each) for each in rows.values())])
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".npz":
        np.savez(path, images=np.array(list(rows)), offsets=offsets, boxes=boxes)
    else:
        with h5py.File(path, "w") as file:
            file["images"] = list(rows)
            file["offsets"], file["boxes"] = offsets, boxes
    return path


@pytest.mark.parametrize("suffix", [".json", ".npz", ".h5"])
def test_three_kinds_of_files_say_the_same(
    tmp_path: Path, source: BoxedImages, suffix: str
) -> None:
    found = from_file(written(tmp_path / f"p{suffix}", ROWS), source)
    assert [len(boxes) for boxes in found] == [2, 0, 1, 1]
    np.testing.assert_array_equal(found[0], np.array(ROWS["a"], np.float32))
    np.testing.assert_array_equal(found[3], [[0, 1, 40, 8]])  # what reaches beyond is clipped


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": []}, r"no proposals for JPEGImages/b\.png"),
        ({**ROWS, "a": [[50, 3, 60, 9]]}, r"JPEGImages/a\.png \(50, 3, 60, 9\) has no area"),
        ({**ROWS, "a": [[9, 3, 9, 9]]}, "has no area"),
        ({**ROWS, "a": [[1, 2, 3]]}, "four finite numbers"),
        ({**ROWS, "a": [[1, 2, 3, float("nan")]]}, "four finite numbers"),
        ({**ROWS, "a": "x"}, "is no file of proposals"),
        ([1], "is no file of proposals"),
    ],
)
def test_entries_that_are_none(tmp_path: Path, source: BoxedImages, rows: Any, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=rf"p\.json.*{said}"):
        from_file(path, source)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content in (
        ("gone.json", None), ("a.csv", b""), ("a.npz", b"x"), ("a.h5", b"x"), ("a.json", b"{"),
    ):  # fmt: skip
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            file_regions(path)
    for offsets in ([0, 1, 3], [0, 2, 1, 2, 2], [1, 1, 1, 1, 2]):
        path = tmp_path / "bad.npz"
        boxes = np.zeros((2, 4))
        np.savez(path, images=np.array(list("abcd")), offsets=np.array(offsets), boxes=boxes)
        with pytest.raises(InputError, match=r"bad\.npz"):
            file_regions(path)
    np.savez(path, images=np.array([object()]), offsets=np.array([0, 0]), boxes=np.zeros((0, 4)))
    with pytest.raises(InputError, match=r"bad\.npz"):
        file_regions(path)
