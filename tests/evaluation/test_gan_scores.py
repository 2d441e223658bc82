"""What one network says of samples, what is said of several, and how near training images are."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import cast

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from selfsup_cli.config.generated import Measures
from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.data.images import open_images
from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation import gan_store
from selfsup_cli.evaluation.frechet import Moments, frechet_distance
from selfsup_cli.evaluation.gan_neighbours import Copies, by_features, by_pixels
from selfsup_cli.evaluation.gan_pixels import Reals, Samples, one_side, rgb_bytes, some
from selfsup_cli.evaluation.gan_scores import (
    Reference,
    Scores,
    measurement,
    score_all,
    warning,
)
from selfsup_cli.evaluation.inception_score import inception_score
from selfsup_cli.evaluation.judges import FEATURES, Judge, Seen, backbone_judge
from selfsup_cli.evaluation.kernel_distance import kernel_distance
from selfsup_cli.evaluation.precision_recall import precision_recall
from selfsup_cli.models import build
from selfsup_cli.models.gan import Generator
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.randomness import generator

CPU = torch.device("cpu")
MEASURES = Measures(subsets=7, subset_size=40)


def seen(n: int, seed: int, classes: int | None = None, shift: float = 0.0) -> Seen:
    g = generator(seed, "test")
    features = torch.randn(n, 6, generator=g) + shift
    logits = None if classes is None else 2 * torch.randn(n, classes, generator=g)
    return Seen(features, logits)


def judge(name: str) -> Judge:
    return Judge(name, lambda images: {}, {FEATURES: 6}, "0" * 64, "")


def scored(name: str, n: int = 90, seed: int = 0, step: int | None = 5) -> Scores:
    real = Reference.of(seen(80, 99), MEASURES, CPU)
    return score_all(judge(name), seen(n, seed, 4, 0.3), real, MEASURES, step=step)


def test_each_number_is_that_of_its_formula() -> None:
    ours, theirs = seen(90, 0, 4, 0.3), seen(80, 99)
    found = {number.what: number for number in scored("plain").numbers}
    distance = frechet_distance(Moments.of(ours.features), Moments.of(theirs.features))
    assert found["Fréchet distance"].value == pytest.approx(distance)
    assert found["Fréchet distance"].interval is not None
    assert ours.logits is not None
    score = inception_score(ours.logits.double().softmax(1))
    assert found["Inception Score"].value == pytest.approx(score.mean)
    kernel = kernel_distance(ours.features, theirs.features, subsets=7, subset_size=40)
    assert found["kernel distance"].value == pytest.approx(kernel.mean)
    both = precision_recall(ours.features, theirs.features)
    assert found["precision"].value == pytest.approx(100 * both.precision)
    assert found["recall"].value == pytest.approx(100 * both.recall)


def test_numbers_bear_the_name_of_their_network() -> None:
    names = [number.name for number in scored("inception-2015").numbers]
    assert names == ["FID", "IS", "KID", "precision", "recall"]
    names = [number.name for number in scored("alexnet").numbers]
    assert names == [
        "FD-alexnet", "IS-alexnet", "KD-alexnet", "precision-alexnet", "recall-alexnet",
    ]  # fmt: skip


def test_several_checkpoints_are_a_mean_with_its_deviation() -> None:
    several = [scored("plain", seed=seed, step=10 * seed) for seed in range(5)]
    about = {"subject": "run", "dataset": "data", "split": "test"}
    for which, number in enumerate(several[0].numbers):
        row = measurement(several, which, protocol={"seed": 0}, **about)
        values = [scores.numbers[which].value for scores in several]
        assert row.value == pytest.approx(fmean(values))
        assert row.protocol["standard_deviation"] == pytest.approx(stdev(values), rel=1e-5)
        assert row.protocol["values"] == pytest.approx(values, rel=1e-5)
        assert row.protocol["checkpoints"] == [0, 10, 20, 30, 40]
        assert row.interval is not None
        half = 2.7764 * stdev(values) / 5**0.5
        assert row.interval.high - row.value <= half * 1.001
        assert row.interval.low >= 0 or number.what == "kernel distance"
        assert (row.metric, row.n) == (number.name, 90)
    alone = measurement(several[:1], 0, protocol={"seed": 0}, **about)
    assert "standard_deviation" not in alone.protocol
    assert alone.protocol["checkpoints"] == [0]
    assert alone.interval == several[0].numbers[0].interval
    assert Scores.model_validate_json(several[0].model_dump_json()) == several[0]


def test_several_trainings_are_a_mean_over_their_means() -> None:
    about = {"subject": "run", "dataset": "data", "split": "test"}
    every = [(run, step) for run in "ab" for step in (10, 20)]
    several = [
        scored("plain", seed=seed, step=step).model_copy(update={"run": run})
        for seed, (run, step) in enumerate(every)
    ]
    row = measurement(several, 0, protocol={}, **about)
    values = [scores.numbers[0].value for scores in several]
    means = [fmean(values[:2]), fmean(values[2:])]
    assert row.value == pytest.approx(fmean(means))
    assert row.protocol["values"] == pytest.approx(means, rel=1e-5)
    assert (row.protocol["runs"], row.protocol["checkpoints"]) == (2, [10, 20])
    within = fmean([stdev(values[:2]), stdev(values[2:])])
    assert row.protocol["deviation_over_checkpoints"] == pytest.approx(within, rel=1e-5)
    assert row.interval is not None
    assert row.interval.high - row.value == pytest.approx(12.7062 * stdev(means) / 2**0.5, rel=1e-4)
    assert row.interval.method == "Student t over 2 trainings"
    last = measurement(several[1::2], 0, protocol={}, **about)
    assert last.protocol["values"] == pytest.approx(values[1::2], rel=1e-5)
    assert "deviation_over_checkpoints" not in last.protocol


def test_images_that_are_sorted_are_divided_at_random() -> None:
    """Each of two halves of one class alone would have a score of 1."""
    logits = torch.zeros(80, 2)
    logits[:40, 0] = logits[40:, 1] = 20
    real = Reference.of(seen(80, 99), MEASURES, CPU)
    for splits, wanted in ((1, 2.0), (2, 1.98)):
        found = score_all(
            judge("plain"), Seen(seen(80, 0).features, logits), real,
            MEASURES.model_copy(update={"splits": splits}), step=1,
        )  # fmt: skip
        value = next(one.value for one in found.numbers if one.what == "Inception Score")
        assert value == pytest.approx(wanted, abs=0.04)


def test_too_few_images_are_told_with_their_bias() -> None:
    few = scored("plain", n=6)
    told = warning(few, 80, 6)
    assert told is not None
    assert "6 images are fewer than the 6 features" in told
    bias = float(few.numbers[0].protocol["expected_bias"])
    assert f"about {bias:.3g} or more" in told
    some_ = warning(scored("plain", n=90), 80, 6)
    assert some_ is None or "what so few images bring" in some_
    near = score_all(
        judge("plain"), seen(90, 0), Reference.of(seen(80, 99), MEASURES, CPU), MEASURES, step=None
    )
    told = warning(near, 80, 6)
    assert told is not None
    assert "what so few images bring, 90 and 80" in told


# Pixels


@pytest.fixture(scope="module")
def scenes() -> ImageSource:
    data = ImageData(source="scenes", scenes=Rendered(images=12, test_images=8, side=40))
    return open_images(data, "train", labels=False, workers=0)


def test_real_images_are_framed_alike(scenes: ImageSource) -> None:
    reals = Reals(scenes, 32)
    found = torch.cat(list(reals.read([(0, 5), (5, 12)], 4)))
    assert (found.shape, found.dtype) == ((12, 3, 32, 32), torch.uint8)
    assert torch.equal(found[7], scenes.read(7, 32))
    assert reals.told == "middle square, scaled to 32×32"
    assert Reals(scenes, 40).told == "40×40 as they are"
    assert reals.fingerprint != Reals(scenes, 40).fingerprint
    chosen = some(scenes, 5, 0)
    assert len(chosen) == 5
    assert chosen.fingerprint != scenes.fingerprint
    assert some(scenes, None, 0) is scenes
    assert one_side(scenes) == 40


class Mixed:
    name = "mixed"
    sizes = np.array([[32, 32], [32, 48]])


def test_generated_images_are_of_one_size() -> None:
    with pytest.raises(InputError, match="all of one size and square, these are 32×32, 48×32"):
        one_side(cast(ImageSource, Mixed()))


def test_samples_are_bytes_by_number() -> None:
    network = Generator(generator(0, "test"), base=1, latent=4, channels=1)
    sampler, latents = Sampler(network, batch=10), Latents(0, 4)
    samples = Samples(sampler, latents, 25, "weights")
    whole = torch.cat(list(samples.read([(0, 25)], 100)))
    assert (whole.shape, whole.dtype) == ((25, 3, 32, 32), torch.uint8)
    assert torch.equal(torch.cat(list(samples.read([(3, 14)], 2))), whole[3:14])
    floats = torch.cat(list(sampler.batches(latents, 0, 25)))
    assert torch.equal(whole[:, :1], ((floats + 1) * 127.5).round().to(torch.uint8))
    others = [
        Samples(sampler, Latents(1, 4), 25, "weights"),
        Samples(sampler, Latents(0, 4, 1.0), 25, "weights"),
        Samples(Sampler(network, batch=5), latents, 25, "weights"),
        Samples(sampler, latents, 25, "others"),
    ]
    assert len({one.fingerprint for one in [samples, *others]}) == 5


# Learned by heart?


def test_nearest_images_against_a_loop(scenes: ImageSource) -> None:
    reals = Reals(scenes, 32)
    images = torch.cat(list(reals.read([(0, 12)], 12)))
    shifted = (images[[4, 9]].int() + 3).clamp(0, 255).to(torch.uint8)
    found = by_pixels(shifted, reals, 3, lambda done, total: None)
    for query, near in enumerate((4, 9)):
        apart = (shifted[query].double() - images.double()).square().mean((1, 2, 3)).sqrt()
        order = apart.argsort()
        assert found.places[query].tolist() == order[:3].tolist()
        assert found.places[query, 0] == near
        torch.testing.assert_close(
            found.distances[query].double(), apart[order[:3]], atol=1e-2, rtol=1e-3
        )
    one = backbone_judge(build("alexnet", width=0.0625), "alexnet", CPU)
    same = by_features(images[[4, 9]], reals, 2, one, lambda done, total: None)
    assert same.places[:, 0].tolist() == [4, 9]
    assert float(same.distances[:, 0].max()) < 1e-5


def test_copies_are_counted() -> None:
    heldout = torch.linspace(10, 20, 101)
    samples = torch.cat([torch.full((5,), 1.0), torch.full((95,), 15.0)])
    found = Copies(samples, heldout, "grey levels")
    assert found.limit == pytest.approx(10.1)
    assert found.nearer == 5
    assert "5 samples are nearer than 10.1" in found.told()
    one = Copies(samples[4:], heldout, "grey levels")
    assert "1 sample is nearer than 10.1" in one.told()


# On disk


@pytest.mark.parametrize("form", ["h5", "npz"])
def test_thousands_are_one_file_that_is_data_again(tmp_path: Path, form: str) -> None:
    g = generator(0, "test")
    images = torch.randint(256, (23, 3, 32, 32), generator=g, dtype=torch.uint8)
    path = tmp_path / f"samples.{form}"
    facts = {"seed": 3, "truncation": None}
    gan_store.write_array(path, torch.split(images, 10), (23, 32, 32, 3), facts)
    source = open_images(ImageData(source=str(path)), "all", labels=False, workers=0)
    assert len(source) == 23
    assert torch.equal(source.read(17), images[17])
    if form == "h5":
        with h5py.File(path) as file:
            assert dict(file.attrs) == {"seed": 3, "truncation": ""}


def test_single_images_are_png(tmp_path: Path) -> None:
    images = rgb_bytes(torch.rand(3, 1, 8, 8, generator=generator(0, "test")) * 2 - 1)
    assert gan_store.write_pngs(tmp_path / "images", [images[:2], images[2:]]) == 3
    with Image.open(tmp_path / "images" / "000002.png") as image:
        found: Tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(found, images[2])
