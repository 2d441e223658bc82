"""`selfsup data`: what check prints and writes, and packs from the command line into training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup_cli.data import packing

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from videos import write_video

SMALL = (
    "network.width=0.125", "augment.resize=[32, 32]", "augment.crop=32", "monitor.videos=4",
    "monitor.knn_videos=8", "train.max_steps=3", "train.batch_size=4", "time.speeds=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a command writes into its folder goes where it does no harm."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six short videos each."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number:02}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, 32 + number, codec="mpeg4", size=(40, 48))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_check_tells_people(selfsup: Callable[..., Any], data_dir: Path, here: Path) -> None:
    told = selfsup("data", "check", str(data_dir / "broken"), "--workers", "0")
    assert told.status == 0
    assert "  zero_byte.avi: the file is empty\n" in told.out
    assert "  video: a single frame (2): one_frame.avi, one_frame.mp4\n" in told.out
    assert "other files: .bvh (2), .csv (1), .h5 (1), .npz (1)\n" in told.out
    assert told.out.endswith("quarantine: quarantine.jsonl (for --quarantine)\n")
    lines = [line.split() for line in told.out.splitlines()]
    assert ["videos", "15", "6", "6", "9"] in lines
    assert ["images", "17", "12", "12", "5"] in lines
    assert ["frames", "1", "12.5", "20"] in lines
    assert "6 of 6 sound videos are too short for all speeds, up to 8 (128 frames)" in told.out
    assert {row["path"] for row in rows(here / "quarantine.jsonl")} >= {"bitflips.avi"}
    assert len(rows(here / "quarantine.jsonl")) == 14


def test_check_tells_programs(selfsup: Callable[..., Any], data_dir: Path, here: Path) -> None:
    told = selfsup("data", "check", str(data_dir / "broken"), "--workers", "0", "--json", "-q")
    assert (told.status, told.err) == (0, "")
    data = json.loads(told.out)["data"]
    assert data["counts"]["video"] == {"files": 15, "sound": 6, "unusual": 6, "bad": 9}
    by_name = {one["id"]: one for one in data["files"]}
    assert by_name["bitflips.avi"]["verdict"] == "bad"
    assert by_name["portrait.mp4"]["verdict"] == "unusual"
    assert len(by_name) == 32
    assert data["quarantine"] == "quarantine.jsonl"
    assert data["clips"]["too_short"] == 3


def test_nothing_bad_writes_nothing(selfsup: Callable[..., Any], clips: Path, here: Path) -> None:
    told = selfsup("data", "check", str(clips), "--workers", "0")
    assert told.status == 0
    assert list(here.iterdir()) == []
    assert "no file of one has the content of a file of the other" in told.out
    (here / "quarantine.jsonl").write_text('{"path": "x", "reason": "y"}\n')
    told = selfsup("data", "check", str(clips), "--workers", "0")
    assert "from an earlier check" in told.err
    assert rows(here / "quarantine.jsonl") == [{"path": "x", "reason": "y"}]


def test_copies_in_train_and_test_are_named(
    selfsup: Callable[..., Any], clips: Path, tmp_path: Path
) -> None:
    root = tmp_path / "divided"
    for part, name in (("train", "00"), ("train", "02"), ("test", "04")):
        (root / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clips / "a" / f"{name}.avi", root / part / f"{name}.avi")
    shutil.copyfile(clips / "a" / "00.avi", root / "test" / "zz.avi")
    told = selfsup("data", "check", str(root), "--workers", "0")
    assert "  test/zz.avi = train/00.avi\n" in told.out
    assert "1 pairs of files have the same content in both\n" in told.out
    assert "  train train/00.avi = test test/zz.avi\n" in told.out


def test_a_file_of_others_is_not_overwritten(
    selfsup: Callable[..., Any], data_dir: Path, here: Path
) -> None:
    (here / "mine.txt").write_text("my notes\n")
    told = selfsup("data", "check", str(data_dir / "broken"), "--out", "mine.txt", "--workers", "0")
    assert (told.status, told.out) == (2, "")
    assert "is not a quarantine file" in told.err
    assert (here / "mine.txt").read_text() == "my notes\n"


def test_names_are_shown_without_what_they_could_do(
    selfsup: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "a\x1b[31m\u202egnp.avi").write_bytes(b"")
    told = selfsup("data", "check", str(tmp_path / "evil"), "--workers", "0")
    assert told.status == 0
    assert "\x1b" not in told.out + told.err
    assert "\u202e" not in told.out + told.err
    assert "  agnp.avi: the file is empty" in told.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("check", "missing argument"),
        ("check nowhere/at/all", "there is no folder"),
        ("check ucf102", "did you mean 'ucf101'"),
        ("check motion", "nothing to check"),
        ("check none.h5", "cannot be read"),
        ("check . --test-share 1", "between 0 and 1"),
        ("check . --workers=-1", "--workers"),
        ("check .", "no video files"),
        ("pack .", "missing argument"),
        ("pack . out.h5", "no video files"),
        ("pack . out.hdf5", "ends in .h5"),
        ("pack . out.h5 --size 128", "128x171"),
        ("pack . out.h5 --size 4x4", "128x171"),
        ("pack . out.h5 --size 9999x9999", "128x171"),
        ("pack . out.h5 --raw --quality 50", "no --quality"),
        ("pack . out.h5 --quality 0", "--quality"),
        ("pack motion out.h5", "nothing to pack"),
        ("pak", "did you mean 'pack'"),
    ],
)
def test_mistakes(selfsup: Callable[..., Any], here: Path, line: str, said: str) -> None:
    told = selfsup("data", *line.split())
    assert (told.status, told.out) == (2, "")
    assert said in told.err
    assert len(told.err.splitlines()) <= 3
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("line", ["data", "data check", "data pack"])
def test_help_and_mistakes_import_no_torch(process: Callable[..., Any], line: str) -> None:
    program = (
        "import sys; from selfsup_cli.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(99 if {'torch', 'av', 'h5py'} & set(sys.modules) else status)"
    )
    for arguments, status in (((*line.split(), "--help"), 0), ((*line.split(), "--nope"), 2)):
        told = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True
        )
        assert told.returncode == status, told.stderr


def test_a_pack_from_the_command_line(selfsup: Callable[..., Any], clips: Path, here: Path) -> None:
    arguments = ("data", "pack", str(clips), "mine.h5", "--size", "32x40", "--workers", "0")
    told = selfsup(*arguments)
    assert told.status == 0, told.err
    first, second, third, last = told.out.splitlines()
    assert first.startswith("pack of 32×40, JPEG quality 90, off by ")
    assert second == f"12 videos, {sum(range(32, 44))} frames"
    assert third.endswith(" times the files")
    assert last == str(here / "mine.h5")
    again = selfsup(*arguments, "--json")
    data = json.loads(again.out)["data"]
    assert (data["packed_before"], data["size"], data["classes"]) == (12, [32, 40], 2)
    assert data["error"]["frames"] == 12
    told = selfsup(*arguments, "--quality", "50")
    assert told.status == 2
    assert "is another pack" in told.err
    checked = selfsup("data", "check", "mine.h5", "--workers", "0")
    assert checked.status == 0
    assert first in checked.out
    assert ["videos", "12", "12", "0", "0"] in [line.split() for line in checked.out.splitlines()]


def test_a_signal_keeps_what_is_packed(
    selfsup: Callable[..., Any], clips: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = ((*["data", "pack"], str(clips), name) for name in ("whole.h5", "cut.h5"))
    options = ("--size", "32x40", "--workers", "0")
    assert selfsup(*whole, *options).status == 0
    store, seen = packing.store, []

    def signalled(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return store(*arguments)

    monkeypatch.setattr(packing, "store", signalled)
    told = selfsup(*cut, *options)
    assert (told.status, told.out) == (143, "")
    assert "stopped by SIGTERM after saving the videos packed so far" in told.err
    assert not (here / "cut.h5").exists()
    told = selfsup(*cut, *options)
    assert (told.status, len(seen)) == (0, 12)
    assert "5 videos had been packed before" in told.out
    assert (here / "cut.h5").read_bytes() == (here / "whole.h5").read_bytes()


def test_a_pack_trains_as_the_files_do(
    selfsup: Callable[..., Any], clips: Path, here: Path
) -> None:
    told = selfsup(
        "data", "pack", str(clips), "raw.h5", "--raw", "--size", "32x32", "--workers", "0"
    )
    assert told.status == 0, told.err
    losses = []
    for name, data in (("files", str(clips)), ("pack", "raw.h5")):
        told = selfsup(
            "pretrain", "temporal", "--data", data, "--run", name, "--workers", "0", "--json",
            *(part for one in SMALL for part in ("--set", one)),
        )  # fmt: skip
        assert told.status == 0, told.err
        run = Path(json.loads(told.out)["run"])
        steps = [row for row in rows(run / "metrics.jsonl") if "loss" in row]
        losses.append([row["loss"] for row in steps])
        weights = (run / "backbone.safetensors").read_bytes()
        losses.append(np.frombuffer(weights[-4096:], np.uint8).tolist())
    assert losses[0] == losses[2]
    assert losses[1] == losses[3]
    assert len(losses[0]) >= 1
    report = json.loads((run / "report.json").read_text())
    assert "pack of 32×32, raw" in json.dumps(report["data"], ensure_ascii=False)
