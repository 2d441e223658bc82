"""`selfsup sample`, `shortcuts` and the pictures of images as they are typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from selfsup_cli.cli.app import app
from selfsup_cli.cli.tree import nodes
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import options_of

Process = Callable[..., subprocess.CompletedProcess[str]]
FEW = [
    part
    for setting in ("images=16", "test_images=16", "side=32")
    for part in ("--set", f"data.scenes.{setting}")
]
COMMANDS = {
    "sample transformations": ("sample/transformations", {"--out"}),
    "sample dfgan": ("sample/dfgan", {"--out"}),
    "score": ("score", {"--run", "--dry-run"}),
    "visualize mean-image": ("visualize/mean-image", {"--out"}),
    "visualize pretext transformations": ("pretrain/transformations", {"--out", "--count"}),
    "shortcuts": ("shortcuts", {"--run", "--dry-run"}),
}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["sample", "transformations", "--count", "2"], "transformations.png"),
        (["visualize", "mean-image", "--side", "32"], "mean-image.png"),
        (["visualize", "pretext", "transformations", "--count", "1"], "pretext.png"),
    ],
)
def test_a_picture_is_written_here_unless_a_file_is_named(
    process: Process, tmp_path: Path, line: list[str], name: str
) -> None:
    told = process(*line, "--data", "scenes", *FEW, "--workers", "0", "--device", "cpu")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0] == name
    with Image.open(tmp_path / name) as image:
        assert image.format == "PNG"


def test_the_result_is_one_document(
    selfsup: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = selfsup(
        "visualize", "mean-image", "--data", "scenes", *FEW, "--workers", "0", "--out", "a.png",
        "--json", "--quiet",
    )  # fmt: skip
    assert told.status == 0, told.err
    found = json.loads(told.out)["data"]
    assert found["picture"] == "a.png"
    assert found["images"] == 16
    assert len(found["turned"]) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shortcuts", "there are no runs in"),
        ("shortcuts --from never", "there is no run 'never'"),
        ("sample transformations --from never --data scenes", "there is no run 'never'"),
        ("sample transformations --data scenes --out x.jpg", "give it a name that ends in .png"),
        ("sample transformations --data scenes --count 0", "must be a whole number from 1 to 64"),
        ("sample transformations", "--data"),
        ("sample transformation", "did you mean 'transformations'?"),
        ("sample", "missing method; known are: transformations"),
        ("sample dfgan", "there are no runs in"),
        ("sample dfgan --n 0", "must be a whole number from 1 to 1000000"),
        ("sample dfgan --show grids", "'grids'"),
        ("sample dfgan --from x.safetensors", "there are no weights at x.safetensors"),
        ("score", "no network is named to judge by"),
        ("score --features random", "there are no runs in"),
        ("score --inception x.pth", "x.pth: there is no such file"),
        ("visualize mean-image", "--data"),
        ("visualize mean-image --data motion", "motion"),
        ("visualize mean-image --data scenes --side 8", "must be a whole number from 32 to 512"),
        ("visualize mean-image --data scenes --out no/x.png", "there is no folder"),
        ("visualize mean-imag --data scenes", "did you mean 'mean-image'?"),
    ],
)
def test_mistakes_end_in_one_sentence_and_write_nothing(
    selfsup: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = selfsup(*line.split())
    assert told.status == 2, told.err
    assert told.out == ""
    assert said in told.err
    assert "Traceback" not in told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", COMMANDS)
def test_options_are_the_fields_of_the_preset_and_complete_as_such(line: str) -> None:
    """Among the commands of the same last word, each has its own options and presets."""
    job, own = COMMANDS[line]
    (node,) = [one for one in nodes(typer.main.get_command(app)) if one.path == tuple(line.split())]
    spelled = {flag: one for one in node.flags for flag in one.spellings}
    fields = {flag for option in options_of(JOBS[job]) for flag in option.flags}
    assert fields | own <= set(spelled)
    assert (fields | own) - set(spelled) == set()
    assert spelled["--preset"].value is not None
    assert spelled["--preset"].value.names == f"presets:{job}"
    assert spelled["--data"].value is not None
    assert spelled["--data"].value.names == "image-datasets"


def test_help_says_what_each_is_for(selfsup: Callable[..., Any]) -> None:
    for line in (*COMMANDS, "sample"):
        told = selfsup(*line.split(), "--help")
        assert told.status == 0
        assert told.out.startswith(f"Usage: selfsup {line}")
