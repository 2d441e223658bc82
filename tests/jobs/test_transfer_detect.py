"""`selfsup transfer detect` from its command line to its reports, small."""

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
from torchvision.ops import box_iou

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import Stopped
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build, save_backbone
from selfsup_cli.models.detector_weights import load_detector
from selfsup_cli.runs.run import Run

WIDE, HIGH = 72, 56
TINY = {
    "network.width": "0.125",
    "detector.hidden": "[128]",
    "detector.cells": "3",
    "detector.dropout": "0",
    "images.shorter": "[56, 64]",
    "images.test_shorter": "56",
    "regions.count": "32",
    "train.epochs": "2",
    "train.batch_size": "4",
    "optim.lr": "0.003",
    "check_epochs": "1",
    "machine.workers": "0",
}

LEARNING = {
    "train.epochs": "20",
    "images.shorter": "[112]",
    "images.test_shorter": "112",
    "check_epochs": "0",
}


@pytest.fixture(autouse=True)
def one_index(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked through once for all tests."""
    monkeypatch.setenv("SELFSUP_CACHE", str(squares.parent / "cache"))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue squares on grey noise, as PASCAL VOC has them, and a file of proposals."""
    root = tmp_path_factory.mktemp("squares") / "squares"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    names, proposals = [f"{n:02d}" for n in range(28)], {}
    for number, name in enumerate(names):
        pixels = random.integers(90, 130, (HIGH, WIDE, 3), np.uint8)
        objects, boxes = [], []
        for place in range(1 + number % 2):
            side = int(random.integers(18, 26))
            left = int(random.integers(0, 34 - side)) + 36 * place
            top = int(random.integers(0, HIGH - side))
            colour = int(random.integers(0, 2))
            pixels[top : top + side, left : left + side, 2 * colour] = 255
            boxes.append([left, top, left + side, top + side])
            corners = (left + 1, top + 1, left + side, top + side)
            inside = "".join(
                f"<{key}>{value}</{key}>"
                for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
            label = ("red", "blue")[colour]
            objects.append(f"<object><name>{label}</name><bndbox>{inside}</bndbox></object>")
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{''.join(objects)}</annotation>"
        )
        near = np.repeat(boxes, 6, 0) + random.integers(-4, 5, (6 * len(boxes), 4))
        corners_of = random.integers(0, (WIDE - 20, HIGH - 20), (30, 2))
        anywhere = np.concatenate([corners_of, corners_of + random.integers(8, 20, (30, 2))], 1)
        rows = np.concatenate([near, anywhere]).clip(0, [WIDE, HIGH, WIDE, HIGH])
        proposals[name] = rows.tolist()
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names[:20]))
    (root / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names[20:]))
    (root / "proposals.json").write_text(json.dumps(proposals))
    return root


def settings(root: Path, **more: str) -> list[str]:
    chosen = {**TINY, "proposals.file": str(root / "proposals.json"), **more}
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


def run_of(name: str, root: Path, init: str = "random", **more: str) -> Run:
    chosen = {**TINY, "proposals.file": str(root / "proposals.json"), **more}
    resolved = resolve(
        "transfer/detect",
        preset="base",
        options={"data.source": str(root), "start.init": init},
        sets=[f"{key}={value}" for key, value in chosen.items()],
        env={},
    )
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command_learns_to_find_squares(squares: Path) -> None:
    arguments = [sys.executable, "-m", "selfsup_cli", "transfer", "detect", "--data", str(squares),
                 "--preset", "base", "--init", "random", "--run", "a",
                 *settings(squares, **LEARNING)]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(arguments, capture_output=True, text=True, env=env)
    assert found.returncode == 0, found.stderr
    run = Run.open(Path(found.stdout.splitlines()[-1]))
    report = run.report()
    assert report is not None
    assert [row.name for row in report.measurements] == [
        "mAP-11", "mAP", "COCO-mAP", "COCO-mAP-50", "COCO-mAP-75",
    ]  # fmt: skip
    area = report.measurements[1]
    assert area.chance == 0
    assert area.n == 8
    assert area.interval is not None
    assert area.interval.low > 30, area
    assert area.protocol["proposals"] == "the file proposals.json"
    assert run.problems() == []
    for name in ("boxes.png", "recall.png", "classes.png"):
        assert (run.path / "pictures" / name).is_file()
    trained = load_detector(run.path / "model.safetensors")
    assert trained.classes == ("blue", "red")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in trained.network.modules())
    best: dict[str, dict[str, str]] = {}
    for row in rows_of(run.path / "predictions.csv"):
        best.setdefault(row["id"], row)
    assert len(best) == 8
    hits = 0
    for identifier, row in best.items():
        text = (squares / "Annotations" / f"{Path(identifier).stem}.xml").read_text()
        truth = [
            [float(text.split(f"<{key}>")[k + 1].split("<")[0]) - (key in ("xmin", "ymin"))
             for key in ("xmin", "ymin", "xmax", "ymax")]
            for k in range(text.count("<object>"))
        ]  # fmt: skip
        box = [[float(row[key]) for key in ("left", "top", "right", "bottom")]]
        hits += bool(box_iou(torch.tensor(box), torch.tensor(truth)).max() >= 0.5)
    assert hits >= 6


def test_a_detection_that_was_stopped_ends_as_if_it_had_not(
    squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfsup_cli.evaluation.detect import Detect

    whole = run_of("whole", squares)
    step = Detect.step

    def stopping(self: Detect, batch: Any, update: Any) -> Any:
        if update.step == 6:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)

    monkeypatch.setattr(Detect, "step", stopping)
    with pytest.raises(Stopped):
        run_of("cut", squares)
    monkeypatch.setattr(Detect, "step", step)
    cut = run_of("cut", squares)
    for name in ("model.safetensors", "predictions.csv", "metrics.jsonl", "pictures/boxes.png"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_it_makes_its_own_proposals_and_predicts(squares: Path, tmp_path: Path) -> None:
    """Selective search, kept for the next run, with batch norm on statistics of these images."""
    more = {"proposals.file": "null", "proposals.side": "72", "start.absorb_bn": "false",
            "start.rescale": "false", "start.freeze": "conv2", "train.epochs": "1"}  # fmt: skip
    run = run_of("searched", squares, **more)
    report = run.report()
    assert report is not None
    protocol = report.measurements[0].protocol
    assert protocol["frozen"] == "conv1, conv2"
    assert protocol["batch_norm"] == "fixed, statistics of training images"
    trained = load_detector(run.path / "model.safetensors").network
    state = trained.backbone.state_dict()
    fresh = build("alexnet", width=0.125, seed=0).state_dict()
    assert not state["conv1.norm.running_mean"].equal(fresh["conv1.norm.running_mean"])
    assert list((Path(os.environ["SELFSUP_CACHE"]) / "proposals").iterdir())
    out, pictures = tmp_path / "found.json", tmp_path / "pictures"
    images = tmp_path / "mine"
    images.mkdir()
    for name in ("01.png", "02.png"):
        (images / name).write_bytes((squares / "JPEGImages" / name).read_bytes())
    (images / "broken.png").write_bytes(b"\x89PNG")
    arguments = ["predict", str(images), "--from", "searched", "--out", str(out),
                 "--pictures", str(pictures), "--workers", "0"]  # fmt: skip
    assert main(arguments) == 0
    said = json.loads(out.read_text())
    assert [row["id"] for row in said["predictions"]] == ["01.png", "02.png", "broken.png"]
    assert "problem" in said["predictions"][2]
    for row in said["predictions"][:2]:
        scores = [box["score"] for box in row["boxes"]]
        assert scores == sorted(scores, reverse=True)
        for box in row["boxes"]:
            left, top, right, bottom = box["box"]
            assert 0 <= left < right <= WIDE
            assert 0 <= top < bottom <= HIGH
    with Image.open(pictures / "01.png.png") as picture:
        assert picture.size == (WIDE, HIGH)


def test_faster_needs_no_proposals_and_shares_keep_both_classes(squares: Path) -> None:
    more = {"detector.kind": "faster", "proposals.file": "null", "fraction": "0.6"}
    run = run_of("faster", squares, **{**more, "train.epochs": "1"})
    report = run.report()
    assert report is not None
    protocol = report.measurements[0].protocol
    assert protocol["proposals"] == "the network's own"
    assert protocol["training_images"] == 12
    assert {"loss_objectness", "loss_proposals"} <= set(run.metrics()[0])


def test_mistakes_are_one_sentence(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "video.safetensors"
    save_backbone(video, build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0), {})
    for arguments, said in (
        (["--data", "nowhere/"], "there is no folder or JSON file"),
        (["--data", "cifar10"], "give --data"),
        (["--init", str(video)], "takes videos, not images"),
        (["--layer", "fc1"], "no map of the image"),
        (["--freeze", "fc1"], "lies above conv5"),
        (["--proposals", str(tmp_path / "none.json")], "none.json"),
        (["--detector", "faster"], "Faster R-CNN makes its own proposals"),
        (["--head", "own", "--layer", "conv3"], "detector.layer"),
        (["--set", "regions.background_from=0.6"], "is not below overlap"),
        (["--arch", "timm/test_vit", "--width", "1", "--head", "own", "--no-absorb-bn",
          "--no-rescale"], "--head fresh"),
    ):  # fmt: skip
        gone = {"--proposals": "proposals.file", "--width": "network.width"}
        own = settings(squares)
        for flag, field in gone.items():
            if flag in arguments:
                at = next(k for k, one in enumerate(own) if one.startswith(field))
                del own[at - 1 : at + 1]
        data = [] if "--data" in arguments else ["--data", str(squares)]
        init = [] if "--init" in arguments else ["--init", "random"]
        status = main(["transfer", "detect", "--preset", "base", *data, *init, *arguments, *own])
        captured = capsys.readouterr()
        assert status == 2, (arguments, captured.err)
        assert captured.out == ""
        assert said in captured.err, captured.err
        assert "Traceback" not in captured.err


def test_a_rehearsal_tells_what_would_be_trained(
    squares: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["transfer", "detect", "--preset", "base", "--data", str(squares), "--init",
                 "random", "--dry-run", "--json", *settings(squares)]  # fmt: skip
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)["data"]
    assert (said["images"], said["test_images"], said["updates"]) == (20, 8, 10)
    assert said["answers"] == ["blue", "red"]
    assert not Path(said["run"]).exists()
