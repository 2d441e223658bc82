"""`selfsup transfer segment` and `selfsup predict` with its networks, small."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.masks import voc_palette
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation.segment import Segment
from selfsup_cli.jobs.predict import predict
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build
from selfsup_cli.models.fcn import (
    FcnSpec,
    Segmenter,
    TrainedSegmenter,
    load_segmenter,
    save_segmenter,
)
from selfsup_cli.runs.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from masked_folders import disc, divided, folders, write_mask

NAMES = [f"p{i}" for i in range(9)]
TINY = (
    "network.width=0.125",
    "augment.shorter=32",
    "augment.crop=32",
    "train.epochs=2",
    "train.batch_size=3",
    "machine.workers=0",
    "check_epochs=1",
)


def run_of(name: str, data: Path, *more: str) -> Run:
    resolved = resolve(
        "transfer/segment",
        preset="camvid-small",
        options={"data.source": str(data), "start.init": "random"},
        sets=[*TINY, *more],
        env={},
    )
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("masked"), NAMES, "{part}/{kind}")


def test_the_command_trains_reports_and_leaves_masks(data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(data)
    arguments = [sys.executable, "-m", "selfsup_cli", "transfer", "segment",
                 "--preset", "camvid-small", "--data", str(tmp_path / "data"), "--init", "random",
                 "--freeze", "conv1", "--run", "a", *(p for one in TINY for p in ("--set", one)),
                 "--json"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(arguments, capture_output=True, text=True, env=env)
    assert found.returncode == 0, found.stderr
    run = Run.open(Path(json.loads(found.stdout)["run"]))
    report = run.report()
    assert report is not None
    first = report.measurements[0]
    assert (first.task, first.name, first.subject, first.n) == (
        "segment", "mIoU", "random weights", 3,
    )  # fmt: skip
    assert [row.name for row in report.measurements[3:]] == [
        "IoU class 0", "IoU class 1", "IoU class 2",
    ]  # fmt: skip
    assert first.protocol["frozen"] == "conv1"
    assert first.split == "the folders train/images and val/images"
    with (run.path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"val/images/p{i}.png" for i in (0, 3, 6)]
    truths, founds = [], []
    for row, seed in zip(rows, (0, 3, 6), strict=True):
        said = np.array(Image.open(run.path / row["mask"]))
        truth = disc(seed)[1]
        known = truth != 255
        assert float(row["accuracy"]) == pytest.approx((said == truth)[known].mean(), abs=1e-4)
        truths.append(truth[known])
        founds.append(said[known])
    expected = jaccard_score(
        np.concatenate(truths), np.concatenate(founds), average="macro", zero_division=0
    )
    assert first.value == pytest.approx(100 * expected)
    for name in ("masks.png", "confusion.png", "curves.png"):
        assert (run.path / "pictures" / name).is_file()
    assert load_segmenter(run.path / "model.safetensors").classes[2] == "class 2"
    assert run.problems() == []


def test_a_training_that_was_stopped_ends_as_if_it_had_not(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("augment.color=true", "head.hidden=[8]", "start.absorb_bn=true", "start.rescale=true")
    whole = run_of("whole", data, *more)
    step = Segment.step

    def stopping(self: Segment, batch: Any, update: Any) -> Any:
        if update.step == 1:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)

    monkeypatch.setattr(Segment, "step", stopping)
    with pytest.raises(Stopped):
        run_of("cut", data, *more)
    monkeypatch.undo()
    monkeypatch.setenv("SELFSUP_RUNS", str(whole.path.parent))
    cut = run_of("cut", data, *more)
    for name in ("model.safetensors", "predictions.csv", "metrics.jsonl"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    report = whole.report()
    assert report is not None
    assert report.measurements[0].protocol["batch_norm"] == "absorbed by the layers before it"


def test_classes_that_are_in_one_part_only_are_told(tmp_path: Path) -> None:
    root = divided(tmp_path, NAMES, "{kind}/{part}")
    (root / "classes.txt").write_text("ground\ndisc\nbar\nrare\nnever\n")
    labels = disc(0)[1]
    labels[20:, 20:] = 3
    write_mask(root / "masks/val/p0.png", labels, "L")
    for name in ("p1", "p2"):
        write_mask(root / f"masks/train/{name}.png", disc(1)[1] * 0, "L")
    run = run_of("some", root)
    report = run.report()
    assert report is not None
    said = [one.text for one in report.findings]
    assert any("the class rare: in no training mask, and so never found" in one for one in said)
    assert any("the class never: in no mask, and left out" in one for one in said)
    assert report.measurements[0].protocol["never_trained"] == ["rare", "never"]
    rare = next(row for row in report.measurements if row.name == "IoU rare")
    assert (rare.value, rare.n) == (0, 1)


def test_predict_writes_masks_and_overlays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Segmenter(build("alexnet", width=0.125, seed=0), FcnSpec(outputs=3))
    torch.nn.init.normal_(network.score.weight)
    classes = tuple(f"class {c}" for c in range(3))
    facts = {"shorter": 32, "labels": [0, 1, 2], "palette": [list(c) for c in voc_palette()]}
    trained = tmp_path / "trained.safetensors"
    save_segmenter(trained, TrainedSegmenter(network, classes, facts), {})
    mine = tmp_path / "mine"
    folders(mine, ["a", "b"])
    (mine / "images/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    target = tmp_path / "out.json"
    with pytest.raises(InputError):
        predict(str(tmp_path / "nowhere"), str(trained), out=target, quiet=True)
    assert not target.with_suffix("").exists()
    outcome = predict(str(mine / "images"), str(trained), out=target, quiet=True)
    said = json.loads(target.read_text())
    assert said["classes"] == ["class 0", "class 1", "class 2"]
    first, second, broken = said["predictions"]
    assert (first["id"], second["id"], broken["id"]) == ("a.png", "b.png", "broken.jpg")
    assert "problem" in broken
    mask = Image.open(tmp_path / "out" / first["mask"])
    assert (mask.mode, mask.size) == ("P", (48, 40))
    values = np.array(mask)
    for label, name in enumerate(said["classes"]):
        share = float((values == label).mean())
        assert first["shares"].get(name, 0) == pytest.approx(share, abs=1e-4)
    assert (tmp_path / "out/overlays/a.png.png").is_file()
    assert outcome.data["images"] == 2
    for arguments, error in (
        ([], "is not empty; --force writes into it"),
        (["--clips", "2"], "--clips: a network of 'selfsup transfer segment'"),
        (["--test-crops", "ten"], "--test-crops: a network of 'selfsup transfer segment'"),
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "predictions").mkdir(exist_ok=True)
        (tmp_path / "predictions" / "kept").touch()
        status = main(["predict", str(mine / "images"), "--from", str(trained), *arguments])
        assert status == 2
        assert error in capsys.readouterr().err


def test_what_cannot_be_done_is_said_before_training(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ["--set", "machine.workers=0", "--init", "random", "--preset", "camvid-small"]
    for arguments, said in (
        (["--data", str(data), "--width", "1", "--arch", "timm/vit_tiny_patch16_224",
          "--crop", "64"], "has no layer whose cells are 8 pixels apart, as 8s needs; use"),
        (["--data", str(data), "--splits", "1,2"], "has no folds of its own; leave out --splits"),
        (["--data", str(data), "--freeze", "fc1"], "fc1 lies above conv5"),
        (["--data", "stl10"], "stl10 has no masks"),
        (["--data", str(data), "--batch-size", "64"], "6 training samples do not fill one batch"),
        (["--data", str(data), "--set", "augment.scale=[2.0, 1.0]"], "the range ends (1) before"),
    ):  # fmt: skip
        runs = tmp_path / "none"
        monkeypatch.setenv("SELFSUP_RUNS", str(runs))
        status = main(["transfer", "segment", *own, *arguments])
        assert status == 2, arguments
        assert said in capsys.readouterr().err, arguments
        assert not list(runs.glob("*/model.safetensors"))


def test_a_rehearsal_says_what_would_be_done(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--set", "machine.workers=0", "--init", "random", "--preset", "camvid-small"]
    arguments = ["transfer", "segment", "--data", str(data), "--dry-run", *own]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "data: 6 training and 3 test images" in out
    assert "task: segment, 3 answers; FCN-8s: strides of conv5 at 32, conv5 at 16" in out
