"""`selfsup transfer classify` from its command line to its reports, small."""

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
from PIL import Image

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.jobs.few_labels import few
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.classifier import load_classifier
from selfsup_cli.runs.run import Run

TINY = (
    *(f"data.{name}.images=32" for name in ("scenes", "facelike")),
    *(f"data.{name}.test_images=24" for name in ("scenes", "facelike")),
    *(f"data.{name}.side=32" for name in ("scenes", "facelike")),
    "network.width=0.125",
    "augment.shorter=24",
    "augment.crop=16",
    "head.hidden=[64]",
    "train.epochs=2",
    "train.batch_size=16",
    "machine.workers=0",
)


def chosen(*more: str) -> list[str]:
    """`TINY`, with what `more` says of the same fields."""
    return list({one.partition("=")[0]: one for one in (*TINY, *more)}.values())


def settings(*without: str) -> list[str]:
    """`TINY` as options, without the fields that are named."""
    kept = [one for one in TINY if not one.startswith(without or "\0")]
    return [part for one in kept for part in ("--set", one)]


def run_of(name: str, *more: str, init: str = "random", data: str = "scenes") -> Run:
    resolved = resolve(
        "transfer/classify",
        preset="base",
        options={"data.source": data, "start.init": init},
        sets=chosen(*more),
        env={},
    )
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def weights_of(path: Path, **trained_on: Any) -> Path:
    save_backbone(path, build("alexnet", width=0.125, crop=16, resize=(24, 24), seed=0), trained_on)
    return path


def test_the_command_trains_reports_and_ends_with_its_run(tmp_path: Path) -> None:
    weights = weights_of(tmp_path / "w.safetensors", method="transformations", data="scenes")
    arguments = [sys.executable, "-m", "selfsup_cli", "transfer", "classify", "--data", "scenes",
                 "--preset", "base", "--init", str(weights), "--run", "a", "--freeze", "conv2",
                 "--test-crops", "ten", *settings()]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(arguments, capture_output=True, text=True, env=env)
    assert found.returncode == 0, found.stderr
    run = Run.open(Path(found.stdout.splitlines()[-1]))
    report = run.report()
    assert report is not None
    top1 = report.measurements[0]
    assert (top1.task, top1.metric, top1.subject, top1.n) == (
        "classify", "top-1 accuracy", "learned", 24,
    )  # fmt: skip
    assert top1.protocol["frozen"] == "conv1, conv2"
    assert top1.protocol["test_crops"] == "ten crops"
    assert [row.metric for row in report.measurements] == [
        "top-1 accuracy", "top-5 accuracy", "class-balanced accuracy",
    ]  # fmt: skip
    rows = rows_of(run.path / "predictions.csv")
    assert list(rows[0]) == ["id", "label", "prediction", "confidence"]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert top1.value == pytest.approx(100 * right / 24)
    assert (run.path / "pictures" / "confusion.png").is_file()
    assert load_classifier(run.path / "model.safetensors").task == "classify"
    before, after = (
        load_backbone(path).state_dict() for path in (weights, run.path / "backbone.safetensors")
    )
    assert after["conv2.conv.weight"].equal(before["conv2.conv.weight"])
    assert not after["conv3.conv.weight"].equal(before["conv3.conv.weight"])
    assert run.problems() == []


def test_attributes_are_scored_by_average_precision() -> None:
    run = run_of("faces", data="facelike")
    report = run.report()
    assert report is not None
    (row,) = report.measurements
    assert (row.metric, row.n, row.interval is None) == ("mean average precision", 24, False)
    rows = rows_of(run.path / "predictions.csv")
    assert len(rows) == 24 * 8
    assert {one["label"] for one in rows} == {"0", "1"}
    assert all(0 <= float(one["score"]) <= 1 for one in rows)
    assert (run.path / "pictures" / "attributes.png").is_file()
    assert not (run.path / "pictures" / "confusion.png").exists()


def test_a_transfer_that_was_stopped_ends_as_if_it_had_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsup_cli.evaluation.classify import Classify

    more = ("start.reinit_head=true", "augment.color=true", "augment.cutout=0.5")
    whole = run_of("whole", *more)
    step = Classify.step

    def stopping(self: Classify, batch: Any, update: Any) -> Any:
        if update.step == 1:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)

    monkeypatch.setattr(Classify, "step", stopping)
    with pytest.raises(Stopped):
        run_of("cut", *more)
    monkeypatch.undo()
    monkeypatch.setenv("SELFSUP_RUNS", str(whole.path.parent))
    cut = run_of("cut", *more)
    for name in ("model.safetensors", "predictions.csv", "metrics.jsonl"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_supervised_is_the_newest_transfer_from_random_weights() -> None:
    with pytest.raises(InputError, match=r"--init supervised: "):
        run_of("x", init="supervised")
    first = run_of("first")
    run_of("frozen", "start.freeze=conv3")
    run_of("again", init=str(first.path))
    run = run_of("from-labels", init="supervised")
    assert run.info.parents[0]["run"] == "first"
    report = run.report()
    assert report is not None
    assert report.measurements[0].subject == "supervised"
    trained = load_backbone(first.path / "backbone.safetensors").trained_on
    assert (trained["method"], trained["from"]) == ("transfer/classify", "random")
    with pytest.raises(InputError, match="no run"):
        run_of("x", init="latest")


def stl10(root: Path, count: int = 30) -> Path:
    """STL-10 in its own form, with folds of a third of the images each."""
    folder = root / "stl10" / "stl10_binary"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, n in (("train", count), ("test", 20)):
        random.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{part}_X.bin")
        (np.arange(n, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    folds = [" ".join(str(i) for i in range(k % 3 * 10, k % 3 * 10 + 10)) for k in range(10)]
    (folder / "fold_indices.txt").write_text("\n".join(folds) + "\n")
    (folder / "class_names.txt").write_text("\n".join(f"class{k}" for k in range(10)) + "\n")
    return root


def test_folds_are_trained_one_after_the_other_and_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(stl10(tmp_path)))
    run = run_of("folds", "splits=[1, 2]", "train.batch_size=10", "train.epochs=1", data="stl10")
    report = run.report()
    assert report is not None
    own = [Run.open(run.path.parent / f"folds-split{k}-seed0").report() for k in (1, 2)]
    values = [one.measurements[0].value for one in own if one is not None]
    assert report.measurements[0].value == pytest.approx(np.mean(values))
    assert report.measurements[0].protocol["runs"] == 2
    first = own[0]
    assert first is not None
    assert first.measurements[0].split == "official fold 1"
    assert first.measurements[0].protocol["training_images"] == 10


@pytest.mark.parametrize("splits", ["1", "1,2", "2"])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_folds_that_are_not_there_are_refused_before_any_training(
    splits: str, dry: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs = tmp_path / "none"
    monkeypatch.setenv("SELFSUP_RUNS", str(runs))
    folder = tmp_path / "photos"
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (90 * int(name[2]), 0, 0)).save(folder / name)
    own = ["--preset", "base", "--init", "random", "--data", str(folder), "--splits", splits]
    assert main(["transfer", "classify", *own, *settings(), *dry]) == 2
    said = capsys.readouterr().err
    assert "no folds of its own; leave out --splits" in said or "has no numbered splits" in said
    assert not runs.exists()


def test_a_single_fold_is_the_one_that_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(stl10(tmp_path)))
    run = run_of("one", "splits=[2]", "train.batch_size=10", "train.epochs=1", data="stl10")
    report = run.report()
    assert report is not None
    assert report.measurements[0].split == "official fold 2"


def test_the_thesis_number_stands_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(stl10(tmp_path)))
    weights = weights_of(
        tmp_path / "w.safetensors", method="transformations", data="stl10", kinds=["rotate90"],
        split="official unlabeled and test", epochs=3,
    )  # fmt: skip
    report = run_of("beside", "train.batch_size=10", init=str(weights), data="stl10").report()
    assert report is not None
    number = report.measurements[0].published
    assert number is not None
    assert (number.value, number.comparable) == (91.8, False)
    said = " ".join(number.differs)
    for word in ("network", "epochs", "crops", "transformations"):
        assert word in said
    assert not any("may have been seen" in one.text for one in report.findings)


def test_small_images_are_scaled_up_and_told(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "own" / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        side = 12 if number < 3 else 40
        Image.new("RGB", (side, 50), (number, 0, 0)).save(folder / f"{number}.png")
    run = run_of("small", data=str(tmp_path / "own"))
    report = run.report()
    assert report is not None
    said = [one.text for one in report.findings if "smaller than the crop" in one.text]
    assert said == [
        "3 of 40 images are smaller than the crop of 16 pixels and are scaled up; a crop of 12 "
        "fits into all of them"
    ]


class Faces:
    """Images of which only names and attributes are known."""

    name = "faces"
    classes = None
    attributes = ("often", "rare")

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.ids = [f"{k}.jpg" for k in range(len(labels))]

    def __len__(self) -> int:
        return len(self.ids)


def test_a_fraction_that_leaves_an_attribute_empty_is_named() -> None:
    labels = np.zeros((60, 2), np.uint8)
    labels[::2, 0] = 1
    source: Any = Faces(labels)
    assert len(few(source, 0.2, seed=0)) == 12
    labels[:30, 1] = 1
    kept = few(source, 0.2, seed=0)
    assert set(kept) <= set(few(source, 0.5, seed=0))
    labels[:, 1] = 255
    labels[kept[0], 1] = labels[kept[1], 1] = 0
    labels[np.setdiff1d(np.arange(60), kept)[0], 1] = 1
    with pytest.raises(
        InputError, match=r"none of the 1 training images .* have the attribute rare"
    ):
        few(source, 0.2, seed=0)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(weights_of(tmp_path / "w.safetensors"))
    video = tmp_path / "video.safetensors"
    save_backbone(video, build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0), {})
    for arguments, said in (
        (["--data", "scenes", "--init", "random", "--fraction", "0.01"], "leaves the class"),
        (["--data", "scenes", "--init", "random", "--labels", "attributes"], "and no attributes"),
        (["--data", "facelike", "--init", "random", "--labels", "class"], "8 attributes"),
        (["--data", "scenes", "--init", weights, "--crop", "20"], "--reinit-head"),
        (["--data", "scenes", "--init", "random", "--freeze", "conv7"], "did you mean 'conv"),
        (["--data", "scenes", "--init", "random", "--crop", "99"], "shorter side is 24"),
        (["--data", "scenes", "--init", str(video)], "takes videos, not images"),
        (["--data", "scenes", "--init", "nowhere"], "there is no run"),
        (["--data", "motion", "--init", "random"], "motion"),
        (["--data", "scenes", "--init", "random", "--arch", "c3d"], "takes videos, not images"),
        (["--data", "scenes", "--init", "random", "--test-crops", "nine"], "nine"),
    ):
        own = settings(*(["augment.crop"] if "--crop" in arguments else []))
        status = main(["transfer", "classify", "--preset", "base", *arguments, *own])
        captured = capsys.readouterr()
        assert status == 2, (arguments, captured.err)
        assert captured.out == ""
        assert said in captured.err
        assert "Traceback" not in captured.err


def test_a_rehearsal_tells_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["transfer", "classify", "--preset", "base", "--data", "facelike", "--init",
                 "random", "--freeze", "conv", "--fraction", "0.5"]  # fmt: skip
    assert main([*arguments, "--dry-run", "--json", *settings()]) == 0
    said = json.loads(capsys.readouterr().out)["data"]
    assert (said["images"], said["test_images"], said["updates"]) == (16, 24, 2)
    assert said["frozen"] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert len(said["answers"]) == 8
    assert said["trained_parameters"] < said["parameters"]
    assert not Path(said["run"]).exists()
