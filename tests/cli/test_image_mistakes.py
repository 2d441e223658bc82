"""Mistakes with images end in one clear sentence: exit status 2, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_bad_input import refused

from selfsup_cli.models import build, save_backbone

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from pictures import put

HERE = Path(__file__).parent
PRETRAIN = "pretrain transformations --width 0.125 --data PHOTOS"
PROBE = "probe --from WEIGHTS --data"
CLASSIFY = "transfer classify --init WEIGHTS --data"

# A command line, and what is said of it.
MISTAKES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "sizes": [
        (f"{PRETRAIN} --crop 90", ("90 does not fit into a canvas of 80",)),
        (f"{PRETRAIN} --canvas 100", ("100 does not fit into images", "shorter side is 96")),
        (f"{PRETRAIN} --set lci.patch=96", ("a canvas of 98, not 80",)),
        (f"{PRETRAIN} --set lci.patch=47", ("must be a multiple of 8",)),
        (f"{PRETRAIN} --set framing.jitter=20", ("jitter", "at most 8 pixels")),
        (f"{CLASSIFY} PHOTOS --crop 100 --shorter 96", ("100 does not fit into images",)),
    ],
    "inpainting": [
        (f"{PRETRAIN} --set lci.border=24", ("leaves nothing to inpaint", "at most 23")),
        (f"{PRETRAIN} --set lci.border=0", ("lci.border: must be", "got 0")),
        (f"{PRETRAIN} --batch-size 7", ("lci.pack", "multiple of 2", "a batch of 7")),
        (f"{PRETRAIN} --batch-size 6 --set train.accumulate=2", ("multiple of 2",)),
    ],
    "transformations": [
        (f"{PRETRAIN} --kinds identity", ("at least 2",)),
        (f"{PRETRAIN} --kinds identity,warp,warp", ("twice",)),
        (f"{PRETRAIN} --kinds identity,wrap", ("unknown transformation 'wrap'", "mean 'warp'?")),
        (f"{PRETRAIN} --kinds identity,mirror", ("identity and mirror cannot be told apart",)),
        (
            f"{PRETRAIN} --kinds identity,rotate180,flip",
            ("rotate180 and flip cannot be told apart", "mirrored"),
        ),
        (f"{PRETRAIN} --kinds identity,warp --set warp.reach=0", ("warp.reach: must be",)),
        (f"{PRETRAIN} --kinds identity,tiles --set tiles=1", ("tiles: must be", "got 1")),
    ],
    "networks": [
        (f"{PRETRAIN} --arch c3d", ("c3d takes videos, not images", "alexnet")),
        (f"{PRETRAIN} --arch timm/nothing_like_it", ("timm/nothing_like_it",)),
        ("transfer classify --init random --arch r3d --data PHOTOS", ("r3d takes videos",)),
        (f"{PROBE} PHOTOS --layer conv9", ("unknown layer 'conv9'", "mean 'conv5'?")),
        (f"{PROBE} PHOTOS --layer layer4", ("layer4", "conv5")),
        ("probe --from WEIGHTS --data motion", ("alexnet", "video")),
        ("transfer action --init WEIGHTS --data motion", ("alexnet", "not videos")),
        (f"{PROBE} PHOTOS --train-clips 3", ("--train-clips is for videos",)),
        ("retrieve --from VIDEO --data PHOTOS --layer conv5", ("no video files", "14 .jpg")),
    ],
    "data": [
        ("pretrain transformations --data motion", ("motion is a dataset of videos",)),
        ("pretrain transformations --data NOTES", ("no image files", "found instead: 1 .txt")),
        ("pretrain transformations --data EMPTY", ("no image files", "it is empty")),
        ("pretrain transformations --data nowhere/at/all", ("there is no folder",)),
        ("pretrain transformations --data cifar100", ("cifar100", "$SELFSUP_DATA")),
        ("pretrain transformations --data ONE", ("is a single image", "a folder of images")),
        ("pretrain transformations --data BROKEN", ("none of the 2 images", "can be read")),
        (f"{PRETRAIN} --batch-size 1000", ("do not fill one batch of 1000", "--batch-size 10")),
        (f"{PRETRAIN} --split 2", ("split 2 does not exist",)),
        (f"{PRETRAIN} --quarantine nope.jsonl", ("nope.jsonl cannot be read",)),
        ("pretrain temporal --data PHOTOS", ("no video files",)),
        ("pretrain temporal --data scenes", ("scenes is a dataset of images",)),
    ],
    "labels": [
        (f"{PROBE} FLAT", ("has no labels", "CLASS/image.jpg")),
        (f"{CLASSIFY} FLAT", ("has no labels", "CLASS/image.jpg")),
        (f"{CLASSIFY} ALIEN", ("differ between train and test", "'c'")),
        (f"{CLASSIFY} TABLE", ("Smiling is 'yes'", "1, 0 (or -1)")),
        (f"{PROBE} TABLE", ("Smiling is 'yes'",)),
        (f"{PROBE} ARRAYS", ("y_train",)),
        (f"{CLASSIFY} PHOTOS --fraction 0", ("greater than 0",)),
        (f"{CLASSIFY} PHOTOS --fraction 0.01", ("leaves the class a", "--fraction 0.2")),
    ],
}


class Process:
    """The command in a process of its own, which runs line after line (mistake_process.py)."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "mistake_process.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "SELFSUP_CACHE": str(cache)},
        )  # fmt: skip

    def __call__(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        own = ("SELFSUP_RUNS", "XDG_STATE_HOME")
        env = {"SELFSUP_WORKERS": "0", **{name: os.environ[name] for name in own}}
        self._process.stdin.write(json.dumps({"arguments": arguments, "env": env}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(arguments, said["status"], said["out"], said["err"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the words in capitals stand for."""
    root = tmp_path_factory.mktemp("data")
    names = [f"{part}/{name}/{i}.jpg" for part in ("train", "test") for name in "ab" for i in "01"]
    put(root / "PHOTOS", *names, *(f"train/a/{i}.jpg" for i in "234"))
    put(root / "PHOTOS", *(f"train/b/{i}.jpg" for i in "234"), size=(20, 30))
    put(root / "FLAT", "1.jpg", "2.png", "3.jpg")
    put(root / "ALIEN", *names, "test/c/1.jpg")
    (root / "EMPTY").mkdir()
    (root / "NOTES").mkdir()
    (root / "NOTES" / "notes.txt").write_text("no image")
    (root / "BROKEN").mkdir()
    for i in range(3):
        (root / "BROKEN" / f"{i}.jpg").write_text("no image")
    rows = "".join(f"FLAT/{name},yes,1\n" for name in ("1.jpg", "2.png", "3.jpg"))
    (root / "TABLE.csv").write_text(f"path,Smiling,Male\n{rows}")
    np.savez(root / "ARRAYS.npz", x_train=np.zeros((9, 8, 8, 3), np.uint8),
             y_train=np.zeros(8, np.int64), x_test=np.zeros((2, 8, 8, 3), np.uint8),
             y_test=np.zeros(2, np.int64))  # fmt: skip
    for name, arch, crop in (("WEIGHTS", "alexnet", 64), ("VIDEO", "c3d", 32)):
        (root / name).mkdir()
        backbone = build(arch, width=0.125, crop=crop, resize=(96, 96), seed=0)
        save_backbone(root / name / "backbone.safetensors", backbone, {"data": "scenes"})
    found = {name: str(root / name) for name in ("PHOTOS", "FLAT", "ALIEN", "EMPTY", "NOTES")}
    found["BROKEN"] = str(root / "BROKEN")
    found |= {"TABLE": str(root / "TABLE.csv"), "ARRAYS": str(root / "ARRAYS.npz")}
    found["ONE"] = str(root / "FLAT" / "1.jpg")
    return found | {
        name: str(root / name / "backbone.safetensors") for name in ("WEIGHTS", "VIDEO")
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the command is given."""
    return tmp_path_factory.mktemp("here")


@pytest.fixture(scope="module")
def command(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(here, tmp_path_factory.mktemp("cache"))
    yield process
    process.close()


@pytest.mark.parametrize("about", MISTAKES)
def test_mistakes_with_images(
    command: Callable[[list[str]], subprocess.CompletedProcess[str]],
    words: dict[str, str],
    here: Path,
    about: str,
) -> None:
    wrong = []
    for line, said in MISTAKES[about]:
        arguments = [words.get(word, word) for word in line.split()]
        told = command([*arguments, "--dry-run"])
        try:
            refused(told, *said)
        except AssertionError:
            wrong.append(f"{line}: {told.returncode}\n{told.stderr[-1500:]}")
    assert wrong == [], "\n\n".join(wrong)
    runs = Path(os.environ["SELFSUP_RUNS"])
    assert not runs.exists() or list(runs.iterdir()) == []
    assert list(here.iterdir()) == []


def test_warps_that_fold_are_told_with_their_share(
    command: Callable[[list[str]], subprocess.CompletedProcess[str]], words: dict[str, str]
) -> None:
    line = f"{PRETRAIN} --kinds identity,warp --set warp.reach=0.3 --batch-size 8 --dry-run"
    told = command([words.get(word, word) for word in line.split()])
    assert told.returncode == 0, told.stderr
    assert "% of the warps fold the image over itself" in told.stderr
    assert "neighbouring points can change places" in told.stderr


def test_odd_images_are_no_mistake(
    command: Callable[[list[str]], subprocess.CompletedProcess[str]], data_dir: Path, tmp_path: Path
) -> None:
    """Grey, CMYK, palettes, 1×1, 600×4 and images that are turned are trained on as they are."""
    (tmp_path / "odd").mkdir()
    for path in (data_dir / "broken").iterdir():
        if path.suffix in (".jpg", ".png") and _sound(path):
            shutil.copyfile(path, tmp_path / "odd" / path.name)
    told = command(
        ["pretrain", "transformations", "--data", str(tmp_path / "odd"), "--batch-size", "4",
         "--width", "0.125", "--dry-run"]
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


def _sound(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True
