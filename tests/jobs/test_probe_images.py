"""`selfsup probe` on images: its report, folds, attributes, and what stands beside its numbers."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.probe_images import probe_images
from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.report import Report, load_report
from selfsup_cli.runs.run import runs_dir

TRAINED = {
    "method": "transformations", "data": "stl10", "epochs": 200,
    "kinds": ["identity", "rotate90", "rotate180", "rotate270", "lci", "warp"],
}  # fmt: skip
QUICK = {
    "machine.workers": 0, "probe.epochs": 2, "views.train": 2, "probe.lrs": [0.01],
    "probe.weight_decays": [0.0], "data.scenes.images": 48, "data.scenes.test_images": 24,
    "data.scenes.side": 32, "data.facelike.images": 40, "data.facelike.test_images": 24,
    "data.facelike.side": 32,
}  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "network.safetensors"
    save_backbone(path, build("alexnet", width=0.125, crop=32, resize=(36, 36), seed=0), TRAINED)
    return path


def probed(weights: Path, data: str | Path, run: str | None = None, **more: Any) -> Report:
    options = {"subject.run": str(weights), "data.source": str(data), **QUICK}
    options |= {name.replace("__", "."): value for name, value in more.items()}
    resolved = resolve("probe-images", options=options, env={})
    outcome = probe_images(resolved, run=run, quiet=True)
    assert outcome.run_dir is not None
    return load_report(outcome.run_dir / "report.json")


def stl10(folder: Path) -> Path:
    """A small STL-10: 40 labelled images in ten folds, 20 to test on."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 20)):
        marks = np.arange(count) % 2
        pixels = rng.integers(0, 90, (count, 3, 96, 96)) + 120 * marks[:, None, None, None]
        (folder / f"{part}_X.bin").write_bytes(pixels.astype(np.uint8).tobytes())
        (folder / f"{part}_y.bin").write_bytes((marks + 1).astype(np.uint8).tobytes())
    folds = [" ".join(str((4 * fold + i) % 40) for i in range(12)) for fold in range(10)]
    (folder / "fold_indices.txt").write_text("\n".join(folds) + "\n")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij") + "\n")
    return folder


def test_a_report_says_what_each_layer_knows(weights: Path) -> None:
    report = probed(weights, "scenes", "one")
    assert report.job == "probe-images"
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2"]
    for subject in ("learned", "random weights"):
        for metric in ("top-1 accuracy", "class-balanced accuracy"):
            own = [m for m in report.measurements if (m.subject, m.metric) == (subject, metric)]
            assert [m.layer for m in own] == layers
            assert {(m.task, m.n, m.dataset) for m in own} == {("probe", 24, "scenes")}
    first = report.measurements[0].protocol
    assert first["training_views"] == "2 random crops, half of them mirrored"
    assert first["test_views"] == "single centre crop"
    assert first["crop"] == "32 pixels of images whose shorter side is 36"
    assert "at most 9600 features" in str(first["pooling"])
    assert first["training_images"] == 48
    said = " ".join(finding.text for finding in report.findings)
    assert "learned" in said
    assert "random weights" in said
    assert "video" not in report.to_json()
    picture = Image.open(runs_dir() / "one" / "pictures" / "layers.png")
    assert min(picture.size) > 300
    assert report.data["train"]["images"] == 48


def test_again_it_ends_at_once_and_a_new_run_reads_the_cache(
    weights: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = probed(weights, "scenes", "one", probe__layers=["conv2"])
    with caplog.at_level(logging.INFO, "selfsup"):
        assert probed(weights, "scenes", "one", probe__layers=["conv2"]) == first
    assert "complete already" in caplog.text
    from selfsup_cli.data.image_store import Images

    monkeypatch.setattr(Images, "read", lambda *args: pytest.fail("an image was read"))
    second = probed(weights, "scenes", "two", probe__layers=["conv2"])
    assert second.measurements == first.measurements


def test_attributes_get_mean_average_precision(weights: Path) -> None:
    report = probed(weights, "facelike", probe__layers=["conv2", "conv5"], views__test="ten")
    assert {m.metric for m in report.measurements} == {"mean average precision"}
    assert len(report.measurements) == 4
    row = report.measurements[0]
    assert len(row.protocol["per_attribute"]) == 8  # type: ignore[arg-type]
    assert row.protocol["test_views"] == "ten crops"
    assert row.chance == pytest.approx(50, abs=20)
    assert row.interval is not None
    assert report.data["train"]["attributes"] == 8


def test_folds_are_reported_together_beside_the_thesis(weights: Path, tmp_path: Path) -> None:
    """Numbers of STL-10 stand beside table 4.2: ours, and its random weights beside ours."""
    root = stl10(tmp_path / "stl10_binary")
    more = {"data__root": str(root), "probe__layers": ["conv4", "conv5", "fc1"]}
    whole = probed(weights, "stl10", **more)
    rows = [m for m in whole.measurements if m.metric == "top-1 accuracy"]
    numbers = {(m.subject, m.layer): m.published for m in rows}
    ours, random = numbers["learned", "conv5"], numbers["random weights", "conv5"]
    assert ours is not None
    assert random is not None
    assert (ours.value, random.value) == (73.7, 47.9)
    assert ours.where == "thesis table 4.2, AlexNet, trained on stl10, rotation + warp + LCI"
    assert not ours.comparable
    assert "crop: 64 in the thesis, 32 here" in ours.differs
    assert not any(text.startswith(("transformations", "split", "pretr")) for text in ours.differs)
    assert numbers["learned", "fc1"] is None

    found = probed(weights, "stl10", folds=[1, 3, 9], **more)
    (row,) = [
        m
        for m in found.measurements
        if (m.subject, m.layer, m.metric) == ("learned", "conv5", "top-1 accuracy")
    ]
    assert row.split == "mean over the official folds 1, 3, 9"
    assert (row.n, row.protocol["folds"], row.protocol["training_images"]) == (3, 3, 12)
    values = row.protocol["values"]
    assert isinstance(values, list)
    single = [probed(weights, "stl10", data__split=k, **more) for k in (1, 3, 9)]
    alone = [
        m.value
        for one in single
        for m in one.measurements
        if (m.subject, m.layer, m.metric) == ("learned", "conv5", "top-1 accuracy")
    ]
    assert values == pytest.approx(alone, abs=0.001)
    assert row.value == pytest.approx(np.mean(alone))
    assert row.protocol["standard_deviation"] == pytest.approx(np.std(alone, ddof=1), abs=0.001)
    assert row.protocol["weights"] == rows[0].protocol["weights"]
    assert any("over 3 folds" in finding.text for finding in found.findings)


def test_mistakes_are_told(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"numbered splits|folds"):
        probed(weights, "scenes", folds=[1])
    with pytest.raises(InputError, match=r"unknown layer 'stages\.0'"):
        probed(weights, "scenes", probe__layers=["stages.0"])
    with pytest.raises(InputError, match=r"unknown layer 'conv6' \(did you mean 'conv"):
        probed(weights, "scenes", probe__layers=["conv6"])
    with pytest.raises(InputError, match="folds: each fold is given once"):
        probed(weights, "stl10", folds=[1, 1])
    with pytest.raises(InputError, match=r"folds: they are what data\.split"):
        probed(weights, "stl10", folds=[1], data__split=2)
    plain = tmp_path / "plain"
    plain.mkdir()
    for i in range(4):
        Image.new("RGB", (40, 40), (50 * i, 0, 0)).save(plain / f"{i}.png")
    with pytest.raises(InputError, match="label"):
        probed(weights, plain)
    path = tmp_path / "residual.safetensors"
    save_backbone(path, build("resnet18", crop=32, seed=0), {})
    with pytest.raises(InputError, match="resnet18 has only its own padding"):
        probed(path, "scenes", views__unpadded=64)


def test_an_alexnet_without_padding_sees_larger_crops(weights: Path) -> None:
    report = probed(weights, "scenes", views__unpadded=64, subject__baseline="none")
    row = report.measurements[0]
    assert row.protocol["crop"] == "64 pixels of images whose shorter side is 72"
    assert {m.layer for m in report.measurements} == {f"conv{k}" for k in range(1, 6)}


def classes(folder: Path) -> Path:
    """Twelve images to train on and six to test on, of two classes."""
    for part, count in (("train", 6), ("test", 3)):
        for k, name in enumerate(("dark", "bright")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 90, (40, 50, 3)) + 120 * k
                path = folder / part / name / f"{i}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def test_a_rehearsal_says_what_would_be_done(weights: Path) -> None:
    options = {"subject.run": str(weights), "data.source": "scenes", **QUICK, "views.test": "ten"}
    outcome = probe_images(resolve("probe-images", options=options, env={}), dry_run=True)
    assert outcome.run_dir is None
    assert "layers conv1, conv2, conv3, conv4, conv5, fc1, fc2" in outcome.text
    assert "48 training and 24 test images of scenes with 8 classes" in outcome.text
    assert "672 views through the network in 2 passes, 14 probes" in outcome.text
    assert not runs_dir().exists()


def test_a_file_that_cannot_be_read_is_named(weights: Path, tmp_path: Path) -> None:
    bad = classes(tmp_path / "mine") / "train" / "dark" / "3.png"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(InputError, match=r"train/dark/3\.png of mine cannot be read.*--quarant"):
        probed(weights, tmp_path / "mine", probe__layers=["conv2"])


def test_the_command_finds_out_that_it_is_about_images(weights: Path, tmp_path: Path) -> None:
    classes(tmp_path / "mine")
    done = subprocess.run(
        [
            sys.executable, "-m", "selfsup_cli", "probe", "--from", str(weights), "--data", "mine",
            "--set", "machine.workers=0", "--epochs", "2", "--layer", "conv2,conv5", "--json",
        ],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["report"]["job"] == "probe-images"
    assert document["report"]["measurements"][0]["n"] == 6
