"""`selfsup predict` on images, and what `selfsup export` says of them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup_cli.jobs.predicted import picture_names
from selfsup_cli.models import build
from selfsup_cli.models.classifier import Classifier, HeadSpec, Trained, save_classifier

CLASSES = ("dark", "middle", "bright")


def saved(path: Path, labels: str, weight: float = 1.0) -> Path:
    backbone = build("alexnet", width=0.125, crop=32, resize=(40, 40), seed=0)
    spec = HeadSpec(kind="linear", outputs=3, hidden=[])
    network = Classifier(backbone, spec, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        network.last.weight.mul_(weight)
        network.last.bias.copy_(torch.tensor([2.0, 0.0, -2.0]))
    facts = {"crops": "center", "labels": labels}
    save_classifier(path, Trained(network, "classify", CLASSES, facts, ""), {})
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.safetensors", "class")


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    return saved(tmp_path / "tagger.safetensors", "attributes")


@pytest.fixture
def photos(data_dir: Path, tmp_path: Path) -> Path:
    """Two photos, one that lies on its side by its EXIF, and one that is cut short."""
    folder = tmp_path / "photos" / "inside"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((data_dir / "photos/test/ketch").iterdir())[:2]):
        shutil.copy(path, folder / f"photo{number}.jpg")
    for name in ("exif_rotated.jpg", "truncated_half.jpg"):
        shutil.copy(data_dir / "broken" / name, folder)
    return folder.parent


def test_a_folder_is_labelled_and_what_is_broken_is_named(
    selfsup: Callable[..., Any], model: Path, photos: Path, tmp_path: Path
) -> None:
    out, pictures = tmp_path / "out.csv", tmp_path / "pictures"
    said = selfsup("predict", str(photos), "--from", str(model), "--out", str(out),
                   "--pictures", str(pictures), "--workers", "0")  # fmt: skip
    assert said.status == 0, said.err
    assert said.out.splitlines()[-1] == str(out)
    assert "3 images labelled, 1 not read" in said.out
    with out.open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["inside/truncated_half.jpg"]["problem"]
    good = [row for row in rows.values() if not row["problem"]]
    assert [row["prediction"] for row in good] == ["dark"] * 3
    assert len(list(pictures.glob("*.png"))) == 3


def test_every_image_has_a_picture_of_its_own(
    selfsup: Callable[..., Any], model: Path, photos: Path, tmp_path: Path
) -> None:
    folder, pictures = tmp_path / "alike", tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for number, name in enumerate(("a/b.jpg", "a_b.jpg")):
        shutil.copy(photos / "inside" / f"photo{number}.jpg", folder / name)
    said = selfsup("predict", str(folder), "--from", str(model), "--out", str(tmp_path / "o.csv"),
                   "--pictures", str(pictures), "--workers", "0")  # fmt: skip
    assert said.status == 0, said.err
    drawn = sorted(pictures.iterdir())
    assert [path.name for path in drawn] == ["a_b.jpg-2.png", "a_b.jpg.png"]
    assert drawn[0].read_bytes() != drawn[1].read_bytes()


def test_names_of_pictures_never_meet() -> None:
    ids = ["a/b", "a_b", "a_b-2", "A_B", "c"]
    assert picture_names(ids) == ["a_b.png", "a_b-2.png", "a_b-2-2.png", "A_B-3.png", "c.png"]


def test_the_picture_is_upright(selfsup: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    """Red above blue for whoever looks at it: stored on its side, as its EXIF says."""
    shown = np.zeros((60, 40, 3), np.uint8)
    shown[:30, :, 0] = shown[30:, :, 2] = 250
    image = Image.fromarray(np.ascontiguousarray(np.rot90(shown)))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "side.jpg", exif=exif, quality=95)
    out = tmp_path / "o.csv"
    said = selfsup("predict", str(tmp_path / "side.jpg"), "--from", str(model), "--out", str(out),
                   "--pictures", str(tmp_path / "pictures"))  # fmt: skip
    assert said.status == 0, said.err
    drawn = np.asarray(Image.open(tmp_path / "pictures" / "side.jpg.png").convert("RGB")).astype(
        int
    )
    red = np.argwhere((drawn[..., 0] > 200) & (drawn[..., 2] < 60))
    blue = np.argwhere((drawn[..., 2] > 200) & (drawn[..., 0] < 60))
    assert red[:, 0].max() < blue[:, 0].min() + 8
    height, width = np.ptp(np.concatenate([red, blue]), axis=0)
    assert height / width == pytest.approx(1.5, abs=0.05)


def test_attributes_are_told_with_their_scores(
    selfsup: Callable[..., Any], tagger: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.json"
    path = str(photos / "inside" / "photo1.jpg")
    said = selfsup("predict", path, "--from", str(tagger), "--out", str(out), "--json")
    assert said.status == 0, said.err
    (told,) = json.loads(said.out)["data"]["predictions"]
    assert json.loads(out.read_text())["predictions"] == [told]
    assert told["has"] == [name for name, score in told["scores"].items() if score >= 0.5]
    assert list(told["scores"]) == list(CLASSES)
    assert told["scores"]["dark"] > 0.8 > 0.2 > told["scores"]["bright"]
    table = tmp_path / "o.csv"
    said = selfsup("predict", str(photos), "--from", str(tagger), "--out", str(table))
    assert "dark 88 %, middle 50 %, bright 12 %" in said.out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 + 1
    mine = {row["attribute"]: row["score"] for row in rows if row["id"] == "inside/photo1.jpg"}
    assert mine == {name: f"{score:.4f}" for name, score in told["scores"].items()}


def test_ten_crops_are_looked_at_where_asked_for(
    selfsup: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "sensitive.safetensors", "class", weight=1e7)
    found = []
    for crops in ("center", "ten"):
        out = tmp_path / f"{crops}.json"
        said = selfsup("predict", str(photos), "--from", str(model), "--out", str(out),
                       "--test-crops", crops, "--json")  # fmt: skip
        assert said.status == 0, said.err
        found.append(json.loads(out.read_text())["predictions"])
    assert found[0] != found[1]


def test_mistakes_are_one_sentence(
    selfsup: Callable[..., Any], model: Path, photos: Path, tmp_path: Path
) -> None:
    video = tmp_path / "video.safetensors"
    c3d = Classifier(
        build("c3d", width=0.125, crop=16, seed=0), HeadSpec(kind="linear", outputs=3, hidden=[])
    )
    clips = {"resize": [16, 16], "crop": 16, "max_skip": 4, "test": 2}
    save_classifier(video, Trained(c3d, "action", CLASSES, clips, ""), {})
    own, out = str(photos), ["--out", str(tmp_path / "a.csv")]
    for arguments, said in (
        ([own, "--from", str(model), "--clips", "3"], "--clips is for videos"),
        ([own, "--from", str(video), "--test-crops", "ten"], "--test-crops is for images"),
        ([own, "--from", str(model), "--test-crops", "six"], "six"),
        ([own], "no run"),
        ([own, "--from", str(video)], "has no video files"),
        (["motion", "--from", str(model)], "motion"),
    ):
        found = selfsup("predict", *arguments, *out)
        assert found.status == 2, found.err
        assert said in found.err
        assert "Traceback" not in found.err


@pytest.mark.parametrize(("kind", "task"), [("image", "classify"), ("video", "action")])
def test_what_another_task_answers_is_refused_by_what_was_to_be_labelled(
    selfsup: Callable[..., Any], photos: Path, tmp_path: Path, kind: str, task: str
) -> None:
    order = tmp_path / "order.safetensors"
    c3d = build("c3d", width=0.125, crop=16, seed=0)
    network = Classifier(c3d, HeadSpec(kind="linear", outputs=3, hidden=[]))
    save_classifier(order, Trained(network, "order", CLASSES, {}, ""), {})
    what = str(photos) if kind == "image" else "motion"
    found = selfsup("predict", what, "--from", str(order), "--out", str(tmp_path / "a.csv"))
    assert found.status == 2, found.err
    assert f"whose answers label no {kind}; predict needs a run of" in found.err
    assert f"'selfsup transfer {task}' for {kind}s" in found.err
