"""`selfsup sample dfgan`: files that repeat, of the generator that was meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from generator_runs import STEPS, image_run, other_run, ring_run
from PIL import Image

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.images import open_images
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.sample_gan import dfgan
from selfsup_cli.models.gan_files import load_generator
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.transforms.images import to_bytes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., Outcome]:
    """Run the job; settings by the dotted paths of their fields, with `_` for the dot."""

    def run(out: str = "out", **settings: Any) -> Outcome:
        options = {name.replace("__", "."): value for name, value in settings.items()}
        options = {"machine.device": "cpu", "machine.workers": "0", **options}
        return dfgan(resolve("sample/dfgan", options=options), out=tmp_path / out, quiet=True)

    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_images_are_those_of_the_generator(sample: Callable[..., Outcome], tmp_path: Path) -> None:
    run = image_run()
    outcome = sample(samples__count="7")
    assert names_in(tmp_path / "out") == ["grid.png", "images", "samples.json"]
    names = names_in(tmp_path / "out" / "images")
    assert names == [f"{i:06d}.png" for i in range(7)]
    network = load_generator(run / "generator.safetensors").average
    assert network is not None
    with torch.no_grad():
        wanted = to_bytes(network.train()(Latents(0, 8).rows(0, 100)))
    for i, name in enumerate(names):
        found = pixels(tmp_path / "out" / "images" / name)
        np.testing.assert_array_equal(found, wanted[i].permute(1, 2, 0).numpy())
    facts = outcome.data
    assert (facts["from"], facts["step"], facts["weights"]) == ("gan", 30, "moving average")
    assert "by each batch of 100, as in training" in facts["batch_norm"]
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["samples"] == 7
    with Image.open(tmp_path / "out" / "grid.png") as image:
        assert image.format == "PNG"


def test_a_sample_is_the_same_however_many_there_are(
    sample: Callable[..., Outcome], tmp_path: Path
) -> None:
    image_run()
    sample("few", samples__count="3", show__kinds="images")
    sample("more", samples__count="130", show__kinds="images", show__format="h5")
    data = ImageData(source=str(tmp_path / "more" / "samples.h5"))
    source = open_images(data, "all", labels=False, workers=0)
    assert len(source) == 130
    for i in range(3):
        found = pixels(tmp_path / "few" / "images" / f"{i:06d}.png")
        np.testing.assert_array_equal(found, source.read(i).permute(1, 2, 0).numpy())


def test_which_generator_is_meant(sample: Callable[..., Outcome], tmp_path: Path) -> None:
    run = image_run()
    seen = {}
    for name, settings in {
        "last": {},
        "step": {"subject__checkpoint": "20"},
        "raw": {"subject__weights": "raw"},
        "file": {"subject__run": str(run / "generators" / "step-00000020.safetensors")},
        "recalibrated": {"samples__batch_norm": "recalibrated"},
        "truncated": {"samples__truncation": "0.5"},
        "seed": {"samples__seed": "1"},
    }.items():
        few = {"samples__count": "1", "samples__batch": "10", "show__kinds": "images"}
        sample(name, **few, **settings)
        seen[name] = pixels(tmp_path / name / "images" / "000000.png").tobytes()
    assert seen.pop("file") == seen["step"]
    assert len(set(seen.values())) == len(seen)


def test_every_picture_is_made(sample: Callable[..., Outcome], tmp_path: Path) -> None:
    image_run()
    outcome = sample(
        show__kinds="grid,checkpoints,animation,interpolations,neighbours,noise,images",
        show__rows="2", samples__count="4", near__checked="8", near__by="pixels",
        show__format="h5",
    )  # fmt: skip
    names = ["grid", "checkpoints", "interpolations", "neighbours", "noise", "noise-steps"]
    for name in names:
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.width > 100
    with Image.open(tmp_path / "out" / "checkpoints.gif") as image:
        assert getattr(image, "n_frames", 1) == len(STEPS)
    nearest = outcome.data["nearest"]["pixels"]
    assert nearest["samples"] == 8
    assert nearest["samples_median"] > nearest["heldout_median"] > 0
    assert "held out" in outcome.text
    with h5py.File(tmp_path / "out" / "samples.h5") as file:
        assert (file["x"].shape[0], file.attrs["step"]) == (4, 30)


def test_what_was_made_before_is_replaced_and_nothing_else(
    sample: Callable[..., Outcome], tmp_path: Path
) -> None:
    image_run()
    sample(samples__count="5")
    (tmp_path / "out" / "images" / "mine.png").write_bytes(b"mine")
    sample(samples__count="2", show__kinds="images")
    assert names_in(tmp_path / "out") == ["images", "samples.json"]
    left = names_in(tmp_path / "out" / "images")
    assert left == ["000000.png", "000001.png", "mine.png"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than samples"):
        sample("full")
    assert names_in(tmp_path / "full") == ["thesis.tex"]


def test_points(sample: Callable[..., Outcome], tmp_path: Path) -> None:
    run = ring_run()
    outcome = sample(show__kinds="grid,images,checkpoints,noise", samples__count="50")
    assert names_in(tmp_path / "out") == [
        "checkpoints.png", "grid.png", "noise.png", "samples.json", "samples.npz",
    ]  # fmt: skip
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        found = arrays["x"]
    network = load_generator(run / "generator.safetensors").network("average")
    with torch.no_grad():
        np.testing.assert_array_equal(found, network(Latents(0, 4).rows(0, 50)).numpy())
    assert outcome.data["modes_covered"] <= 8
    assert "modes covered:" in outcome.text
    with pytest.raises(InputError, match="draws points in a plane"):
        sample("no", show__kinds="interpolations")
    assert not (tmp_path / "no").exists()


def test_mistakes_are_told(sample: Callable[..., Outcome], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs in"):
        sample()
    other_run()
    with pytest.raises(InputError, match="it is no run of pretrain dfgan but of pretrain temporal"):
        sample(subject__run="other")
    with pytest.raises(InputError, match=r"no run in .* fits"):
        sample()
    run = image_run(noise=False, average=False)
    with pytest.raises(
        InputError, match="keeps no generator of that step, but those of 10, 20, 30"
    ):
        sample(subject__checkpoint="15")
    with pytest.raises(InputError, match="no moving average"):
        sample(subject__weights="average")
    with pytest.raises(InputError, match="no running averages"):
        sample(samples__batch_norm="running")
    with pytest.raises(InputError, match="a batch of one"):
        sample(samples__batch="1")
    with pytest.raises(InputError, match="was trained without noise"):
        sample("noise", show__kinds="grid,noise")
    sample("noise", show__kinds="images", samples__count="1")  # what failed is in nobody's way
    assert names_in(tmp_path / "noise") == ["images", "samples.json"]
    with pytest.raises(InputError, match="give the name of a folder"):
        sample("grid.png")
    with pytest.raises(InputError, match="there is no folder"):
        sample("no/where")
    with pytest.raises(InputError, match="does not describe a network"):
        sample(subject__run=str(_without_format(run)))
    assert not (tmp_path / "out").exists()
    alone = tmp_path / "moved.safetensors"
    for ending in ("", ".json"):
        source = run / f"generator.safetensors{ending}"
        alone.with_name(alone.name + ending).write_bytes(source.read_bytes())
    assert sample("moved", subject__run=str(alone), samples__count="1").data["step"] == 30
    with pytest.raises(InputError, match="its training data are not known"):
        sample("near", subject__run=str(alone), show__kinds="neighbours")


def _without_format(run: Path) -> Path:
    path = run / "generators" / "step-00000010.safetensors"
    place = path.with_name(path.name + ".json")
    content = json.loads(place.read_text())
    del content["format"]
    place.write_text(json.dumps(content))
    return path


def test_the_command_works_exactly_as_typed(tmp_path: Path) -> None:
    image_run()
    told = subprocess.run(
        [sys.executable, "-m", "selfsup_cli", "sample", "dfgan", "--n", "64"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[1:] == ["dfgan-samples/grid.png", "dfgan-samples/images"]
    assert len(names_in(tmp_path / "dfgan-samples" / "images")) == 64


def test_samplers_of_a_run_are_the_same_as_by_hand() -> None:
    run = image_run()
    found = load_generator(run / "generator.safetensors")
    sampler = Sampler(found.raw, batch_norm="recalibrated", batch=10)
    z = Latents(0, 8).rows(0, 3)
    torch.testing.assert_close(sampler(z)[1:2], sampler(z[1:2]))
