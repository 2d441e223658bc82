"""Pretraining of a GAN: what it leaves behind, that a kill changes nothing, what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretraining import STEPS, preset
from test_pretrain import run_script

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.methods.dfgan import Dfgan
from selfsup_cli.models import load_backbone
from selfsup_cli.models.gan_files import load_generator
from selfsup_cli.runs.report import load_report
from selfsup_cli.runs.run import Run

METHOD = "dfgan"
RING = (
    "data.ring.points=96", "data.ring.test_points=64", "train.batch_size=8", "train.max_steps=4",
    "train.discriminator_steps=2", "train.keep_generators=2", "monitor.images=64",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it comes out when nobody disturbs it."""
    runs = tmp_path_factory.mktemp("runs")
    run_script(METHOD, "whole", "0", runs=runs)
    return runs / "whole"


def ring(*more: str) -> Resolved:
    return resolve("pretrain/dfgan", preset="dfgan/ring", sets=[*RING, *more], env={})


def test_a_run_holds_generators_discriminator_pictures_and_numbers(uninterrupted: Path) -> None:
    run = Run.open(uninterrupted)
    assert run.complete
    assert run.problems() == []
    report = run.report()
    assert report is not None
    said = {row.name: row for row in report.measurements}
    assert said["clean images told apart"].chance == 50
    assert said["clean images told apart"].n == 32
    assert said["samples"].metric == "FD-random-dcgan"
    assert said["variety of samples"].value > 0
    assert 0 < said["noise"].value < 2
    files = {picture.file for picture in report.pictures}
    assert files == {f"pictures/{name}.png" for name in ("curves", "samples", "strip", "noise")}
    for file in files:
        with Image.open(uninterrupted / file) as image:
            assert min(image.size) > 100
    names = sorted(path.name for path in (uninterrupted / "generators").glob("*.safetensors"))
    assert names == [f"step-{step:08d}.safetensors" for step in (4, 8, 12)]
    rows = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").open()]
    assert sum("heldout_discriminator_noisy" in row for row in rows) == 3
    assert len([row for row in rows if "lr_noise" in row]) == STEPS


def test_what_is_kept_is_what_was_trained(uninterrupted: Path) -> None:
    state = read_tensors(uninterrupted / f"checkpoints/step-{STEPS:08d}/state.pt")["model"]
    found = load_generator(uninterrupted / "generator.safetensors")
    assert found.facts["step"] == STEPS
    assert found.average is not None
    assert found.noise is not None
    for network, prefix in (
        (found.raw, "generator."), (found.average, "average."), (found.noise, "noise."),
    ):  # fmt: skip
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[prefix + name]), prefix + name
    backbone = load_backbone(uninterrupted / "backbone.safetensors").eval()
    assert (backbone.arch, backbone.layers) == ("dcgan", ("conv1", "conv2", "conv3", "conv4"))
    assert backbone.trained_on["noise"] == "learned"
    resolved = preset(0, method=METHOD)
    assert isinstance(resolved.preset, PretrainGan)
    method = Dfgan(resolved.preset)
    method.load_state_dict(state)
    judge = method.discriminator.eval()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    # Its last layer is a linear function of what the backbone gives, but for batch norm's averages.
    for name, buffer in backbone.named_buffers():
        judge.get_buffer(name).copy_(buffer)
    with torch.no_grad():
        logits = backbone(images) @ judge.get_parameter("last.weight").flatten(1).T
        expected = judge(images) - judge.get_parameter("last.bias")
    torch.testing.assert_close(logits.flatten(), expected, atol=1e-5, rtol=1e-4)
    tracked = backbone.get_buffer("conv2.1.num_batches_tracked")
    assert tracked == 4  # the 24 images, 6 at a time


def test_killed_in_some_step_it_ends_the_same(uninterrupted: Path, tmp_path: Path) -> None:
    steps = [random.Random(7).randrange(5, STEPS)]
    run_script(METHOD, "killed", "0", f"{steps[0]}:update", runs=tmp_path)
    killed = tmp_path / "killed"
    names = ["metrics.jsonl", "backbone.safetensors", "pictures/strip.png"]
    for name in names:
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), (name, steps)
    for step in (4, 8, 12):
        name = f"generators/step-{step:08d}.safetensors"
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), (name, steps)
    times = json.loads((killed / "generators" / "times.json").read_bytes())
    assert list(times) == ["4", "8", "12"]
    assert 0 < times["4"] < times["8"] < times["12"]


def test_several_seeds_are_reported_with_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    outcome = pretrain(ring("train.seeds=[3, 5]"), run="several", quiet=True)
    assert outcome.report is not None
    rows = {row.name: row for row in outcome.report.measurements}
    singles = [load_report(tmp_path / f"several-seed{seed}" / "report.json") for seed in (3, 5)]
    for name in ("modes covered", "good samples"):
        values = [next(r for r in one.measurements if r.name == name).value for one in singles]
        assert rows[name].value == pytest.approx(np.mean(values))
        assert rows[name].interval is not None
    assert (tmp_path / "several-seed3" / "pictures" / "densities.png").stat().st_size > 10_000
    (shown,) = [one for one in outcome.report.pictures if "densities" in one.file]
    assert shown.caption.startswith("several-seed3: ")
    copied = tmp_path / "several" / shown.file
    assert copied.read_bytes() == (tmp_path / "several-seed3" / shown.file).read_bytes()
    again = pretrain(ring("train.seeds=[3, 5]"), run="several", quiet=True)
    assert again.report == outcome.report


def image_preset(arrays: Path, *sets: str) -> Resolved:
    return resolve(
        "pretrain/dfgan", preset="dfgan/small",
        options={"data.source": str(arrays), "machine.workers": 0}, sets=list(sets), env={},
    )  # fmt: skip


def images(path: Path, count: int, *shape: int) -> Path:
    rng = np.random.default_rng(0)
    parts = {f"x_{part}": rng.integers(0, 256, (count, *shape), np.uint8)
             for part in ("train", "test")}  # fmt: skip
    np.savez(path, **parts)  # type: ignore[arg-type]
    return path


def test_too_few_images_for_an_update_are_refused(tmp_path: Path) -> None:
    few = images(tmp_path / "few.npz", 12, 32, 32, 3)
    with pytest.raises(InputError) as caught:
        pretrain(
            image_preset(few, "train.batch_size=8", "train.discriminator_steps=2"), dry_run=True
        )
    said = "12 training images of few are fewer than the 16 of one update (2 of the discriminator)"
    assert str(caught.value).startswith(said)
    assert "use --batch-size 6 or less" in str(caught.value)


def test_grey_and_small_images_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = images(tmp_path / "grey.npz", 20, 24, 24)
    outcome = pretrain(image_preset(grey, "train.batch_size=4"), dry_run=True)
    assert "are grey: they are generated in colour all the same" in caplog.text
    assert "20 of 20 images of grey are smaller than the 32 pixels that are generated" in (
        caplog.text
    )
    assert "5 batches of 4 images" in outcome.text


@pytest.mark.parametrize(("sets", "sentence"), [
    (["network.size=48"], "there is no generator of 48×48 pixels; there are those of 32, 64, 96, "),
    (["data.source=ring"], "ring consists of points, which only mlp generates"),
    (["network.arch=mlp"], "mlp generates the points of --data ring, no images"),
    (["train.accumulate=2"], "a batch cannot pass in parts"),
    (["train.compile=true"], "which compiled networks do not allow"),
    (["train.batch_size=2", "machine.devices=2"], "batch norm makes all images equal then"),
    (["train.batch_size=1"], "train.batch_size"),
    (["penalty.kind=gradient-penalty"], "use --norm-discriminator layer"),
    (["filtering.noise=gaussian", "filtering.share_z=true"], "only learned noise is made of"),
    (["train.seeds=[1]"], "give at least two seeds"),
])  # fmt: skip
def test_what_does_not_go_together_is_told(sets: list[str], sentence: str) -> None:
    data = [] if any("source" in one for one in sets) else ["data.source=scenes"]
    with pytest.raises(InputError) as caught:
        resolve("pretrain/dfgan", preset="dfgan/base", sets=[*data, *sets], env={})
    assert sentence in str(caught.value)
