"""Chapter 3 as a run: both stages, a kill in either, an autoencoder of another run, the sheet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from pretraining import STEPS, preset
from test_pretrain import run_script

from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.errors import InputError, TrainingError
from selfsup_cli.jobs.artifact_pictures import cells
from selfsup_cli.jobs.method_weights import load_method
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.randomness import generator
from selfsup_cli.runs.run import Run

METHOD, TURN = "artifacts", 4


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it comes out when nobody disturbs it."""
    runs = tmp_path_factory.mktemp("runs")
    run_script(METHOD, "whole", "0", runs=runs)
    return runs / "whole"


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def test_a_run_goes_through_both_stages(uninterrupted: Path) -> None:
    run = Run.open(uninterrupted)
    assert run.complete
    assert run.problems() == []
    rows = rows_of(uninterrupted)
    first = [row["step"] for row in rows if "loss_autoencoder" in row]
    second = [row["step"] for row in rows if "loss_repair" in row]
    assert first == list(range(1, TURN + 1))
    assert second == list(range(TURN + 1, STEPS + 1))
    rates = [(set(row) & {"lr", "lr_repair", "lr_autoencoder"}) for row in rows if "lr" in str(row)]
    assert rates == [{"lr_autoencoder"}] * TURN + [{"lr", "lr_repair"}] * (STEPS - TURN)
    checks = [row for row in rows if "heldout_autoencoder_error" in row]
    assert [row["step"] for row in checks] == [4, 8, 12]
    assert "heldout_artifact" not in str(checks[0])
    assert {"heldout_discriminator_accuracy", "heldout_mask_precision"} <= set(checks[1])
    # Nothing moves the autoencoder in the second stage.
    assert len({row["heldout_autoencoder_error"] for row in checks}) == 1


def test_the_report_judges_the_game_and_shows_it(uninterrupted: Path) -> None:
    report = Run.open(uninterrupted).report()
    assert report is not None
    said = {row.name: row for row in report.measurements}
    assert set(said) >= {"artifact", "artifact corrupt", "artifact real", "k-NN"}
    assert said["artifact"].chance == 50
    told = " ".join(finding.text for finding in report.findings)
    for part in ("autoencoder replicates", "discriminator tells", "dropped cells", "once repaired"):
        assert part in told
    trained = load_backbone(uninterrupted / "backbone.safetensors").trained_on
    assert (trained["drop_rate"], trained["real"], trained["epochs"]) == (0.7, "replicas", 2)
    with Image.open(uninterrupted / "pictures" / "pretext.png") as image:
        assert min(image.size) > 400


def test_killed_in_either_stage_it_ends_the_same(uninterrupted: Path, tmp_path: Path) -> None:
    kills = ("2:update", f"{TURN}:checkpoint", "9:update")
    run_script(METHOD, "killed", "0", *kills, runs=tmp_path)
    killed = tmp_path / "killed"
    for name in ("metrics.jsonl", "backbone.safetensors", "method.safetensors"):
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    last = f"checkpoints/step-{STEPS:08d}/state.pt"
    states = [read_tensors(run / last) for run in (killed, uninterrupted)]
    for name, value in states[0]["memory"].items():
        assert torch.equal(value, states[1]["memory"][name])
    assert len(states[0]["memory"]["images"]) == 6


def test_whoever_thinks_better_of_a_poor_autoencoder_goes_on(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stage is kept whenever it ended, and the threshold may be another one then."""
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    rarely = preset(0, "train.checkpoint_steps=100", "autoencoder.max_error=0.001", method=METHOD)
    with pytest.raises(TrainingError, match=r"too poor.*more than 0\.001"):
        pretrain(rarely, run="poor", quiet=True)
    assert [path.name for path in (tmp_path / "poor" / "checkpoints").iterdir()] == [
        f"step-{TURN:08d}"
    ]
    pretrain(preset(0, method=METHOD), run="poor", quiet=True)
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (tmp_path / "poor" / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_the_whole_method_comes_back(uninterrupted: Path) -> None:
    found = load_method(Run.open(uninterrupted))
    assert isinstance(found, Artifacts)
    assert found.asking
    assert not found.training
    state = read_tensors(uninterrupted / f"checkpoints/step-{STEPS:08d}/state.pt")["model"]
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[name]), name
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "x"))
    columns = dict(cells(found, images, generator(0, "sheet")))
    assert list(columns) == [
        "original", "mask", "autoencoded", "without repair", "repaired", "suspected"
    ]  # fmt: skip
    kept = torch.ones(3, 1, 2, 2, dtype=torch.bool)
    whole = dict(cells(found, images, generator(0, "sheet"), kept))
    assert torch.equal(whole["mask"], whole["original"])
    assert torch.equal(whole["repaired"], whole["autoencoded"])
    assert not torch.equal(columns["repaired"], columns["autoencoded"])


def test_an_autoencoder_is_taken_over(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "runs" / "whole")
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    outcome = pretrain(
        preset(0, "autoencoder.source=whole", "train.epochs=1", method=METHOD), run="b", quiet=True
    )
    assert outcome.run_dir is not None
    run = Run.open(outcome.run_dir)
    assert run.info.parents[0]["run"] == "whole"
    assert [row["step"] for row in rows_of(run.path) if "loss" in row] == [1, 2, 3, 4]
    was, now = (load_method(Run.open(tmp_path / "runs" / name)) for name in ("whole", "b"))
    assert isinstance(was, Artifacts)
    assert isinstance(now, Artifacts)
    for name, value in was.replicator.state_dict().items():
        assert torch.equal(value, now.replicator.state_dict()[name]), name
    weights = tmp_path / "runs" / "whole" / "method.safetensors"
    loose = tmp_path / "loose.safetensors"
    shutil.copy(weights, loose)
    shutil.copy(f"{weights}.json", f"{loose}.json")
    dry = preset(0, f"autoencoder.source={loose}", "train.epochs=1", method=METHOD)
    assert pretrain(dry, run="dry", dry_run=True).data["updates"] == 4
    with pytest.raises(InputError, match=r"has 4 channels.*not 8 and 2.*autoencoder\.base=4"):
        pretrain(
            preset(0, "autoencoder.source=whole", "autoencoder.base=8", method=METHOD),
            run="c",
            quiet=True,
        )
    with pytest.raises(TrainingError, match=r"autoencoder of whole is too poor.*more than 0\.001"):
        pretrain(
            preset(0, "autoencoder.source=whole", "autoencoder.max_error=0.001", method=METHOD),
            run="d",
            quiet=True,
        )


def test_only_such_runs_have_an_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    settings = preset(0, "autoencoder.source=other", method=METHOD)
    with pytest.raises(InputError, match="other"):
        pretrain(settings, run="b", quiet=True)
    weights = tmp_path / "backbone.safetensors"
    network = build("alexnet_lrn", width=0.0625, crop=32, seed=0)
    save_backbone(weights, network, {})
    with pytest.raises(InputError, match=r"method"):
        pretrain(preset(0, f"autoencoder.source={weights}", method=METHOD), run="b", quiet=True)


def test_a_rehearsal_tells_of_both_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    outcome = pretrain(preset(0, method=METHOD), run="dry", dry_run=True)
    assert outcome.data["updates"] == STEPS
    assert f"{STEPS} updates in all, the first {TURN} of the autoencoder" in outcome.text
    with pytest.raises(InputError, match="there would be no damage and repair"):
        pretrain(preset(0, "train.max_steps=4", method=METHOD), run="dry", dry_run=True)
