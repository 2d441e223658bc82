"""Looks inside networks of images: filters, patches, evidence, neighbours; as runs and as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.images import open_images
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.jobs import (
    visualize_activations,
    visualize_filters,
    visualize_gradcam,
    visualize_neighbours,
)
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.classifier import Classifier, HeadSpec, Trained, save_classifier
from selfsup_cli.models.weights import sidecar_path
from selfsup_cli.runs.run import Run
from selfsup_cli.transforms.images import center_crop, to_unit

SMALL = ("data.scenes.images=24", "data.scenes.test_images=16", "data.scenes.side=40")
JOBS: dict[str, Any] = {
    "filters": visualize_filters.filters,
    "activations": visualize_activations.activations,
    "gradcam": visualize_gradcam.gradcam,
    "neighbours": visualize_neighbours.neighbours,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    network = build("alexnet", width=0.125, crop=32, resize=(40, 40), seed=1)
    save_backbone(path, network, {"method": "transformations"})
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> Path:
    """A classifier of the built-in scenes that has learned nothing."""
    from selfsup_cli.data.scenes import CLASSES

    network = Classifier(
        load_backbone(weights),
        HeadSpec(kind="linear", outputs=len(CLASSES), hidden=[]),
        generator=torch.Generator().manual_seed(0),
    )
    path = weights.with_name("model.safetensors")
    trained = Trained(network, "classify", tuple(CLASSES), {"crops": "center"}, "")
    save_classifier(path, trained, {"method": "transfer/classify"})
    return path


def do(job: str, subject: Path, *sets: str, **settings: Any) -> Outcome:
    options = {"subject.run": str(subject)}
    if job != "filters":
        options["machine.device"] = "cpu"
    sets = () if job == "filters" else ("data.source=scenes", "machine.workers=0", *SMALL, *sets)
    if job == "activations":
        sets = ("shown.count=2", "shown.patches=3", *sets)
    named = {one.partition("=")[0]: one for one in sets}
    found = resolve(f"visualize/{job}", options=options, sets=[*named.values()], env={})
    done: Outcome = JOBS[job](found, quiet=True, **settings)
    return done


@pytest.mark.parametrize("job", JOBS)
def test_a_look_is_a_run_with_its_report_or_a_file(
    job: str, weights: Path, model: Path, tmp_path: Path
) -> None:
    subject = model if job == "gradcam" else weights
    out = tmp_path / "look.png"
    told = do(job, subject, out=out)
    assert (told.run_dir, told.report) == (None, None)
    assert told.text.endswith(str(out))
    json.dumps(told.data)
    done = do(job, subject, run="mine")
    assert done.run_dir is not None
    run = Run.open(done.run_dir)
    assert run.complete
    assert run.problems() == []
    (picture,) = done.report.pictures  # type: ignore[union-attr]
    assert (done.run_dir / picture.file).read_bytes() == out.read_bytes()
    assert done.report.job == f"visualize-{job}"  # type: ignore[union-attr]
    assert (
        picture.file in (done.run_dir / "report.html").read_text()
        or "data:image" in (done.run_dir / "report.html").read_text()
    )
    with Image.open(out) as image:
        assert min(image.size) > 100
    # The same command again has nothing to do.
    assert do(job, subject, run="mine").run_dir == done.run_dir
    with pytest.raises(InputError, match="--run and --out"):
        do(job, subject, run="other", out=out)


def test_filters_are_those_of_the_network_and_learned_ones_stand_first(
    weights: Path, tmp_path: Path
) -> None:
    found = do("filters", weights, out=tmp_path / "a.png").data["networks"]
    assert [one["name"] for one in found] == ["learned", "random weights"]
    w = load_backbone(weights).get_parameter("conv1.conv.weight").detach().double().numpy()
    pairs = [(w[..., 1:, :], w[..., :-1, :]), (w[..., 1:], w[..., :-1])]
    one, other = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    assert found[0]["smoothness"] == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert (found[0]["filters"], found[0]["size"]) == (16, [11, 11])


def test_patches_are_the_most_active_ones(weights: Path) -> None:
    layer, unit = "conv2", 3
    done = do(
        "activations", weights, "shown.units=[3]", "shown.layers=[conv2, fc1]", "search.over=test",
        "shown.patches=4", run="patches",
    )  # fmt: skip
    assert done.run_dir is not None
    with (done.run_dir / "activations.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["layer"], row["unit"]) == (layer, "3")]
    data = ImageData(source="scenes", scenes=Rendered(images=24, test_images=16, side=40))
    source = open_images(data, "test", labels=False, workers=0)
    network = load_backbone(weights).eval()
    shorter = shorter_side(network.input)
    every = torch.stack([source.read(i, shorter) for i in range(len(source))])
    with torch.no_grad():
        active = network.features(to_unit(center_crop(every, 32)), [layer])[layer][:, unit]
    best = active.flatten(1).amax(1).argsort(descending=True, stable=True)[:4].tolist()
    assert [row["image"] for row in rows] == [source.ids[i] for i in best]
    assert float(rows[0]["value"]) == pytest.approx(float(active.max()), rel=1e-4)
    place = divmod(int(active[best[0]].argmax()), active.shape[2])
    # 51 pixels from −19 on, at a stride of 8, of 32 there are.
    for cell, (low, high) in zip(place, (("top", "bottom"), ("left", "right")), strict=True):
        seen = (max(0, 8 * cell - 19), min(32, 8 * cell + 32))
        assert (int(rows[0][low]), int(rows[0][high])) == seen
    assert not (done.run_dir / "search.safetensors").exists()


def test_a_search_that_was_stopped_goes_on(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = do("activations", weights, "search.batch_size=4", run="whole")
    real, counts = visualize_activations._saving, []

    def stopping(made: Any, progress: Any, stop: Any, total: int) -> Any:
        told = real(made, progress, stop, total)

        def counted(found: Any) -> None:
            counts.append(found.done)
            stop.signum = 15 if len(counts) == 5 else 0
            told(found)

        return counted

    monkeypatch.setattr(visualize_activations, "_saving", stopping)
    with pytest.raises(Stopped):
        do("activations", weights, "search.batch_size=4", run="parts")
    again = do("activations", weights, "search.batch_size=4", run="parts")
    assert counts[:6] == [4, 8, 12, 16, 20, 24]
    assert again.run_dir is not None
    assert whole.run_dir is not None
    for name in ("activations.csv", "pictures/activations.png"):
        assert (again.run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes()


def test_a_damaged_state_begins_anew(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(made: Any, progress: Any, stop: Any, total: int) -> Any:
        made.file("search.safetensors").write_bytes(b"nonsense")
        raise Stopped("stopped", 75)

    with monkeypatch.context() as patch:
        patch.setattr(visualize_activations, "_saving", broken)
        with pytest.raises(Stopped):
            do("activations", weights, run="damaged")
    assert do("activations", weights, run="damaged").report is not None


def test_evidence_is_told_for_what_was_answered_and_what_is_true(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.png"
    looks = do("gradcam", model, "shown.count=4", out=out).data["looks"]
    assert len(looks) == 4
    assert all(look["shown"] == look["answered"] for look in looks)
    assert len({look["true"] for look in looks}) == 4
    chosen = looks[0]["true"]
    asked = do("gradcam", model, "shown.count=4", f"cam.answer={chosen}", out=out).data["looks"]
    assert {look["shown"] for look in asked} == {chosen}
    assert [look["answered"] for look in asked] == [look["answered"] for look in looks]


@pytest.mark.parametrize(
    ("job", "sets", "said"),
    [
        ("activations", ["shown.layers=[conv9]"], "unknown layer 'conv9'"),
        ("activations", ["shown.units=[99]"], "--units 99: conv1 has 16 units, counted from 0"),
        ("activations", ["search.crop=64", "shown.layers=[fc1]"], "--crop 64: alexnet takes no"),
        ("neighbours", ["neighbours.layer=conv9"], "unknown layer 'conv9'"),
        ("gradcam", ["cam.layer=conv9"], "unknown layer 'conv9'"),
        ("gradcam", ["cam.layer=fc1"], "a fully connected layer has no cells"),
        ("gradcam", ["cam.answer=cat"], "unknown class 'cat'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    job: str, sets: list[str], said: str, weights: Path, model: Path, tmp_path: Path
) -> None:
    subject = model if job == "gradcam" else weights
    with pytest.raises(InputError, match=said):
        do(job, subject, *sets, out=tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("form", "said"),
    [("segmenter", "transfer segment', which gives no class"), ("backbone", "answers nothing")],
)
def test_weights_that_give_no_class_have_no_evidence(form: str, said: str, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    weights.touch()
    sidecar_path(weights).write_text(json.dumps({"format": f"selfsup.{form}/1"}))
    with pytest.raises(InputError, match=said):
        do("gradcam", weights, out=tmp_path / "a.png")


def test_networks_of_videos_have_filters_over_time_and_no_patches(tmp_path: Path) -> None:
    path = tmp_path / "c3d.safetensors"
    network = build("c3d", width=0.0625, frames=16, crop=32, resize=(32, 32), seed=0)
    save_backbone(path, network, {})
    found = do("filters", path, out=tmp_path / "a.png").data["networks"]
    assert found[0]["size"] == [3, 3, 3]
    with pytest.raises(InputError, match="which takes videos, not images"):
        do("activations", path, out=tmp_path / "b.png")
