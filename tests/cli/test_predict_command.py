"""`selfsup predict`: labels for files that were never seen."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfsup_cli.models import build
from selfsup_cli.models.classifier import Classifier, HeadSpec, Trained, save_classifier

CLASSES = ("dark", "middle", "bright")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    backbone = build("c3d", width=0.125, crop=32, resize=(32, 40), seed=0)
    spec = HeadSpec(kind="fc", outputs=3, hidden=[16])
    network = Classifier(backbone, spec, generator=torch.Generator().manual_seed(0))
    clips = {"resize": [32, 40], "crop": 32, "max_skip": 4, "test": 2}
    save_classifier(path, Trained(network, "action", CLASSES, clips, ""), {})
    return path


@pytest.fixture
def videos(data_dir: Path, tmp_path: Path) -> Path:
    """Three good clips and one that only claims to be."""
    folder = tmp_path / "videos" / "inside"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((data_dir / "actions-fight" / "fight").iterdir())[:3]):
        shutil.copy(path, folder / f"clip{number}{path.suffix}")
    (folder / "broken.mp4").write_bytes(b"\0" * 5000)
    return folder.parent


def test_a_folder_is_labelled_and_what_is_broken_is_named(
    selfsup: Callable[..., Any], model: Path, videos: Path, tmp_path: Path
) -> None:
    out, pictures = tmp_path / "out.csv", tmp_path / "pictures"
    said = selfsup("predict", str(videos), "--from", str(model), "--out", str(out),
                   "--pictures", str(pictures), "--workers", "0")  # fmt: skip
    assert said.status == 0, said.err
    assert said.out.splitlines()[-1] == str(out)
    assert "3 videos labelled, 1 not read" in said.out
    with out.open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {f"inside/{n}.mp4" for n in ("clip0", "clip1", "clip2", "broken")}
    assert rows["inside/broken.mp4"]["prediction"] == ""
    assert rows["inside/broken.mp4"]["problem"]
    good = [row for name, row in rows.items() if "clip" in name]
    assert all(row["prediction"] in CLASSES for row in good)
    assert all(1 / 3 <= float(row["confidence"]) <= 1 for row in good)
    assert len(list(pictures.glob("*.png"))) == 3


def test_one_file_gives_what_it_gives_in_its_folder(
    selfsup: Callable[..., Any], model: Path, videos: Path, tmp_path: Path
) -> None:
    found = []
    for number, path in enumerate((videos, videos / "inside" / "clip1.mp4")):
        out = tmp_path / f"{number}.json"
        said = selfsup("predict", str(path), "--from", str(model), "--out", str(out), "--json")
        assert said.status == 0, said.err
        told = json.loads(said.out)["data"]["predictions"]
        written = json.loads(out.read_text())
        assert written["predictions"] == told
        assert written["classes"] == list(CLASSES)
        found.append({os.path.basename(row["id"]): row for row in told})  # noqa: PTH119
    one, many = found[1]["clip1.mp4"], found[0]["clip1.mp4"]
    assert one["prediction"] == many["prediction"]
    assert one["top"] == pytest.approx(many["top"], abs=2e-4)
    assert sum(one["top"].values()) == pytest.approx(1, abs=1e-3)


def test_mistakes_are_one_sentence(
    selfsup: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    exists = tmp_path / "exists.csv"
    exists.write_text("mine")
    lone = tmp_path / "backbone.safetensors"
    from selfsup_cli.models import save_backbone

    save_backbone(lone, build("c3d", width=0.125, crop=32, resize=(32, 40), seed=0), {})
    for arguments, said in (
        (["motion", "--from", str(model), "--out", str(exists)], "--force replaces it"),
        (["motion", "--from", str(model), "--out", "x.txt"], "ends in .csv or .json"),
        (["motion", "--from", str(model), "--out", "no/where.csv"], "there is no folder"),
        (["motion", "--from", str(lone), "--out", str(tmp_path / "a.csv")], "does not describe"),
        (["nowhere/", "--from", str(model), "--out", str(tmp_path / "a.csv")], "there is no"),
        (["motion", "--out", str(tmp_path / "a.csv")], "no run"),
    ):
        found = selfsup("predict", *arguments)
        assert found.status == 2, found.err
        assert said in found.err
        assert "Traceback" not in found.err
    assert exists.read_text() == "mine"
