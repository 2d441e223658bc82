"""Latents by number, truncation, interpolation, and what batch norm goes by."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.gan import Generator, PointGenerator, noise_network
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise
from selfsup_cli.models.gan_sampling import (
    RECALIBRATION,
    Latents,
    Sampler,
    noise_of,
    slerp,
    truncated,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> Generator:
    return Generator(gen(seed), base=1, latent=6)


@settings(max_examples=30)
@given(start=st.integers(0, 250), length=st.integers(0, 150))
def test_a_latent_is_the_same_however_many_are_asked_for(start: int, length: int) -> None:
    latents = Latents(3, 4)
    part = latents.rows(start, start + length)
    assert part.shape == (length, 4)
    assert torch.equal(part, latents.rows(0, 400)[start : start + length])


def test_latents_are_normal_and_their_own() -> None:
    z = Latents(0, 8).rows(0, 2000)
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert len(torch.unique(z, dim=0)) == 2000
    assert not torch.equal(z, Latents(1, 8).rows(0, 2000))
    assert not torch.equal(z, Latents(0, 8, purpose="others").rows(0, 2000))


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0])
def test_truncation_keeps_quantiles(limit: float) -> None:
    z = Latents(0, 50).rows(0, 200).double()
    found = truncated(z, limit)
    cut = scipy.stats.truncnorm(-limit, limit)
    wanted = cut.ppf(scipy.stats.norm.cdf(z.numpy()))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    assert float(found.abs().max()) <= limit
    assert torch.equal(Latents(0, 50, limit).rows(0, 200), truncated(z.float(), limit))


def test_interpolation_runs_on_the_sphere() -> None:
    a, b = torch.randn(3, 5, generator=gen()), torch.randn(3, 5, generator=gen(1))
    found = slerp(a, b, 7).double()
    for row in range(3):
        x, y = a[row].double().numpy(), b[row].double().numpy()
        p, q = np.linalg.norm(x), np.linalg.norm(y)
        angle = np.arccos(x @ y / p / q)
        for k in range(7):
            t = k / 6
            on = np.sin((1 - t) * angle) * x / p + np.sin(t * angle) * y / q
            wanted = on / np.sin(angle) * ((1 - t) * p + t * q)
            np.testing.assert_allclose(found[row, k].numpy(), wanted, atol=1e-6)
    same = slerp(a, a, 4)
    torch.testing.assert_close(same, a[:, None].expand(-1, 4, -1))


def in_training(net: Generator, z: torch.Tensor) -> torch.Tensor:
    """The same network in training, whose running averages do not matter."""
    with torch.no_grad():
        out: torch.Tensor = net.train()(z)
    return out


def test_batches_are_normalised_by_themselves() -> None:
    latents = Latents(0, 6)
    sampler = Sampler(network(), batch=10)
    found = torch.cat(list(sampler.batches(latents, 0, 25)))
    wanted = torch.cat([in_training(network(), latents.rows(k, k + 10)) for k in (0, 10, 20)])[:25]
    torch.testing.assert_close(found, wanted)
    # Wherever one begins, and however many there are.
    parts = [*sampler.batches(latents, 0, 7), *sampler.batches(latents, 7, 25)]
    torch.testing.assert_close(torch.cat(parts), wanted)
    before = sampler.network.state_dict()["stage1.1.running_mean"]
    assert torch.equal(before, torch.zeros_like(before))


def test_a_few_latents_are_filled_up_to_a_batch() -> None:
    z = Latents(0, 6).rows(0, 3)
    sampler = Sampler(network(), batch=10)
    filled = torch.cat([z, Latents(0, 6, purpose="filling").rows(0, 7)])
    torch.testing.assert_close(sampler(z), in_training(network(), filled)[:3])


def test_running_averages() -> None:
    net = network()
    with pytest.raises(InputError, match="no running averages"):
        Sampler(net, batch_norm="running")
    in_training(net, Latents(0, 6).rows(0, 10))
    sampler = Sampler(net, batch_norm="running", batch=10)
    z = Latents(0, 6).rows(0, 4)
    with torch.no_grad():
        torch.testing.assert_close(sampler(z), net.eval()(z))
        torch.testing.assert_close(sampler(z[:1]), net(z[:1]))


def test_recalibrated_averages_are_means_over_batches() -> None:
    net = network()
    sampler = Sampler(net, batch_norm="recalibrated", batch=8)
    norm = sampler.network.get_submodule("stage1.1")
    first = net.get_submodule("stage1.0")
    assert isinstance(norm, nn.BatchNorm2d)
    z = Latents(0, 6, purpose="recalibration").rows(0, 8 * RECALIBRATION)
    with torch.no_grad():
        inside = first(z[:, :, None, None]).unflatten(0, (RECALIBRATION, 8)).transpose(1, 2)
    flat = inside.flatten(2)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, flat.mean((0, 2)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.running_var, flat.var(2).mean(0), atol=1e-4, rtol=1e-3)
    # The network that was given stays as it was.
    assert int(net.get_buffer("stage1.1.num_batches_tracked")) == 0
    one = sampler(z[:1])
    torch.testing.assert_close(one, sampler(z[:5])[:1])


def test_how_it_was_done_is_said() -> None:
    assert "batch of 100, as in training" in Sampler(network()).told
    assert "made anew" in Sampler(network(), batch_norm="recalibrated", batch=4).told
    plain = Sampler(Generator(gen(), base=1, latent=6, norm="none"), batch_norm="running")
    assert plain.told == "the generator has none"
    with pytest.raises(InputError, match="batch of one"):
        Sampler(network(), batch=1)
    assert Sampler(Generator(gen(), base=1, norm="none"), batch=1).batch == 1
    points = Sampler(PointGenerator(gen(), latent=3))
    assert points(torch.zeros(2, 3)).shape == (2, 2)


def test_noise_is_normalised_by_its_batch_and_repeats() -> None:
    noise = LearnedNoise(noise_network(gen(), base=1, latent=4), latent=4)
    found = noise_of(noise, 3, 0, "cpu")
    assert found.shape == (3, 3, 32, 32)
    assert torch.equal(found, noise_of(noise, 5, 0, "cpu")[:3])
    assert not torch.equal(found, noise_of(noise, 3, 1, "cpu"))
    assert int(noise.get_buffer("network.stage1.1.num_batches_tracked")) == 0
    gaussian = noise_of(GaussianNoise((2,), sigma=0.5), 4000, 0, "cpu")
    assert float(gaussian.std()) == pytest.approx(0.5, rel=0.05)
