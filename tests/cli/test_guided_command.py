"""`selfsup visualize guided-backprop` as it is typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from selfsup_cli.models import build, save_backbone

Process = Callable[..., subprocess.CompletedProcess[str]]
LINE = ("visualize", "guided-backprop")
SMALL = [
    part
    for setting in ("videos=8", "test_videos=8", "side=32", "length=64")
    for part in ("--set", f"data.motion.{setting}")
]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A small backbone, as pretraining leaves it."""
    path = tmp_path / "mine.safetensors"
    backbone = build("c3d", width=0.125, crop=24, resize=(32, 32), seed=0)
    save_backbone(path, backbone, {"method": "temporal"})
    return "mine.safetensors"


def test_a_strip_and_an_animation_come_out_unless_a_file_is_named(
    process: Process,
    selfsup: Callable[..., Any],
    mine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = (*LINE, "--from", f"{mine},random", "--data", "motion", "--count", "2", *SMALL)
    told = process(*line)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["guided-backprop.png", "guided-backprop.webp"]
    with Image.open(tmp_path / "guided-backprop.png") as strip:
        assert strip.format == "PNG"
        size = strip.size
    with Image.open(tmp_path / "guided-backprop.webp") as moving:
        assert moving.n_frames == 16  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    told = selfsup(
        *line, "--columns", "4", "--unit", "strongest", "--layer", "conv4", "--seed", "3",
        "--out", "a.gif", "--out", "b.png", "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    found = json.loads(told.out)
    assert found["ok"] is True
    assert found["data"]["pictures"] == ["a.gif", "b.png"]
    assert [one["name"] for one in found["data"]["networks"]] == ["mine", "random weights"]
    assert len(found["data"]["videos"]) == 2
    with Image.open(tmp_path / "b.png") as narrow:
        assert narrow.size[0] < size[0]
        assert narrow.size[1] >= size[1]
    assert (tmp_path / "a.gif").is_file()


def test_clips_of_a_folder_are_shown_with_their_classes(
    selfsup: Callable[..., Any],
    mine: str,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = selfsup(
        *LINE, "--from", mine, "--data", str(data_dir / "actions"), "--split", "2", "--count", "6",
        "--out", "a.png", "--json", "--quiet",
    )  # fmt: skip
    assert told.status == 0, told.err
    names = json.loads(told.out)["data"]["videos"]
    assert len({name.split("/")[0] for name in names}) == 6
    listed = (data_dir / "actions" / "testlist02.txt").read_text().split()
    assert set(names) <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "random"], "random weights are of a run's network: name that run, too"),
        (["--from", "never"], "there is no run 'never'"),
        (["--from", "supervised"], "--from supervised: there are no runs in"),
        (["--layer", "layer4"], "--layer layer4: mine is a c3d, whose layers are conv1, conv2"),
        (["--layer", "conv55"], "unknown layer 'conv55' (did you mean 'conv5'?)"),
        (["--unit", "32"], "--unit 32: conv5 has 32 channels, counted from 0"),
        (["--unit", "best"], "must be a whole number of at least 0 or one of all, strongest"),
        (["--count", "0"], "must be a whole number from 1 to 64; got 0"),
        (["--out", "x.jpg"], "--out x.jpg: the picture is a strip (.png) or an animation"),
        (["--out", "no/x.png"], "--out no/x.png: there is no folder"),
        (["--data", "nowhere/clips"], "nowhere/clips"),
    ],
)
def test_mistakes_end_in_one_sentence_and_write_nothing(
    selfsup: Callable[..., Any],
    mine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    usual = {"--from": mine, "--data": "motion"}
    for flag in arguments[::2]:
        usual.pop(flag, None)
    line = [part for pair in usual.items() for part in pair]
    told = selfsup(*LINE, *line, *SMALL, *arguments)
    assert told.status == 2, told.err
    assert told.out == ""
    assert said in told.err
    assert "Traceback" not in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
