"""`selfsup pretrain bilevel`, and tasks with `--optimizer bilevel`, from preset to report."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from selfsup_cli.config.bilevel import PretrainBilevel
from selfsup_cli.config.presets import resolve
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation.classify import Classify
from selfsup_cli.evaluation.tasks import create
from selfsup_cli.jobs import labels, on_labels
from selfsup_cli.jobs import pretrain as pretraining
from selfsup_cli.jobs import transfer as transferring
from selfsup_cli.jobs.starting import load_start
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import confusion, curves, suspect_sheet, weights

CLASSES = ("blue", "red")
TINY = (
    "network.width=0.125",
    "augment.shorter=16",
    "augment.crop=16",
    "train.epochs=3",
    "train.batch_size=16",
    "weighing.count=4",
    "machine.workers=0",
    "machine.device=cpu",
    "check_epochs=2",
)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two colours, which are their classes: 24 and 6 of each."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for part, count in (("train", 48), ("test", 12)):
        labels = np.arange(count) % 2
        colours = np.array([(40, 60, 200), (200, 60, 40)])[labels][:, None, None]
        pixels = rng.normal(colours, 30, (count, 20, 20, 3))
        found |= {f"x_{part}": np.clip(pixels, 0, 255).astype(np.uint8), f"y_{part}": labels}
    path = tmp_path_factory.mktemp("colours") / "colours.npz"
    np.savez(path, class_names=np.array(CLASSES), **found)  # type: ignore[arg-type]
    return path


def dot(path: Path, *_: Any, **__: Any) -> None:
    Image.new("RGB", (1, 1)).save(path, "PNG")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than the rest of a run this small."""
    for module, name in (
        (curves, "draw"), (confusion, "matrix"), (weights, "over_time"), (suspect_sheet, "sheet"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, dot)


def chosen(*more: str) -> list[str]:
    """`TINY`, with what `more` says of the same fields."""
    return list({one.partition("=")[0]: one for one in (*TINY, *more)}.values())


def trained(arrays: Path, name: str, *more: str, noise: float = 0.25) -> Run:
    options = {"data.source": str(arrays), "data.noise.share": noise or None}
    resolved = resolve(
        "pretrain/bilevel", preset="bilevel/small", options=options, sets=chosen(*more), env={}
    )
    outcome = pretraining.pretrain(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = safetensors.torch.load_file(run.path / "model.safetensors")
    return found


def truth(identifier: str) -> str:
    return CLASSES[int(identifier.rpartition("/")[2]) % 2]


def test_what_a_run_on_wrong_labels_leaves(arrays: Path) -> None:
    run = trained(arrays, "a")
    wrong = rows_of(run.path / "noise.csv")
    assert len(wrong) == 12  # 6 of each class
    assert all(row["true"] == truth(row["path"]) != row["label"] for row in wrong)
    suspects = rows_of(run.path / "suspects.csv")
    assert list(suspects[0]) == ["id", "given", "proposed", "score"]
    assert len({row["id"] for row in suspects}) == 48
    given = {row["path"]: row["label"] for row in wrong}
    for row in suspects:
        assert row["given"] == given.get(row["id"], truth(row["id"]))
        assert row["given"] != row["proposed"]
    scores = [float(row["score"]) for row in suspects]
    assert scores == sorted(scores, reverse=True)
    report = run.report()
    assert report is not None
    assert (report.job, run.info.job) == ("pretrain/bilevel", "pretrain/bilevel")
    rows = {row.name: row for row in report.measurements}
    assert {"top-1", "training labels", "gap", "wrong labels", "true labels"} < set(rows)
    assert {f"AUROC, {name}" for name in ("agreement", "loss", "both")} < set(rows)
    assert (rows["wrong labels"].n, rows["true labels"].n) == (12, 48)
    gap = rows["training labels"].value - rows["top-1"].value
    assert rows["gap"].value == pytest.approx(gap)
    assert rows["top-1"].protocol["label_noise"] == "uniform 0.25, seed 123"
    names = {Path(one.file).name for one in report.pictures}
    assert {"weights.png", "suspects.png", "curves.png"} <= names
    for name in names:
        assert Image.open(run.path / "pictures" / name).size[0] > 300
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps_ = [row for row in logged if "loss" in row]
    assert len(steps_) == 9
    assert all({"omega_negative", "omega_fewer_wrong", "agreement"} < set(row) for row in steps_)
    assert any({"test_accuracy", "train_accuracy"} <= set(row) for row in logged)
    assert run.info.dataset is not None
    assert run.info.dataset["train"]["changes"] == ["uniform label noise of 0.25"]
    assert "changes" not in run.info.dataset["test"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["bilevel", "sgd"])
def test_a_run_that_was_stopped_ends_as_if_it_had_not(
    arrays: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (f"optim.name={name}", "augment.flip=true", "regularize.dropout=0.3")
    whole = trained(arrays, f"whole-{name}", *more)
    step = Classify.step

    def stopping(self: Classify, batch: Any, update: Any) -> Any:
        if update.step == 4:
            os.kill(os.getpid(), 15)
        return step(self, batch, update)

    monkeypatch.setattr(Classify, "step", stopping)
    with pytest.raises(Stopped):
        trained(arrays, f"stopped-{name}", *more)
    monkeypatch.setattr(Classify, "step", step)
    again = trained(arrays, f"stopped-{name}", *more)
    for file in ("noise.csv", "suspects.csv", "model.safetensors"):
        assert (again.path / file).read_bytes() == (whole.path / file).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_plain_training_on_right_labels_says_how_well_they_are_fitted(arrays: Path) -> None:
    run = trained(arrays, "plain", "optim.name=sgd", "suspects.on=false", noise=0)
    report = run.report()
    assert report is not None
    assert {"training labels", "gap"} <= {one.name for one in report.measurements}


@pytest.mark.usefixtures("undrawn")
def test_labels_of_a_file_are_trained_on(arrays: Path) -> None:
    drawn = trained(arrays, "drawn", "train.epochs=1")
    noise = drawn.path / "noise.csv"
    stated = trained(
        arrays, "stated", "train.epochs=1", "data.noise.kind=stated", f"data.noise.file={noise}",
        noise=0,
    )  # fmt: skip
    assert noise.read_bytes() == (stated.path / "noise.csv").read_bytes()
    first, second = weights_of(drawn), weights_of(stated)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.usefixtures("undrawn")
def test_labels_that_a_network_predicts_are_those_that_a_run_goes_on_with(
    arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(arrays, "guessing", "regularize.dropout=0.5", noise=0)
    more = ("train.epochs=1", "data.noise.kind=predicted", "data.noise.network=guessing")
    run = trained(arrays, "predicted", *more, noise=0)
    report = run.report()
    assert report is not None
    assert any("labels that a network predicted" in one.text for one in report.findings)
    # What goes on does not ask the network again.
    monkeypatch.setattr("selfsup_cli.jobs.labels.guesses", None)
    preset = resolve(
        "pretrain/bilevel", preset="bilevel/small", options={"data.source": str(arrays)},
        sets=chosen(*more), env={},
    ).preset  # fmt: skip
    assert isinstance(preset, PretrainBilevel)
    hardware = choose("cpu", "auto")
    with Progress(quiet=True) as progress:
        start = load_start(preset, None, 0)
        train, _ = transferring._material(preset, start, hardware, progress, "predicted")
    noisy = labels.noise_in(train.source)
    assert noisy is not None
    rows = [*noisy.rows(train.source.ids, CLASSES)]
    assert rows == [tuple(row.values()) for row in rows_of(run.path / "noise.csv")]
    assert rows


def stepped(arrays: Path, *more: str, noise: float = 0.25) -> dict[str, torch.Tensor]:
    """The network after two steps, without a run."""
    options = {"data.source": str(arrays), "data.noise.share": noise or None}
    resolved = resolve(
        "pretrain/bilevel", preset="bilevel/small", options=options,
        sets=chosen("regularize.dropout=0.5", "train.max_steps=2", "check_epochs=0", *more),
        env={},
    )  # fmt: skip
    preset, hardware = resolved.preset, choose("cpu", "auto")
    assert isinstance(preset, PretrainBilevel)
    with Progress(quiet=True) as progress:
        start = load_start(preset, None, 0)
        train, test = transferring._material(preset, start, hardware, progress, None)
        task = create(preset, start.backbone, train.source, 0)
        on_labels.look(task, train)
        transferring._fit(task, None, train, test, hardware, progress)()
    return task.state_dict()


def test_every_option_of_a_step_changes_it(arrays: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = stepped(arrays)
    assert all(torch.equal(base[key], one) for key, one in stepped(arrays).items())
    for way in (
        "optim.name=microbatches", "optim.name=sgd", "weighing.solver=exact",
        "weighing.per_layer=true", "weighing.normalize=false", "weighing.matched=false",
        "weighing.masks=equal", "weighing.validation=0.25", "regularize.mixup=1.0",
        "regularize.smoothing=0.1", "data.permute_pixels=true", "augment.light=true",
        "weighing.lam=0.1", "weighing.mu=10",
    ):  # fmt: skip
        found = stepped(arrays, way)
        assert not all(torch.equal(base[key], found[key]) for key in base), way
        assert all(bool(one.isfinite().all()) for one in found.values()), way
    assert "fewer training images than there are mini-batches" not in caplog.text
    stepped(arrays, "fraction=0.5", "weighing.count=16", noise=0)
    assert (
        "2 labels have fewer training images than there are mini-batches (16), the rarest 12"
        in (caplog.text)
    )


def test_a_mini_batch_that_is_not_finite_leaves_nothing_in_batch_norm(
    arrays: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    augmented, seen = Classify.augmented, []

    def broken(self: Classify, images: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        seen.append(1)
        return augmented(self, images, g) * (float("inf") if len(seen) == 3 else 1)

    monkeypatch.setattr(Classify, "augmented", broken)
    found = stepped(arrays)
    assert "mini-batch 3 of 4 is not finite" in caplog.text
    assert all(bool(one.isfinite().all()) for one in found.values())


@pytest.mark.usefixtures("undrawn")
def test_suspects_beside_confident_learning(arrays: Path) -> None:
    run = trained(arrays, "folds", "suspects.folds=2", "suspects.ranking=loss", "train.epochs=1")
    report = run.report()
    assert report is not None
    rows = {row.name: row for row in report.measurements}
    assert 40 < rows["AUROC, confident"].n <= 48  # those that came up in one epoch
    assert sorted(path.name for path in (run.path / "folds").iterdir()) == ["1.npy", "2.npy"]


@pytest.mark.usefixtures("undrawn")
def test_a_training_that_saw_no_wrong_label_ends_and_says_so(arrays: Path) -> None:
    how = ("train.max_steps=1", "weighing.count=2", "train.batch_size=2", "data.noise.seed=1")
    run = trained(arrays, "short", *how, noise=0.05)
    report = run.report()
    assert report is not None
    assert not any(row.name.startswith("AUROC") for row in report.measurements)
    said = "the 2 training images that came up are not of both kinds"
    assert any(said in one.text for one in report.findings)
    assert len(rows_of(run.path / "suspects.csv")) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_step_is_that_of_the_optimiser_on_mini_batches(
    arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    weighed = Update.weighed

    def kept(self: Any, losses: Any, name: str = "main") -> Any:
        found = weighed(self, losses, name)
        seen.append(found)
        return found

    monkeypatch.setattr(Update, "weighed", kept)
    trained(arrays, "micro", "optim.name=microbatches", "train.epochs=1")
    assert len(seen) == 3
    for found in seen:
        assert found.weights.tolist() == pytest.approx([1 / 3] * 3)
        assert len(found.losses) == 4


@pytest.mark.parametrize(("job", "preset", "more"), [
    ("transfer/action", "base", (
        "data.source=motion", "data.motion.videos=16", "data.motion.test_videos=8",
        "data.motion.side=16", "network.width=0.125", "augment.resize=[16, 16]",
        "augment.crop=16", "train.batch_size=8", "clips.test=1", "network.arch=r2plus1d",
    )),
    ("transfer/segment", "base", (
        "data.source=scenes", "data.scenes.images=16", "data.scenes.test_images=8",
        "data.scenes.side=32", "network.width=0.125", "augment.crop=32",
        "train.batch_size=8", "network.arch=alexnet",
    )),
    ("transfer/classify", "base", (
        "data.source=facelike", "data.facelike.images=16", "data.facelike.test_images=16",
        "data.facelike.side=32", "network.width=0.125", "augment.shorter=16", "augment.crop=16",
        "train.batch_size=8", "network.arch=cifarnet", "suspects.on=true",
    )),
])  # fmt: skip
def test_every_task_can_weigh_its_mini_batches(
    job: str, preset: str, more: tuple[str, ...]
) -> None:
    sets = (*more, "start.init=random", "optim.name=bilevel", "weighing.count=4",
            "optim.lr=0.01", "optim.weight_decay=5e-4", "train.epochs=1", "machine.workers=0",
            "machine.device=cpu", "check_epochs=0")  # fmt: skip
    resolved = resolve(job, preset=preset, sets=list(sets), env={})
    outcome = transferring.transfer(resolved, run=job.replace("/", "-"), quiet=True)
    assert outcome.run_dir is not None
    logged = (outcome.run_dir / "metrics.jsonl").read_text().splitlines()
    assert "omega_negative" in json.loads(logged[0])
    assert outcome.report is not None
    assert outcome.report.measurements[0].protocol["mini_batches"] == 4
    if "suspects.on=true" in more:  # attributes
        said = "which labels are suspicious is told of images that have one class each"
        assert said in [one.text for one in outcome.report.findings]


def refused(arrays: Path, *sets: str) -> str:
    with pytest.raises(InputError) as error:
        trained(arrays, "refused", *sets, noise=0)
    return str(error.value)


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(("sets", "said"), [
    (("weighing.count=7",), "cannot be divided into 7 mini-batches of equal size; use --batch-size"
     " 14"),
    (("weighing.count=33",), "from 2 to 32"),
    (("train.batch_size=8", "weighing.count=16"), "use --batch-size 16"),
    (("train.batch_size=64",), "48 training samples do not fill one batch of 64"),
    (("train.precision=fp16",), "which fp16 scales"),
    (("train.accumulate=2",), "use more --mini-batches"),
    (("data.noise.share=1.0",), "data.noise.share: must be a number of at least 0 and less than 1"),
    (("data.noise.share=-0.1",), "data.noise.share: must be"),
    (("data.noise.kind=confusion",), "read from a CSV file; name it"),
    (("data.noise.kind=predicted",), "need a network"),
    (("data.noise.kind=pairs",), "say how many labels become that of the next class, with"
     " --label-noise"),
    (("data.noise.kind=stated", "data.noise.file=/nowhere.csv"), "there is no file /nowhere.csv"),
    (("data.noise.file=x.csv",), "that is for --noise-kind confusion or stated, not uniform"),
    (("data.noise.kind=stated", "data.noise.file=x.csv", "data.noise.share=0.5"),
     "stated labels have no share of their own"),
    (("regularize.inside=0.3",), "only the blocks of preact_resnet18"),
    (("suspects.folds=2", "suspects.on=false"), "that is for --suspects"),
    (("suspects.folds=2", "train.batch_size=32"),
     "without one of 2 parts, 24 training images do not fill one batch of 32"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(
    arrays: Path, sets: tuple[str, ...], said: str
) -> None:
    assert said in refused(arrays, *sets)


@pytest.mark.parametrize(("kind", "text", "said"), [
    ("stated", "path,label\ntrain/000099,red\n", ":2: there is no image 'train/000099'"),
    ("stated", "path,label\ntrain/000000,green\n", ":2: there is no class 'green'"),
    ("stated", "path,label\n", "gives no labels"),
    ("confusion", "class,blue,red\nblue,0.5,0.4\n", "row 1 of the confusion matrix (blue)"),
    ("confusion", "class,blue,red\nblue,0,1\nred,0,1\n", "flips all 24 images of class 'blue'"),
    ("confusion", "class,blue,green\nblue,0.5,0.5\n", "there is no class 'green'"),
])  # fmt: skip
def test_files_of_labels_that_do_not_fit_are_refused(
    arrays: Path, tmp_path: Path, kind: str, text: str, said: str
) -> None:
    path = written(tmp_path / "labels.csv", text)
    assert said in refused(arrays, f"data.noise.kind={kind}", f"data.noise.file={path}")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(arrays: Path, tmp_path: Path) -> None:
    sets = [
        part for one in chosen("regularize.dropout=0.3", "optim.lr=0.01") for part in ("--set", one)
    ]
    logs: list[list[dict[str, Any]]] = []
    for devices in ("1", "2"):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "SELFSUP_RUNS": str(tmp_path)}
        subprocess.run(
            [sys.executable, "-m", "selfsup_cli", "pretrain", "bilevel", "--data", str(arrays),
             "--preset", "bilevel/small", "--label-noise", "0.25", "--devices", devices,
             "--run", devices, *sets],
            env=env, check=True, capture_output=True,
        )  # fmt: skip
        lines = (tmp_path / devices / "metrics.jsonl").read_text().splitlines()
        logs.append([row for row in map(json.loads, lines) if "loss" in row])
    first, second = logs
    assert len(first) == len(second) == 9
    for one, other in zip(first, second, strict=True):
        for name in ("loss", "acc", "agreement", "omega_negative", "omega_fewer_wrong"):
            assert one[name] == pytest.approx(other[name], abs=1e-3), (one["step"], name)
