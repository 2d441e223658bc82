"""`selfsup transfer pose` and `predict pose` from their command lines to what they leave, small."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation.pose import Pose
from selfsup_cli.jobs.predict_pose import predict_pose
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.run import Run

TINY = {
    "data.source": "figures",
    "data.side": 32,
    "network.arch": "alexnet",
    "network.width": 0.125,
    "data.train_subjects": ["S1", "S5"],
    "data.test_subjects": ["S9"],
    "data.figures.actions": ["dancing"],
    "data.figures.seconds": 3.0,
    "images.every": 10,
    "images.test_every": 20,
    "train.max_steps": 3,
    "train.batch_size": 8,
    "check_epochs": 0,
    "machine.workers": 0,
    "machine.device": "cpu",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the figures are rendered once."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def one_cache(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(prepared))


def settings(**changes: Any) -> list[str]:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    both = {**TINY, "start.init": "random", **named}
    return [f"{key}={json.dumps(value)}" for key, value in both.items()]


def run_of(name: str, **changes: Any) -> Run:
    resolved = resolve("transfer/pose", preset="base", sets=settings(**changes), env={})
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


def test_the_command_trains_on_one_subject_and_tests_on_another(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "w.safetensors"
    learned = {"method": "multiview", "data": "figures", "split": "subjects S5 held out"}
    save_backbone(weights, build("alexnet", width=0.125, crop=32, seed=1), learned)
    arguments = [sys.executable, "-m", "selfsup_cli", "transfer", "pose", "--preset", "base",
                 "--init", str(weights), "--run", "a", "--subjects", "S1"]  # fmt: skip
    for one in settings():
        if not one.startswith("start.init"):
            arguments += ["--set", one]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    run = Run.open(Path(done.stdout.splitlines()[-1]))
    report = run.report()
    assert report is not None
    first = report.measurements[0]
    assert (first.metric, first.unit, first.subject) == ("MPJPE", "mm", "learned")
    assert first.n == 4 * 8
    assert first.protocol["frozen"] == "conv1, conv2, conv3, conv4"
    assert first.protocol["labelled_subjects"] == "S1"
    images = first.protocol["training_images"]
    assert isinstance(images, int)
    assert 20 < images <= 4 * 15  # S5 is not learned from, nor what stands still
    texts = [one.text for one in report.findings]
    assert any("the mean training pose" in text for text in texts)
    assert any("pretrained on figures by another split" in text for text in texts)
    with (run.path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == first.n
    assert {row["recording"] for row in rows} == {"S9/dancing"}
    mean = np.mean([float(row["mpjpe"]) for row in rows])
    assert first.value == pytest.approx(mean, abs=0.01)
    with h5py.File(run.path / "predictions.h5") as file:
        found, truth = file["found"][()], file["truth"][()]
        assert [one.decode() for one in file["ids"]] == [row["id"] for row in rows]
    off = np.linalg.norm(found - truth, axis=2)[:, 1:]
    assert first.value == pytest.approx(off.mean(), rel=1e-4)
    assert float(rows[3]["left wrist y"]) == pytest.approx(found[3, 13, 1], abs=0.06)
    for name in ("poses", "joints", "curves"):
        assert (run.path / "pictures" / f"{name}.png").is_file()
    assert run.problems() == []
    _predicts(run, tmp_path, data_dir, caplog)


def _predicts(run: Run, tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the trained network says of the real recording, and of photos by themselves."""
    video = data_dir / "multiview" / "single_person" / "videos_small" / "cam01.avi"
    out = tmp_path / "poses.csv"
    told = predict_pose(str(video), run.name, out=out, pictures=tmp_path / "shown", quiet=True)
    assert told.data["pictures"] == 100
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"cam01.avi/{n}" for n in range(100)]
    assert {row["pelvis x"] for row in rows} == {"0.0"}
    assert Image.open(tmp_path / "shown" / "cam01.avi.png").width > 1000
    photos = tmp_path / "photos"
    photos.mkdir()
    g = np.random.default_rng(0)
    for n in range(2):
        pixels = g.integers(0, 255, size=(50, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{n}.png")
    (photos / "broken.png").write_bytes(b"\x89PNG nothing")
    told = predict_pose(str(photos), run.name, out=tmp_path / "p.h5", quiet=True)
    assert told.data["pictures"] == 2
    assert [one["id"] for one in told.data["bad"]] == ["broken.png"]
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["found"].shape == (2, 17, 3)
    with pytest.raises(InputError, match="exists; --force replaces it"):
        predict_pose(str(photos), run.name, out=tmp_path / "p.h5", quiet=True)
    with pytest.raises(InputError, match="no file or folder"):
        predict_pose(str(tmp_path / "none"), run.name, out=tmp_path / "q.csv", quiet=True)
    with pytest.raises(InputError, match="of a moving camera"):
        predict_pose(str(video), run.name, out=tmp_path / "q.csv", camera="moving", quiet=True)
    (photos / "five.avi").symlink_to(data_dir / "broken" / "five_frames.avi")
    told = predict_pose(str(photos), run.name, out=tmp_path / "q.csv", quiet=True)
    assert told.data["sources"] == {"five.avi": 5}
    assert "3 images beside the videos" in caplog.text


def test_a_run_that_was_stopped_goes_on_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_of("whole")
    step = Pose.step

    def stopping(self: Pose, batch: Any, update: Any) -> Any:
        if update.step == 1:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)

    with monkeypatch.context() as patch:
        patch.setattr(Pose, "step", stopping)
        with pytest.raises(Stopped):
            run_of("cut")
    cut = run_of("cut")
    for name in ("model.safetensors", "predictions.csv", "predictions.h5", "metrics.jsonl"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name


@pytest.mark.slow
def test_several_seeds_are_reported_together() -> None:
    run = run_of("both", seeds=[0, 1], train__max_steps=1, subjects=["S5"], fraction=0.5)
    report = run.report()
    assert report is not None
    assert report.measurements[0].metric == "MPJPE"
    each = [Run.open(run.path.with_name(f"both-seed{seed}")).report() for seed in (0, 1)]
    values = [one.measurements[0].value for one in each if one is not None]
    assert report.measurements[0].value == pytest.approx(np.mean(values))
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subjects": ["S9"]}, "subjects: S9 cannot be learned from and tested on at once"),
        ({"subjects": ["S7"]}, "no subject 'S7' in figures"),
        ({"data__test_subjects": ["S5"]}, "S5 cannot be held out and learned from at once"),
        ({"images__test_every": 10_001}, "images.test_every"),
        ({"data__figures__mocap": "/nowhere/mocap"}, "no folder /nowhere/mocap"),
        ({"start__freeze": "layer9"}, "layer9"),
        ({"data__source": None}, "no data"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["transfer", "pose", "--preset", "base", "--run", "x"]
    for one in settings(**changes):
        arguments += ["--set", one]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
