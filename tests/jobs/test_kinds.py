"""Which of the two jobs of a command is meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.registry import PAIRS
from selfsup_cli.jobs import kinds
from selfsup_cli.jobs.kinds import jobs_of, meant
from selfsup_cli.models import build, save_backbone


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of both kinds, and networks that take them."""
    monkeypatch.chdir(tmp_path)
    save_backbone(tmp_path / "seer.safetensors", build("alexnet", width=0.125, crop=32, seed=0), {})
    save_backbone(tmp_path / "mover.safetensors", build("c3d", width=0.125, crop=32, seed=0), {})
    for name in ("pictures/a/1.jpg", "clips/a/1.mp4", "clips/a/0.jpg", "notes/a/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pictures.csv").write_text("path,label\na/1.jpg,a\n")
    (tmp_path / "clips.csv").write_text("path,label\na/1.mp4,a\n")
    arrays = {"x_train": np.zeros((2, 8, 8, 3), np.uint8), "y_train": np.arange(2)}
    np.savez(tmp_path / "arrays.npz", **arrays)
    (tmp_path / "own.yaml").write_text("version: 1\ntask: probe-images\n")
    return tmp_path


@pytest.mark.parametrize(("given", "kind"), [
    ({"data": "scenes"}, "image"),
    ({"data": "motion"}, "video"),
    ({"data": "pictures"}, "image"),
    ({"data": "clips"}, "video"),  # the picture beside them is a thumbnail
    ({"data": "notes"}, "video"),
    ({"data": "pictures.csv"}, "image"),
    ({"data": "clips.csv"}, "video"),
    ({"data": "arrays.npz"}, "image"),
    ({"data": "nowhere/at/all"}, "video"),
    ({"data": "nul\0"}, "video"),
    ({"run": "seer.safetensors"}, "image"),
    ({"run": "mover.safetensors"}, "video"),
    ({"run": "missing.safetensors"}, "video"),
    ({"run": "nothing"}, "video"),
    ({"run": "latest"}, "video"),
    ({}, "video"),
    # The dataset counts more than the network, the network more than what lies on disk.
    ({"run": "seer.safetensors", "data": "motion"}, "video"),
    ({"run": "mover.safetensors", "data": "scenes"}, "image"),
    ({"run": "seer.safetensors", "data": "clips"}, "image"),
    ({"run": "mover.safetensors", "data": "pictures"}, "video"),
    ({"run": "latest", "data": "pictures"}, "image"),
    # The preset counts more than anything.
    ({"preset": "probe-images/base", "data": "motion"}, "image"),
    ({"preset": "base"}, "image"),
    ({"preset": "probe/temporal", "data": "scenes"}, "video"),
    ({"preset": "temporal", "data": "scenes"}, "video"),
    ({"preset": "own.yaml"}, "image"),
    ({"preset": "nonsense", "data": "scenes"}, "image"),
    ({"sets": ["data.source=scenes"]}, "image"),
])  # fmt: skip
def test_what_is_given_says_which_is_meant(place: Path, given: dict[str, Any], kind: str) -> None:
    options = {"data.source": given.get("data"), "subject.run": given.get("run")}
    found = meant("probe", preset=given.get("preset"), options=options, sets=given.get("sets", ()))
    assert found.kind == kind
    assert found.job == {"image": "probe-images", "video": "probe"}[kind]
    assert found.why


def test_a_pair_has_the_jobs_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PAIRS) <= set(JOBS)
    assert jobs_of("probe") == ("probe", "probe-images")
    assert jobs_of("pretrain/temporal") == ("pretrain/temporal",)
    assert meant("pretrain/temporal").job == "pretrain/temporal"
    monkeypatch.setattr(kinds, "JOBS", {"probe": JOBS["probe"]})
    assert jobs_of("probe") == ("probe",)
    assert meant("probe", options={"data.source": "scenes"}).job == "probe"


def test_finding_out_from_names_needs_no_torch(place: Path) -> None:
    code = (
        "import sys\n"
        "from selfsup_cli.jobs.kinds import meant\n"
        "for data in ('scenes', 'pictures', 'clips.csv'):\n"
        "    meant('probe', options={'data.source': data})\n"
        "meant('probe', options={'subject.run': 'seer.safetensors'})\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=place)
