"""`transfer classify` as on PASCAL VOC: absorbed, rescaled, several classes, ten random crops."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.jobs.export import export
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.classifier import load_classifier
from selfsup_cli.runs.run import Run

TINY = (
    "data.facelike.images=32",
    "data.facelike.test_images=16",
    "data.facelike.side=32",
    "network.width=0.125",
    "augment.shorter=24",
    "augment.crop=16",
    "head.hidden=[64, 64]",
    "train.epochs=2",
    "machine.workers=0",
)


def run_of(name: str, *more: str, init: str, data: str = "facelike") -> Run:
    resolved = resolve(
        "transfer/classify",
        preset="voc2007",
        options={"data.source": data, "start.init": init},
        sets=[*TINY, *more],
        env={},
    )
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


def learned(path: Path, arch: str = "alexnet") -> str:
    """A network that knows something other than it was made with, for other crops."""
    network = build(arch, width=0.125, crop=32, resize=(40, 40), seed=0)
    g = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            torch.nn.init.uniform_(value, 0.5, 2.0, generator=g)
    facts = {"method": "artifacts", "data": "imagenet", "epochs": 150, "split": "official"}
    save_backbone(path, network, facts)
    return str(path)


@pytest.mark.parametrize("arch", ["alexnet", "alexnet_lrn"])
def test_a_learned_network_is_absorbed_rescaled_and_fine_tuned(arch: str, tmp_path: Path) -> None:
    run = run_of("voc", init=learned(tmp_path / "w.safetensors", arch))
    report = run.report()
    assert report is not None
    (row,) = report.measurements
    assert (row.metric, row.n, row.subject) == ("mean average precision", 16, "learned")
    protocol = row.protocol
    assert protocol["test_crops"] == "10 random crops, half of them mirrored"
    assert protocol["batch_norm"] == "absorbed by the layers before it"
    assert protocol["rescaled"] == "fresh layers, on up to 128 training images"
    assert protocol["frozen"] == "nothing"
    trained = load_classifier(run.path / "model.safetensors")
    assert trained.network.backbone.spec["absorbed"] is True
    assert not any(isinstance(one, torch.nn.BatchNorm2d) for one in trained.network.modules())
    assert trained.clips == {"crops": "random", "labels": "attributes"}
    assert load_backbone(run.path / "backbone.safetensors").spec["absorbed"] is True
    assert all(np.isfinite(one["loss"]) for one in run.metrics() if "loss" in one)
    first = next(float(one["loss"]) for one in run.metrics() if "loss" in one)
    assert first < 3  # logits of unit variance cost little more than no answer, which costs log 2


def test_it_goes_on_as_if_it_had_not_been_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsup_cli.evaluation.classify import Classify

    whole = run_of("whole", init="random")
    report = whole.report()
    assert report is not None
    assert str(report.measurements[0].protocol["rescaled"]).startswith("all layers")
    step = Classify.step

    def stopping(self: Classify, batch: Any, update: Any) -> Any:
        if update.step == 1:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)

    monkeypatch.setattr(Classify, "step", stopping)
    with pytest.raises(Stopped):
        run_of("cut", init="random")
    monkeypatch.undo()
    monkeypatch.setenv("SELFSUP_RUNS", str(whole.path.parent))
    cut = run_of("cut", init="random")
    for name in ("model.safetensors", "predictions.csv"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    with pytest.raises(InputError, match="has no batch norm any more"):
        export("timm", str(learned_resnet(cut.path)))


def learned_resnet(folder: Path) -> Path:
    """One of timm's networks that has absorbed its batch norm."""
    from selfsup_cli.models.absorb import absorbed

    path = folder / "resnet.safetensors"
    save_backbone(path, absorbed(build("timm/resnet10t", crop=32, seed=0)), {})
    return path


def test_a_folder_in_the_form_of_voc(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for number in range(12):
        name = f"{number:06d}"
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 50), (20 * number, 90, 0)).save(root / "JPEGImages" / f"{name}.jpg")
        objects = ["cat"] * (number % 2) + ["dog"] * (number % 3 == 0)
        inner = "".join(f"<object><name>{one}</name></object>" for one in objects)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{inner}</annotation>")
        lists["trainval" if number < 6 else "test"].append(name)
    for part, names in lists.items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    run = run_of("own", "train.batch_size=3", init="random", data=str(root))
    report = run.report()
    assert report is not None
    (row,) = report.measurements
    assert (row.n, row.protocol["attributes"]) == (6, 2)
    with (run.path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(one["attribute"], one["label"]) for one in rows} == {
        ("cat", "0"), ("cat", "1"), ("dog", "0"), ("dog", "1"),
    }  # fmt: skip


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit = tmp_path / "vit.safetensors"
    save_backbone(vit, build("timm/vit_tiny_patch16_224", crop=32, seed=0), {})
    for arguments, said in (
        (["--preset", "base", "--init", "random", "--rescale"], "set start.absorb_bn as well"),
        (["--preset", "base", "--init", "x", "--rescale", "--reinit-head"], "set head.batch_norm"),
        (["--preset", "base", "--init", str(vit), "--absorb-bn"], "has no batch norm that its"),
        (["--preset", "voc2007", "--init", "random", "--arch", "timm/resnetv2_18"], "follow one"),
    ):
        assert main(["transfer", "classify", "--data", "facelike", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert said in captured.err
        assert "Traceback" not in captured.err
