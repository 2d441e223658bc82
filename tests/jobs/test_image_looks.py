"""Jobs that look at images: what is fed, what is painted, means, and shortcuts of a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.config.shortcuts import LocalProbes
from selfsup_cli.config.transformations import PretrainTransformations
from selfsup_cli.data.images import open_images
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.shortcuts import detect
from selfsup_cli.jobs import sample, shortcuts, visualize, visualize_images
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.methods import create
from selfsup_cli.runs.run import Run

CPU = Hardware(torch.device("cpu"), None)
FEW = {"images": 24, "test_images": 16, "side": 32}
SMALL = {
    "framing.shorter": "32",
    "framing.canvas": "32",
    "framing.crop": "24",
    "framing.jitter": "3",
    "lci.patch": "16",
    "lci.width": "0.1",
    "network.width": "0.1",
    "machine.workers": "0",
    "machine.device": "cpu",
}


def few(source: str) -> dict[str, Any]:
    return {f"data.{source}.{name}": value for name, value in FEW.items()}


def pretraining(source: str = "scenes", **more: Any) -> Resolved:
    options = {"data.source": source, **few(source), **SMALL, **more}
    return resolve("pretrain/transformations", preset="base", options=options, env={})


def asked(job: str, **options: Any) -> Resolved:
    more = {"machine.workers": "0", "machine.device": "cpu"}
    return resolve(job, options={**more, **options}, env={})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, finished: Path) -> Path:
    """A finished run, the only one there is."""
    monkeypatch.setenv("SELFSUP_RUNS", str(finished.parent))
    return finished


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_RUNS", str(folder))
        patch.setenv("SELFSUP_CACHE", str(folder / "cache"))
        options = {
            "train.epochs": "1", "train.batch_size": "8", "monitor.knn_images": "0",
            "monitor.images": "8", "shortcuts.on": "false",
        }  # fmt: skip
        outcome = pretrain(pretraining(**options), run="mine", quiet=True)
    assert outcome.run_dir is not None
    return outcome.run_dir


# What is fed


def test_the_sheet_of_a_method_on_images_has_its_transformations(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    heights = []
    for count in (1, 3):
        visualize.pretext(pretraining(), out=out, count=count, quiet=True)
        with Image.open(out) as image:
            heights.append(image.height)
    assert heights[1] - heights[0] > 2 * 24
    before = out.read_bytes()
    visualize.pretext(pretraining(), out=out, count=3, quiet=True)
    assert out.read_bytes() == before
    few_kinds = pretraining(**{"kinds": "identity,mirror", "framing.flip": "false"})
    visualize.pretext(few_kinds, out=out, count=3, quiet=True)
    with Image.open(out) as image:
        assert image.height == heights[1]


@pytest.mark.parametrize("name", ["sheet.jpg", "no/sheet.png"])
def test_a_picture_needs_a_name_and_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--out"):
        visualize.pretext(pretraining(), out=tmp_path / name, count=1, quiet=True)


# Means


def test_the_mean_and_its_spread_are_those_of_the_images(tmp_path: Path) -> None:
    options = {"data.source": "facelike", **few("facelike"), "mean.side": "32"}
    out = tmp_path / "mean.png"
    outcome = visualize_images.average(
        asked("visualize/mean-image", **options), out=out, quiet=True
    )
    data = ImageData(source="facelike", facelike=Rendered(**FEW))
    source = open_images(data, "train", labels=False, workers=1)
    images = np.stack([source.read(i).numpy() for i in range(24)]).astype(float)
    mean = images.mean(0)
    contrast = np.sqrt(((mean - mean.mean((1, 2), keepdims=True)) ** 2).mean())
    assert outcome.data["images"] == 24
    assert outcome.data["contrast"] == pytest.approx(contrast)
    assert outcome.data["spread"] == pytest.approx(np.sqrt(images.var(0).mean()))
    half = np.sqrt(((mean - mean[:, ::-1, ::-1]) ** 2).mean())
    assert outcome.data["turned"][1] == pytest.approx(half)
    assert outcome.data["turned"][0] == pytest.approx(outcome.data["turned"][2])


def test_faces_have_a_mean_that_says_where_up_is_and_scenes_have_none(tmp_path: Path) -> None:
    """Figure 4.5."""
    turned = {}
    for source in ("facelike", "scenes"):
        options = {
            "data.source": source, f"data.{source}.images": 160, f"data.{source}.side": 32,
            "mean.side": "32",
        }  # fmt: skip
        out = tmp_path / f"{source}.png"
        resolved = asked("visualize/mean-image", **options)
        facts = visualize_images.average(resolved, out=out, quiet=True).data
        turned[source] = min(facts["turned"]) / facts["spread"]
        # What is left of images of no orientation is what averaging leaves of the noise.
        turned[f"{source} by chance"] = (2 / facts["images"]) ** 0.5
    assert turned["facelike"] > 0.4
    assert turned["scenes"] < 1.5 * turned["scenes by chance"]


def test_images_that_cannot_be_read_are_left_out_of_the_mean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    g = np.random.default_rng(0)
    for number in range(6):
        pixels = g.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    data = ImageData(source=str(folder), test_share=0.01)
    ids = open_images(data, "train", labels=False, workers=1).ids
    half = (folder / "0.png").read_bytes()[:6000]
    (folder / ids[2]).write_bytes(half)
    options = {
        "data.source": str(folder), "data.test_share": "0.01", "data.max_bad": "1",
        "mean.side": "32",
    }  # fmt: skip
    out = tmp_path / "mean.png"
    with caplog.at_level(logging.WARNING):
        outcome = visualize_images.average(
            asked("visualize/mean-image", **options), out=out, quiet=True
        )
    assert outcome.data["images"] == len(ids) - 1
    assert f"{ids[2]} cannot be read and is left out" in caplog.text
    for identifier in ids[1:]:
        (folder / identifier).write_bytes(half)
    with pytest.raises(InputError, match="two images or more"):
        visualize_images.average(asked("visualize/mean-image", **options), out=out, quiet=True)


# Samples


def test_a_run_shows_what_it_paints_and_how_it_warps(run: Path, tmp_path: Path) -> None:
    options = {"shown.count": "2"}
    out = tmp_path / "with.png"
    outcome = sample.transformations(
        asked("sample/transformations", **options), out=out, quiet=True
    )
    assert outcome.data["run"] == "mine"
    assert len(outcome.data["images"]) == 2
    assert all(name.startswith("test/") for name in outcome.data["images"])
    before = out.read_bytes()
    named = asked("sample/transformations", **options, **{"subject.run": "mine"})
    sample.transformations(named, out=out, quiet=True)
    assert out.read_bytes() == before
    other = asked("sample/transformations", **options, **{"shown.seed": "1"})
    sample.transformations(other, out=out, quiet=True)
    assert out.read_bytes() != before


def test_without_a_run_what_needs_no_inpainter_is_shown(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_run, without = tmp_path / "with.png", tmp_path / "without.png"
    options = {"data.source": "scenes", **few("scenes"), "shown.count": "2"}
    sample.transformations(asked("sample/transformations", **options), out=with_run, quiet=True)
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "none"))
    outcome = sample.transformations(
        asked("sample/transformations", **options), out=without, quiet=True
    )
    assert outcome.data["run"] is None
    assert "lci" not in outcome.data["kinds"]
    assert "warp" in outcome.data["kinds"]
    assert "there is no finished run" in caplog.text
    with Image.open(with_run) as wide, Image.open(without) as narrow:
        assert narrow.width < wide.width
    named = asked("sample/transformations", **options, **{"subject.run": "never"})
    with pytest.raises(InputError, match="there is no run 'never'"):
        sample.transformations(named, out=without, quiet=True)


# Shortcuts


def test_shortcuts_of_a_run_are_a_run_with_a_report(run: Path) -> None:
    options = {"shortcuts.steps": "2", "shortcuts.images": "16", "shortcuts.heldout": "12"}
    resolved = asked("shortcuts", **options)
    rehearsed = shortcuts.shortcuts(resolved, dry_run=True, quiet=True)
    assert "from: mine (alexnet), which tells identity, rotate90" in rehearsed.text
    assert rehearsed.data["train"] == 16
    outcome = shortcuts.shortcuts(resolved, run="looked", quiet=True)
    assert outcome.run_dir is not None
    looked = Run.open(outcome.run_dir)
    assert looked.complete
    assert looked.problems() == []
    assert looked.info.parents[0]["run"] == "mine"
    report = outcome.report
    assert report is not None
    assert report.findings
    subjects = {row.subject for row in report.measurements}
    assert subjects == {
        "a 12×12 patch", "a frame 3 pixels wide", "the high-frequency residual", "the JPEG grid",
        "the whole network",
    }  # fmt: skip
    names = {row.name for row in report.measurements}
    assert names == {"all transformations", "rotate90", "rotate180", "rotate270", "warp", "lci"}
    assert {row.n for row in report.measurements} == {12}
    with Image.open(outcome.run_dir / report.pictures[0].file) as image:
        assert min(image.size) > 200
    again = shortcuts.shortcuts(resolved, run="looked", quiet=True)
    assert again.report == report
    state = json.loads((outcome.run_dir / "status.json").read_text())
    assert state["state"] == "complete"


def test_runs_without_transformations_have_no_shortcuts(run: Path) -> None:
    with pytest.raises(InputError, match="it is no pretraining"):
        shortcuts.shortcuts(asked("shortcuts", **{"subject.run": "looked"}), quiet=True)
    with pytest.raises(InputError, match="there is no run 'never'"):
        shortcuts.shortcuts(asked("shortcuts", **{"subject.run": "never"}), quiet=True)


@pytest.mark.parametrize(("source", "given_away"), [("facelike", True), ("scenes", False)])
def test_a_patch_of_a_face_says_where_up_is_and_one_of_a_scene_does_not(
    source: str, given_away: bool
) -> None:
    """What figure 4.5 is about, measured."""
    preset = pretraining(source, kinds="identity,rotate180").preset
    assert isinstance(preset, PretrainTransformations)
    data = ImageData(source=source, **{source: Rendered(images=256, test_images=96, side=32)})  # type: ignore[arg-type]
    train, heldout = (
        open_images(data, part, labels=False, workers=1)
        for part in ("train", "test")  # type: ignore[arg-type]
    )
    settings = LocalProbes(steps=60, images=192, heldout=96)
    found = detect(create(preset), train, heldout, CPU, settings, Progress(quiet=True))
    local = {one.subject for one in found.shortcuts().get("rotate180", [])}
    assert ("a 12×12 patch" in local) == given_away
    assert bool(local) == given_away
    (finding,) = found.findings()
    assert finding.verdict == ("bad" if given_away else "good")
    assert ("leave it out (--kinds)" in finding.text) == given_away
