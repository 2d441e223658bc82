"""The networks of table 7.2 against the table, and how they are normalised."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.gan import (
    SIZES,
    Activation,
    Discriminator,
    Generator,
    Layout,
    Norm,
    PointDiscriminator,
    PointGenerator,
    average_decay,
    average_into,
    batch_statistics,
    frozen,
    noise_network,
)
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise, annealed, magnitude


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=gen(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shapes(network: nn.Module, x: Tensor) -> list[tuple[int, int]]:
    """Channels and side of what each convolution gives, in the order in which they run."""
    found: list[tuple[int, int]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:3])))
    network(x)
    return found


@pytest.mark.parametrize(("size", "generator", "noise", "discriminator"), [
    (32, 3_804_739, 174_539, 2_764_289), (64, 13_243_971, 436_939, 11_163_137),
])  # fmt: skip
def test_parameters_are_those_of_the_released_networks(
    size: int, generator: int, noise: int, discriminator: int
) -> None:
    assert count(Generator(gen(), size=size)) == generator
    assert count(noise_network(gen(), size=size)) == noise
    assert count(Discriminator(gen(), size=size)) == discriminator


def test_discriminator_of_table_7_2() -> None:
    network = Discriminator(gen(), layout="table")
    assert shapes(network, randn(2, 3, 32, 32)) == [
        (64, 32), (64, 16), (128, 8), (256, 4), (512, 2), (1, 1),
    ]  # fmt: skip
    first = 3 * 64 * 9 + 64
    rest = sum(a * b * 16 + 2 * b for a, b in [(64, 64), (64, 128), (128, 256), (256, 512)])
    assert count(network) == first + rest + 512 * 4 + 1
    larger = Discriminator(gen(), size=64, layout="table")
    assert shapes(larger, randn(2, 3, 64, 64))[-2] == (1024, 2)


def test_shapes_of_the_generator_and_the_released_discriminator() -> None:
    assert shapes(Generator(gen()), randn(2, 128)) == [
        (512, 4), (256, 8), (128, 16), (64, 32), (3, 32),
    ]  # fmt: skip
    assert shapes(Discriminator(gen()), randn(2, 3, 32, 32)) == [
        (64, 32), (128, 16), (256, 8), (512, 4), (1, 1),
    ]  # fmt: skip


def test_sngan_discriminator_is_the_original_one() -> None:
    network = Discriminator(gen(), layout="sngan", norm="spectral")
    assert shapes(network, randn(2, 3, 32, 32)) == [
        (64, 32), (64, 16), (128, 16), (128, 8), (256, 8), (256, 4), (512, 4), (1, 1),
    ]  # fmt: skip
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert {m.negative_slope for m in Discriminator(gen()).modules()
            if isinstance(m, nn.LeakyReLU)} == {0.2}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_generated_and_judged(size: int) -> None:
    images = Generator(gen(), size=size, base=2)(randn(3, 128))
    assert images.shape == (3, 3, size, size)
    layouts: tuple[Layout, ...] = ("released", "table", "sngan")
    for layout in layouts:
        assert Discriminator(gen(), size=size, base=2, layout=layout)(images).shape == (3,)


def test_another_size_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="48×48 pixels; there are those of 32, 64, 96, 128"):
        Generator(gen(), size=48)
    with pytest.raises(ValueError, match="images must be"):
        Discriminator(gen(), base=2)(randn(2, 3, 64, 64))
    with pytest.raises(ValueError, match="latents must be"):
        Generator(gen(), base=2)(randn(2, 64))


def test_doubled_depth_keeps_the_maps() -> None:
    plain = shapes(Generator(gen(), base=2), randn(2, 128))
    deep = shapes(Generator(gen(), base=2, depth=2), randn(2, 128))
    assert deep == [s for shape in plain[:-1] for s in (shape, shape)] + plain[-1:]
    plain = shapes(Discriminator(gen(), base=2), randn(2, 3, 32, 32))
    deep = shapes(Discriminator(gen(), base=2, depth=2), randn(2, 3, 32, 32))
    assert deep == [s for shape in plain[:-1] for s in (shape, shape)] + plain[-1:]


def test_ranges_of_images_and_noise() -> None:
    z = 50 * randn(4, 128)
    images, noise = Generator(gen(), base=4)(z), noise_network(gen(), base=4)(z)
    assert images.abs().max() <= 1
    assert 1 < noise.abs().max() <= 2
    torch.testing.assert_close(noise, 2 * images)


def test_weights_are_a_function_of_the_generator() -> None:
    before = torch.get_rng_state()
    norms: tuple[Norm, ...] = ("batch", "spectral", "layer", "none")
    for norm in norms:
        same = [Discriminator(gen(s), base=4, norm=norm) for s in (1, 1, 2)]
        x = randn(2, 3, 32, 32)
        a, b, c = (network(x) for network in same)
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


def test_xavier_bounds() -> None:
    weight = Generator(gen()).get_parameter("stage2.0.weight")  # 512 → 256, 4×4
    bound = (6 / ((512 + 256) * 16)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh)])
def test_settings_of_table_7_4(activation: Activation, kind: type[nn.Module]) -> None:
    bare = Generator(gen(), base=2, norm="none", activation=activation)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in bare.modules())
    convolutions = [m for m in bare.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert all(m.bias is not None for m in convolutions)
    assert sum(isinstance(m, kind) for m in bare.modules()) == 4
    judge = Discriminator(gen(), base=2, activation=activation)
    assert all(isinstance(m, nn.Tanh) == (activation == "tanh")
               for m in judge.modules() if isinstance(m, nn.Tanh | nn.LeakyReLU))  # fmt: skip


def test_batch_norm_is_as_the_authors() -> None:
    norms = [m for m in Discriminator(gen(), base=2).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3  # none after the first convolution
    assert {(m.momentum, m.eps) for m in norms} == {(0.025, 1e-3)}


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    network = Discriminator(gen(), base=4, norm="spectral")
    x = randn(2, 3, 32, 32)
    for _ in range(50):
        network(x)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            largest = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
            assert largest.item() == pytest.approx(1, abs=0.02)
            assert module.bias is not None


def test_batch_statistics_leaves_no_trace() -> None:
    network = Generator(gen(), base=2).eval()
    before = copy.deepcopy(network.state_dict())
    z = randn(8, 128)
    with torch.no_grad():
        running = network(z)
        with batch_statistics(network):
            batch = network(z)
            alone = network(z[:4])
        assert torch.equal(network(z), running)
        assert not torch.allclose(batch, running)
        assert not torch.allclose(batch[:4], alone)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(network.train()(z), batch)
    assert not torch.equal(
        network.get_buffer("stage1.1.running_mean"), before["stage1.1.running_mean"]
    )


def test_frozen_lets_gradients_through_only() -> None:
    judge = Discriminator(gen(), base=2)
    images = randn(4, 3, 32, 32).requires_grad_()
    with frozen(judge):
        score = judge(images).sum()
    score.backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in judge.parameters())


def test_stages_are_layers() -> None:
    judge = Discriminator(gen(), base=2)
    assert judge.layers == ("conv1", "conv2", "conv3", "conv4")
    x = randn(4, 3, 32, 32)
    found = judge.features(x, ["conv4", "conv2"])
    assert [(n, tuple(f.shape[1:])) for n, f in found.items()] == [
        ("conv4", (16, 4, 4)), ("conv2", (4, 16, 16)),
    ]  # fmt: skip
    torch.testing.assert_close(judge.last(found["conv4"]).flatten(), judge(x))
    with pytest.raises(InputError, match="conv9"):
        judge.features(x, ["conv9"])


def test_average_of_the_weights() -> None:
    assert [average_decay(t, 0.9999) for t in (0, 8, 10**6)] == [0.1, 0.5, 0.9999]
    ours, network = PointGenerator(gen(1)), PointGenerator(gen(2))
    before = [p.detach().clone() for p in ours.parameters()]
    average_into(list(ours.parameters()), list(network.parameters()), 8, 0.9999)
    for p, a, b in zip(ours.parameters(), before, network.parameters(), strict=True):
        torch.testing.assert_close(p, (a + b) / 2)


def test_toy_networks() -> None:
    assert count(PointGenerator(gen())) == 16 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2
    assert count(PointDiscriminator(gen())) == 2 * 64 + 64 + 64 * 64 + 64 + 64 + 1
    noise = PointGenerator(gen(), hidden=32, reach=2)(100 * randn(64, 16))
    assert 1 < noise.abs().max() <= 2
    assert PointDiscriminator(gen(), norm="spectral")(noise).shape == (64,)


# Noise


def test_gaussian_noise_has_its_standard_deviation() -> None:
    noise = GaussianNoise((3, 16, 16), sigma=0.5)
    drawn = noise(64, gen())
    assert drawn.shape == (64, 3, 16, 16)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)
    assert noise.magnitude(drawn).item() == 0.25
    assert list(noise.parameters()) == []
    assert torch.equal(drawn, noise(64, gen()))


def test_learned_deviation_has_a_gradient_through_the_noise() -> None:
    noise = GaussianNoise((2,), sigma=0.5, learned=True)
    drawn = noise(10, gen())
    (gradient,) = torch.autograd.grad(drawn.sum(), noise.sigma, retain_graph=True)
    assert gradient.item() == pytest.approx((drawn / 0.5).sum().item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(noise.magnitude(drawn), noise.sigma)
    assert gradient.item() == pytest.approx(1.0)


def test_annealing_ends_at_zero() -> None:
    assert [annealed(2.0, step, 100) for step in (0, 25, 100, 150)] == [2.0, 1.5, 0.0, 0.0]
    noise = GaussianNoise((2,), sigma=2)
    noise.anneal(25, 100)
    assert noise.sigma.item() == 1.5
    noise.anneal(50, 100)
    assert noise.sigma.item() == 1.0


def test_magnitude_against_a_loop() -> None:
    noise = randn(3, 2, 4, 4)
    total = sum(v**2 for v in noise.flatten().tolist())
    assert magnitude(noise).item() == pytest.approx(total / 96, rel=1e-5)
    assert magnitude(noise, "sum").item() == pytest.approx(total / 3, rel=1e-5)


def test_learned_noise_draws_its_own_latents() -> None:
    network = PointGenerator(gen(), latent=4, reach=2)
    noise = LearnedNoise(network, latent=4)
    assert torch.equal(noise(5, gen(3)), network(randn(5, 4, seed=3)))
    shared = randn(5, 4, seed=9)
    assert torch.equal(noise(5, gen(3), shared), network(shared))
    drawn = noise(5, gen(3))
    assert noise.magnitude(drawn).item() == pytest.approx(drawn.square().mean().item())
