"""Fréchet and kernel distance, Inception Score, precision and recall, each against another way."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.frechet import (
    Moments,
    distance_name,
    expected_bias,
    frechet_distance,
    frechet_interval,
    too_few,
)
from selfsup_cli.evaluation.inception_score import inception_score, score_name
from selfsup_cli.evaluation.kernel_distance import kernel_distance, kernel_name, squared_mmd
from selfsup_cli.evaluation.precision_recall import precision_recall, reach


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(n: int, d: int = 8, *, seed: int = 0, scale: float = 1.0, shift: float = 0) -> Tensor:
    """Correlated ones, about `shift`."""
    mix = torch.randn(d, d, generator=gen(99)) / d**0.5
    out: Tensor = scale * torch.randn(n, d, generator=gen(seed)) @ mix + shift
    return out


def by_scipy(a: Tensor, b: Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    apart = x.mean(0) - y.mean(0)
    return float(apart @ apart + np.trace(first + second - 2 * root.real))


# Moments


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), shift=st.sampled_from([0.0, 1e4]))
def test_moments_are_numpys_however_the_features_are_divided(cuts: list[int], shift: float) -> None:
    all_of = features(60, 5, shift=shift)
    moments, half = Moments(5), Moments(5)
    bounds = [0, *sorted(cuts), 60]
    for i, (start, stop) in enumerate(pairwise(bounds)):
        (moments if i % 2 else half).add(all_of[start:stop])
    moments.merge(half)
    x = all_of.double().numpy()
    assert moments.count == 60
    np.testing.assert_allclose(moments.mean.numpy(), x.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        moments.covariance.numpy(), np.cov(x, rowvar=False), rtol=1e-9, atol=1e-12
    )


def test_moments_come_back_from_their_state() -> None:
    moments = Moments.of(features(30))
    again = Moments.of_state(moments.state())
    assert again.count == 30
    assert torch.equal(again.mean, moments.mean)
    assert torch.equal(again.covariance, moments.covariance)
    again.add(features(5))
    assert moments.count == 30
    state = moments.state()
    for bad in ({"count": state["count"]}, state | {"mean": state["mean"][:3]},
                state | {"scatter": state["scatter"] * math.nan}):  # fmt: skip
        with pytest.raises(InputError, match="statistics"):
            Moments.of_state(bad)


# Fréchet distance


@pytest.mark.parametrize(("n", "d"), [(200, 8), (50, 20), (15, 32)])
def test_distance_against_scipys_root(n: int, d: int) -> None:
    a, b = features(n, d), features(n + 7, d, seed=1, scale=1.7, shift=0.3)
    ours, theirs = Moments.of(a), Moments.of(b)
    found = frechet_distance(ours, theirs)
    # The root of a singular product is what scipy is not exact about.
    assert found == pytest.approx(by_scipy(a, b), rel=1e-9 if n > d else 1e-4)
    assert frechet_distance(theirs, ours) == pytest.approx(found, rel=1e-7)


def exact(mean: Tensor, covariance: Tensor) -> Moments:
    moments = Moments(len(mean))
    moments.count, moments.mean, moments.scatter = 2, mean, covariance
    return moments


def test_distance_in_closed_form() -> None:
    zero, eye = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    a = torch.tensor([1.0, 4.0, 9.0, 0.0], dtype=torch.float64)
    b = torch.tensor([4.0, 4.0, 1.0, 2.0], dtype=torch.float64)
    wanted = 9 + sum((x**0.5 - y**0.5) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
    shifted = zero + torch.tensor([3.0, 0, 0, 0])
    assert frechet_distance(exact(zero, a.diag()), exact(shifted, b.diag())) == pytest.approx(
        wanted
    )
    # A common rotation moves nothing; a singular covariance is one.
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=gen(), dtype=torch.float64))
    turned = [exact(q @ m, q @ s.diag() @ q.T) for m, s in ((zero, a), (shifted, b))]
    assert frechet_distance(*turned) == pytest.approx(wanted)
    assert frechet_distance(exact(zero, 0 * eye), exact(shifted, eye)) == pytest.approx(13)
    assert frechet_distance(exact(zero, eye), exact(zero, eye)) == 0


def test_a_set_is_at_no_distance_from_itself() -> None:
    for n in (10, 300):
        ours = Moments.of(features(n, 64, scale=10))
        assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-6)


def test_expected_bias_against_draws() -> None:
    reference = Moments(3)
    reference.count, reference.scatter = 10**9, torch.diag(torch.tensor([1.0, 2.0, 5.0])).double()
    reference.scatter *= reference.count - 1
    scale = torch.tensor([1.0, 2.0, 5.0]).sqrt()
    found = [
        frechet_distance(Moments.of(torch.randn(200, 3, generator=gen(s)) * scale), reference)
        for s in range(400)
    ]
    mean, error = float(np.mean(found)), float(np.std(found)) / 20
    assert expected_bias(reference, 200) == pytest.approx(mean, abs=4 * error + 0.02 * mean)
    assert expected_bias(reference, 400) == pytest.approx(expected_bias(reference, 200) / 2)


def test_jackknife_covers_what_repeated_samples_do() -> None:
    reference = Moments.of(features(4000, 4, seed=7, shift=0.5))
    values, halves = [], []
    for seed in range(30):
        sample = features(600, 4, seed=100 + seed)
        groups = [Moments.of(part) for part in sample.chunk(10)]
        value, interval = frechet_interval(groups, reference)
        assert interval is not None
        assert interval.low <= value <= interval.high
        assert value == pytest.approx(frechet_distance(Moments.of(sample), reference))
        values.append(value)
        halves.append((interval.high - interval.low) / 2)
    assert np.mean(halves) == pytest.approx(2.262 * np.std(values, ddof=1), rel=0.35)
    assert frechet_interval([reference], reference)[1] is None


def test_numbers_are_named_after_their_network() -> None:
    assert [name("inception-2015") for name in (distance_name, score_name, kernel_name)] == [
        "FID", "IS", "KID",
    ]  # fmt: skip
    assert [name("resnet18") for name in (distance_name, score_name, kernel_name)] == [
        "FD-resnet18", "IS-resnet18", "KD-resnet18",
    ]  # fmt: skip


def test_mistakes_are_told() -> None:
    small = Moments.of(features(5, 3))
    with pytest.raises(InputError, match="same network"):
        frechet_distance(small, Moments.of(features(5, 4)))
    with pytest.raises(InputError, match="same network"):
        small.add(features(5, 4))
    with pytest.raises(InputError, match="two images, not 1"):
        frechet_distance(Moments.of(features(1, 3)), small)
    with pytest.raises(InputError, match="not finite"):
        small.add(features(5, 3) * math.nan)
    assert too_few(2048, 2048) is not None
    assert too_few(2049, 2048) is None


# Inception Score


def score_by_loop(rows: list[list[float]]) -> float:
    marginal = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    total = sum(
        p * math.log(p / q) for row in rows for p, q in zip(row, marginal, strict=True) if p > 0
    )
    return math.exp(total / len(rows))


def test_score_against_a_loop_and_its_bounds() -> None:
    p = torch.randn(50, 7, generator=gen()).softmax(1)
    found = inception_score(p)
    assert found.mean == pytest.approx(score_by_loop(p.tolist()), rel=1e-6)
    assert (found.deviation, found.splits, found.images) == (0, 1, 50)
    assert inception_score(torch.eye(10).repeat(3, 1)).mean == pytest.approx(10)
    assert inception_score(p[:1].repeat(9, 1)).mean == pytest.approx(1)


def test_score_of_splits() -> None:
    p = torch.randn(53, 7, generator=gen()).softmax(1)
    rows = p.tolist()
    parts = [score_by_loop(rows[i * 53 // 4 : (i + 1) * 53 // 4]) for i in range(4)]
    found = inception_score(p, splits=4)
    assert found.mean == pytest.approx(np.mean(parts), rel=1e-6)
    assert found.deviation == pytest.approx(np.std(parts), rel=1e-6)


def test_interval_of_the_score_is_what_repeated_samples_do() -> None:
    def drawn(seed: int) -> Tensor:
        return (2 * torch.randn(400, 5, generator=gen(seed))).softmax(1)

    found = [inception_score(drawn(s)) for s in range(40)]
    spread = np.std([one.mean for one in found], ddof=1)
    halves = [one.interval.high - one.mean for one in found if one.interval is not None]
    assert len(halves) == 40
    assert np.mean(halves) == pytest.approx(1.96 * spread, rel=0.3)
    assert inception_score(drawn(0)) == found[0]
    assert inception_score(drawn(0), resamples=0).interval is None


def test_probabilities_are_checked() -> None:
    with pytest.raises(InputError, match="were logits given"):
        inception_score(torch.randn(10, 4, generator=gen()))
    with pytest.raises(InputError, match="were logits given"):
        inception_score(torch.full((10, 4), math.nan))
    with pytest.raises(InputError, match="3 images cannot be divided into 5"):
        inception_score(torch.full((3, 4), 0.25), splits=5)
    with pytest.raises(InputError, match=r"\[images, classes\]"):
        inception_score(torch.ones(3))


# Kernel distance


def test_squared_mmd_against_a_loop() -> None:
    x, y = features(5, 3), features(4, 3, seed=1, shift=0.5)

    def k(a: Tensor, b: Tensor) -> float:
        return float((a.double() @ b.double() / 3 + 1) ** 3)

    within = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    within += sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    across = sum(k(a, b) for a in x for b in y) / 20
    assert squared_mmd(x, y) == pytest.approx(within - 2 * across, rel=1e-9)


def test_squared_mmd_has_no_bias() -> None:
    found = [squared_mmd(features(20, 3, seed=s), features(30, 3, seed=1000 + s))
             for s in range(400)]  # fmt: skip
    assert min(found) < 0
    assert abs(np.mean(found)) < 4 * np.std(found) / 20


def test_kernel_distance_of_subsets() -> None:
    x, y = features(500, 6), features(450, 6, seed=1, shift=0.4)
    found = kernel_distance(x, y, subsets=30, subset_size=100)
    whole = squared_mmd(x, y)
    assert found.interval is not None
    assert found.interval.low < whole < found.interval.high
    assert found.mean == pytest.approx(whole, abs=4 * found.deviation / 30**0.5)
    assert found == kernel_distance(x, y, subsets=30, subset_size=100)
    assert found != kernel_distance(x, y, subsets=30, subset_size=100, seed=1)
    assert kernel_distance(x, y, subsets=2, subset_size=300).interval is None
    with pytest.raises(InputError, match="450 images are fewer than the 1000"):
        kernel_distance(x, y)


# Precision and recall


def test_precision_and_recall_by_hand() -> None:
    reals = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # reach to the nearest: 1, 1, 1, 8
    samples = torch.tensor([[-0.5], [3.5], [19.0]])  # 4, 4, 15.5
    found = precision_recall(samples, reals, neighbours=1)
    assert (found.precise, found.samples, found.recalled, found.reals) == (2, 3, 4, 4)
    assert (found.precision, found.recall) == (2 / 3, 1.0)
    again = precision_recall(samples, reals, neighbours=1, radii=reach(reals, 1))
    assert again == found


def test_collapse_shows_in_recall_and_noise_in_precision() -> None:
    reals = features(300, 4)
    collapsed = precision_recall(0.05 * features(200, 4, seed=1), reals)
    assert collapsed.precision > 0.9
    assert collapsed.recall < 0.1
    noisy = precision_recall(4 * features(200, 4, seed=1), reals)
    assert noisy.precision < 0.4
    assert noisy.recall > 0.9
    with pytest.raises(InputError, match="too few"):
        precision_recall(features(3, 4), reals)


# The library that others use


def test_metrics_are_those_of_torch_fidelity() -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    x, y = features(300, 32).double(), features(280, 32, seed=1, scale=1.3, shift=0.2).double()
    ours, theirs = (fid.fid_features_to_statistics(side) for side in (x, y))
    wanted = fid.fid_statistics_to_metric(ours, theirs, False)["frechet_inception_distance"]
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(wanted, abs=1e-6)
    logits = torch.randn(101, 10, generator=gen())
    for splits in (1, 10):
        there = isc.isc_features_to_metric(logits, splits=splits, shuffle=False)
        here = inception_score(logits.double().softmax(1), splits=splits)
        assert here.mean == pytest.approx(there["inception_score_mean"], rel=1e-9)
        assert here.deviation == pytest.approx(there["inception_score_std"], rel=1e-6, abs=1e-12)
    options = {"kid_subsets": 1, "kid_subset_size": 280, "rng_seed": 0, "verbose": False}
    there = kid.kid_features_to_metric(x[:280], y, **options)["kernel_inception_distance_mean"]
    assert squared_mmd(x[:280], y) == pytest.approx(there, rel=1e-9)
    there = prc.prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    found = precision_recall(x, y)
    assert found.precision == pytest.approx(there["precision"])
    assert found.recall == pytest.approx(there["recall"])
