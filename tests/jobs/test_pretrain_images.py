"""Pretraining on images: what it leaves behind, that a kill changes nothing, what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretraining import STEPS, preset
from test_pretrain import run_script

from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.method_weights import load_method
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.models import load_backbone
from selfsup_cli.randomness import generator
from selfsup_cli.runs.run import Run

METHOD = "transformations"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it comes out when nobody disturbs it."""
    runs = tmp_path_factory.mktemp("runs")
    run_script(METHOD, "whole", "0", runs=runs)
    return runs / "whole"


def test_a_run_holds_network_curves_sheet_and_numbers(uninterrupted: Path) -> None:
    run = Run.open(uninterrupted)
    assert run.complete
    assert run.problems() == []
    report = run.report()
    assert report is not None
    said = {row.name: row for row in report.measurements}
    kinds = ["identity", "rotate90", "rotate180", "rotate270", "warp", "lci"]
    assert set(said) >= {"transformation", *(f"transformation {kind}" for kind in kinds), "k-NN"}
    assert said["transformation"].chance == pytest.approx(100 / 6)
    for picture in report.pictures:
        with Image.open(uninterrupted / picture.file) as image:
            assert min(image.size) > 100
    assert load_backbone(uninterrupted / "backbone.safetensors").trained_on["kinds"] == kinds
    state = json.loads((uninterrupted / "status.json").read_text())
    assert (state["state"], state["step"]) == ("complete", STEPS)
    rows = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").open()]
    assert any("heldout_border_error" in row for row in rows)
    rates = [row["lr_inpainter"] for row in rows if "lr_inpainter" in row]
    assert len(rates) == STEPS
    assert len(set(rates)) == 1
    assert "inpainted patches differ" in " ".join(finding.text for finding in report.findings)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_steps_it_ends_the_same(
    uninterrupted: Path, tmp_path: Path, workers: int
) -> None:
    steps = sorted(random.Random(workers).sample(range(1, STEPS), 3))
    kills = [f"{s}:{'checkpoint' if n == 1 else 'update'}" for n, s in enumerate(steps)]
    run_script(METHOD, "killed", str(workers), *kills, runs=tmp_path)
    killed = tmp_path / "killed"
    for name in ("metrics.jsonl", "backbone.safetensors", "method.safetensors"):
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), (name, steps)
    last = f"checkpoints/step-{STEPS:08d}/state.pt"
    ends = [Run.open(path) for path in (killed, uninterrupted)]
    states = [read_tensors(run.path / last) for run in ends]
    assert states[0]["at"] == states[1]["at"]
    assert set(states[0]["optimizers"]) == {"main", "inpainter", "discriminator"}


def test_the_whole_method_comes_back(uninterrupted: Path) -> None:
    found = load_method(Run.open(uninterrupted))
    assert not found.training
    last = uninterrupted / f"checkpoints/step-{STEPS:08d}/state.pt"
    state = read_tensors(last)["model"]
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[name]), name
    images = torch.randint(0, 256, (4, 3, 36, 36), dtype=torch.uint8, generator=generator(0, "x"))
    _, logits, labels = found.judge(images, generator(0, "judge"))
    assert logits["transformation"].shape == (24, 6)
    assert labels["transformation"].tolist() == [k for k in range(6) for _ in range(4)]


def test_damaged_weights_of_the_method_are_named(uninterrupted: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(uninterrupted, copied)
    data = bytearray((copied / "method.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "method.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"method\.safetensors is damaged"):
        load_method(Run.open(copied))


def test_a_run_on_videos_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    outcome = pretrain(
        preset(0, "train.max_steps=1", "monitor.videos=4", "monitor.knn_videos=0"),
        run="videos",
        quiet=True,
    )
    assert outcome.run_dir is not None
    with pytest.raises(InputError, match="learned from videos"):
        load_method(Run.open(outcome.run_dir))


def test_a_bad_image_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose header is sound and whose pixels are not shows while training."""
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(folder / f"{i:02}.png")
    whole = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(whole[: len(whole) // 2])
    resolved = preset(0, f"data.source={folder}", "data.max_bad=0.2", method=METHOD)
    outcome = pretrain(resolved, run="bad", quiet=True)
    assert outcome.run_dir is not None
    assert outcome.report is not None
    listed = (outcome.run_dir / "quarantine.jsonl").read_text()
    assert "07.png" in listed
    assert "01.png" not in listed


def test_too_many_bad_images_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsup_cli.errors import TrainingError

    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(24):
        image = Image.new("RGB", (48, 48), (i, 2 * i, 3 * i))
        image.save(folder / f"{i:02}.png")
        if i % 3 == 0:
            data = (folder / f"{i:02}.png").read_bytes()
            (folder / f"{i:02}.png").write_bytes(data[: len(data) - 40])
    resolved = preset(0, f"data.source={folder}", method=METHOD)
    with pytest.raises(TrainingError, match="images cannot be read"):
        pretrain(resolved, run="bad", quiet=True)


def test_a_rehearsal_says_what_would_be_done_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    outcome = pretrain(preset(0, method=METHOD), run="dry", dry_run=True)
    assert outcome.data["images"] == 24
    assert outcome.data["updates"] == STEPS
    assert "24 images of scenes" in outcome.text
    assert "36 crops" in outcome.text
    assert not (tmp_path / "runs").exists()
