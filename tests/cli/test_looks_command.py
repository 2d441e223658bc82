"""`selfsup visualize`, `sample artifacts` and `predict artifacts` as they are typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from selfsup_cli.cli.app import app
from selfsup_cli.cli.tree import nodes
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import options_of
from selfsup_cli.models import build, save_backbone

Process = Callable[..., subprocess.CompletedProcess[str]]
LOOKS = ("visualize filters", "visualize activations", "visualize gradcam", "visualize neighbours",
         "sample artifacts")  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_backbone(path, build("alexnet", width=0.0625, crop=32, seed=0), {})
    return path


def test_options_are_those_of_the_preset_and_where_the_picture_goes() -> None:
    found = {" ".join(node.path): node for node in nodes(typer.main.get_command(app))}
    for name in LOOKS:
        flags = {flag for one in found[name].flags for flag in one.spellings}
        job = name.replace(" ", "/")
        assert {flag for option in options_of(JOBS[job]) for flag in option.flags} <= flags
        assert {"--run", "--out", "--json"} <= flags


def test_a_file_is_named_alone_and_a_run_last(process: Process, weights: Path) -> None:
    told = process("visualize", "filters", "--from", str(weights), "--out", "a.png", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["run"], found["data"]["picture"]) == (None, "a.png")
    assert (weights.parent / "a.png").is_file()


def test_a_run_comes_with_pages(selfsup: Callable[..., Any], weights: Path) -> None:
    told = selfsup("visualize", "filters", "--from", str(weights), "--run", "mine", "--quiet")
    assert told.status == 0, told.err
    folder = Path(told.out.splitlines()[-1])
    assert "filters.png" in (folder / "report.md").read_text()
    assert "neighbouring weights correlate" in told.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("visualize filters --run a --out b.png", "give one of them"),
        ("visualize filters --from MINE --out b.jpg", "the picture is a PNG"),
        ("visualize filters --from nothing.safetensors", "there are no weights at"),
        ("visualize activations --from MINE", "--data"),
        ("visualize activations --from MINE --data scenes --units -1", "at least 0"),
        ("visualize neighbours --from MINE --data motion", "motion"),
        ("visualize gradcam --from MINE --data scenes", "holds a backbone, which answers nothing"),
        ("sample artifacts --drop-rates 1.5", "less than 1"),
        ("sample artifacts", "there are no runs in"),
        ("predict artifacts", "missing argument 'DATA'"),
        ("predict artifacts photos --from none", "there is no run 'none'"),
        ("predict nowhere --from MINE", "nowhere"),
        ("visualize filter", "did you mean 'filters'?"),
    ],
)
def test_mistakes(
    selfsup: Callable[..., Any],
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(weights.parent)
    told = selfsup(*line.replace("MINE", str(weights)).split())
    assert told.status == 2, told.err
    assert said in told.err
    assert "Traceback" not in told.err
