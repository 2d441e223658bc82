"""`selfsup score`: numbers under their own names, of the images that were meant, once each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from generator_runs import STEPS, image_run, other_run, ring_run, several_runs

from selfsup_cli.config.generated import Weights
from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.images import open_images
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation import gan_store, judges
from selfsup_cli.evaluation.frechet import Moments, frechet_distance
from selfsup_cli.evaluation.gan_pixels import Reals
from selfsup_cli.evaluation.judges import FEATURES, backbone_judge
from selfsup_cli.jobs import score as module
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.generators import find_generators
from selfsup_cli.jobs.score import score
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.gan_files import load_generator
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.runs.report import Report
from selfsup_cli.runs.run import Run, runs_dir
from selfsup_cli.transforms.images import to_bytes


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    network = build("alexnet", width=0.0625, crop=32, resize=(32, 32), seed=0)
    save_backbone(path, network, {"data": "scenes"})
    return str(path)


@pytest.fixture
def scored(backbone: str) -> Callable[..., Outcome]:
    def run(*, name: str | None = None, dry_run: bool = False, **settings: Any) -> Outcome:
        options = {key.replace("__", "."): value for key, value in settings.items()}
        options = {
            "machine.device": "cpu", "machine.workers": "0", "samples.count": "20",
            "judges.features": backbone, **options,
        }  # fmt: skip
        found = resolve("score", options=options, sets=["measures.subsets=5"])
        return score(found, run=name, dry_run=dry_run, quiet=True)

    return run


def report_of(outcome: Outcome) -> Report:
    assert outcome.report is not None
    return outcome.report


def test_a_run_is_scored_at_its_last_checkpoints(
    scored: Callable[..., Outcome], backbone: str
) -> None:
    run = image_run()
    report = report_of(scored(subject__checkpoints="2", name="s"))
    row = report.measurements[0]
    assert (row.metric, row.subject, row.dataset, row.n) == ("FD-alexnet", "gan", "scenes", 20)
    assert row.protocol["checkpoints"] == [20, 30]
    data = ImageData(source="scenes", scenes=Rendered(images=24, test_images=16, side=32))
    test = open_images(data, "test", labels=False, workers=0)
    real = torch.cat(list(Reals(test, 32).read([(0, 16)], 16)))
    one = backbone_judge(load_backbone(backbone), "alexnet", torch.device("cpu"))
    values = []
    for step in STEPS[1:]:
        network = load_generator(run / "generators" / f"step-{step:08d}.safetensors").average
        assert network is not None
        fake = to_bytes(Sampler(network)(Latents(0, 8).rows(0, 100)))[:20]
        sides = [Moments.of(one.look(images)[FEATURES]) for images in (fake, real)]
        values.append(frechet_distance(*sides))
    assert row.protocol["values"] == pytest.approx(values, abs=1e-3)
    assert row.value == pytest.approx(sum(values) / 2, rel=1e-4)
    told = {
        "samples": 20, "real_images": 16, "real_part": "test", "seed": 0,
        "weights": "moving average", "truncation": "none", "bit_depth": 8, "size": "32×32",
        "network": "alexnet",
        "real_framing": "32×32 as they are",
    }  # fmt: skip
    assert told.items() <= row.protocol.items()
    assert "as in training" in str(row.protocol["batch_norm"])
    assert row.split == test.split_rule
    assert not any("FID" in found.metric for found in report.measurements)
    assert any("fewer than" in finding.text for finding in report.findings)
    assert {curve.name for curve in report.curves} >= {"FD-alexnet", "KD-alexnet"}
    assert [picture.file for picture in report.pictures] == [
        "pictures/samples.png", "pictures/scores.png",
    ]  # fmt: skip


def test_nothing_is_scored_twice(
    scored: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_run()
    seen: list[str] = []
    original = judges.see

    def see(judge: Any, pixels: Any, **more: Any) -> Any:
        seen.append(type(pixels).__name__)
        if seen == ["Reals", "Samples", "Samples"]:
            raise Stopped("now", 143)
        return original(judge, pixels, **more)

    with monkeypatch.context() as patched:
        patched.setattr(module, "see", see)
        with pytest.raises(Stopped):
            scored(name="s")
        assert seen == ["Reals", "Samples", "Samples"]
        outcome = scored(name="s")
    assert seen == ["Reals", "Samples", "Samples", "Reals", "Samples", "Samples"]
    whole = report_of(scored(name="whole"))
    assert report_of(outcome).measurements == whole.measurements
    parents = Run.open(runs_dir() / "s").info.parents
    assert [parent["run"] for parent in parents] == ["gan", "backbone"]
    assert outcome.run_dir is not None
    left = {path.name for path in outcome.run_dir.iterdir()}
    assert "scores.json" in left
    assert ".features" not in left
    again = scored(name="s")
    assert report_of(again).created == report_of(outcome).created


def test_of_several_trainings_each_is_scored(
    scored: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = several_runs("gans", ["gan-seed0", "gan-seed1"])
    (runs_dir() / "gan-seed0" / "generators" / "times.json").write_text('{"20": 1.5, "30": 2}')
    with monkeypatch.context() as patched:  # killed before the features of the last were removed
        patched.setattr(shutil, "rmtree", lambda *arguments, **settings: None)
        patched.setattr(module, "_conclude", _stop)
        with pytest.raises(Stopped):
            scored(subject__run="gans", subject__checkpoints="2", name="s")
    assert (runs_dir() / "s" / ".features").is_dir()
    report = report_of(scored(subject__run="gans", subject__checkpoints="2", name="s"))
    assert not (runs_dir() / "s" / ".features").exists()
    alone = report_of(scored(subject__run="gan-seed1", subject__checkpoints="2"))
    row, values = report.measurements[0], report.measurements[0].protocol["values"]
    assert isinstance(values, list)
    assert values[1] == pytest.approx(alone.measurements[0].value)
    assert (row.subject, row.protocol["runs"], len(values)) == ("gans", 2, 2)
    assert "over 2 trainings, each over 2 checkpoints (20 to 30)" in report.findings[0].text
    lines = {(one.name, one.x_label): one.points for one in report.curves}
    steps = lines["FD-alexnet, gan-seed0", "step"]
    places = [y for _, y in steps]
    assert [x for x, _ in steps] == [20, 30]
    # Only of the first is it known how long the training took.
    assert lines["FD-alexnet, gan-seed0", "training time, s"] == [(1.5, places[0]), (2, places[1])]
    assert ("FD-alexnet, gan-seed1", "training time, s") not in lines
    parents = Run.open(runs_dir() / "s").info.parents
    assert [parent["run"] for parent in parents] == ["gan-seed0", "gan-seed1", "backbone"]
    assert scored(dry_run=True).text.startswith("scored: gans, 2 trainings, steps 10, 20, 30")
    assert find_generators(Weights(run="gans")).name == "gan-seed0"
    (runs_dir() / "gan-seed1" / "generator.safetensors").unlink()
    for path in (runs_dir() / "gan-seed1" / "generators").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="about the training gan-seed1, whose generator is not at"):
        scored(subject__run=str(together))


def test_images_of_any_origin_are_scored(scored: Callable[..., Outcome], tmp_path: Path) -> None:
    data = ImageData(source="scenes", scenes=Rendered(images=24, test_images=16, side=32))
    test = open_images(data, "test", labels=False, workers=0)
    path = tmp_path / "made.npz"
    gan_store.write_array(path, Reals(test, 32).read([(0, 16)], 8), (16, 32, 32, 3), {})
    about = {"data__source": "scenes", "subject__images": str(path)}
    outcome = scored_with(scored, about)
    row = report_of(outcome).measurements[0]
    assert (row.subject, row.n, row.protocol["weights"]) == ("made", 16, "images as given")
    assert row.value == pytest.approx(0, abs=1e-3)
    with pytest.raises(InputError, match="either --from or --images"):
        scored(subject__run="gan", **about)
    with pytest.raises(InputError, match="say which with --data"):
        scored(subject__images=str(path))
    generators = {"subject__checkpoints": "2", "samples__truncation": "1"}
    with pytest.raises(InputError, match="--checkpoints, --truncation are for generators"):
        scored_with(scored, {**about, **generators})


def scored_with(scored: Callable[..., Outcome], about: dict[str, str]) -> Outcome:
    sizes = {"images": "24", "test_images": "16", "side": "32"}
    return scored(**about, **{f"data__scenes__{name}": value for name, value in sizes.items()})


def test_networks_that_share_a_name_bear_their_weights(
    scored: Callable[..., Outcome], backbone: str, tmp_path: Path
) -> None:
    image_run()
    other = tmp_path / "backbone.safetensors"
    save_backbone(other, build("alexnet", width=0.0625, crop=32, resize=(32, 32), seed=1), {})
    both = f"{backbone},{other},{backbone}"
    outcome = scored(dry_run=True, judges__features=both)
    names = outcome.data["judges"]
    assert len(set(names)) == 2
    assert all(name.startswith("alexnet-") for name in names)
    text = outcome.text
    assert "steps 10, 20, 30, 20 images each" in text
    random = scored(dry_run=True, judges__features="random")
    assert random.data["judges"] == ["random-resnet18"]


def test_averages_are_not_made_anew_before_they_are_needed(
    scored: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_run()

    def never(self: Sampler) -> None:
        raise AssertionError("a rehearsal draws nothing")

    monkeypatch.setattr(Sampler, "_recalibrated", never)
    told = scored(dry_run=True, samples__batch_norm="recalibrated").text
    assert told.startswith("scored: gan, steps 10, 20, 30")


def test_mistakes_end_in_a_sentence(scored: Callable[..., Outcome], tmp_path: Path) -> None:
    image_run()
    with pytest.raises(InputError, match="no network is named to judge by") as caught:
        score(resolve("score"), quiet=True)
    assert "weights-inception-2015-12-05-6726825d.pth" in str(caught.value)
    with pytest.raises(InputError, match="there is no such file"):
        scored(judges__inception=str(tmp_path / "none.pth"))
    ring_run()
    with pytest.raises(InputError, match="ring draws points in a plane, not images"):
        scored(subject__run="ring")
    other_run()
    with pytest.raises(InputError, match="it is no run of pretrain dfgan"):
        scored(subject__run="other")
    with pytest.raises(InputError, match="there is no run 'never'"):
        scored(judges__features="never")


def test_scores_that_cannot_be_read_are_made_again(
    scored: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_run()
    with monkeypatch.context() as patched:
        patched.setattr(module, "see", _stop)
        with pytest.raises(Stopped):
            scored(name="s", subject__checkpoints="1")
    place = runs_dir() / "s" / "scores.json"
    place.write_text(json.dumps([{"judge": "alexnet"}]))
    assert report_of(scored(name="s", subject__checkpoints="1")).measurements


def _stop(*arguments: Any, **settings: Any) -> Any:
    raise Stopped("now", 143)
