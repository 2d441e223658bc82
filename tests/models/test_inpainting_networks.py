"""The inpainter and the patch discriminator of section 4.2.1 against their tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.inpainting import Inpainter, PatchDiscriminator


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(b: int = 4, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, side, side, generator=gen(seed)) * 2 - 1


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("layers", "inpainter", "discriminator"), [
    (4, 3_101_235, 700_673), (5, 9_394_483, 2_929_921),
])  # fmt: skip
def test_parameters_are_those_of_the_thesis(
    layers: int, inpainter: int, discriminator: int
) -> None:
    assert count(Inpainter(gen(), layers=layers)) == inpainter
    assert count(PatchDiscriminator(gen(), layers=layers)) == discriminator


def outputs(network: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Shapes without the batch of what each convolution gives, in the order in which they run."""
    found: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
    network(x)
    return found


def test_shapes_are_those_of_the_tables() -> None:
    stl = [(48, 48), (96, 24), (192, 12), (384, 6), (192, 12), (96, 24), (48, 48), (3, 48)]
    large = [
        (48, 80), (96, 40), (192, 20), (384, 10), (512, 5), (384, 10), (192, 20), (96, 40),
        (48, 80), (3, 80),
    ]  # fmt: skip
    for layers, side, expected in ((4, 48, stl), (5, 80, large)):
        network = Inpainter(gen(), layers=layers)
        assert outputs(network, patches(2, side)) == [(c, s, s) for c, s in expected]
    stages = [(64, 48), (64, 24), (128, 24), (128, 12), (256, 12)]
    discriminator = PatchDiscriminator(gen())
    assert outputs(discriminator, patches(2, 48)) == [(c, s, s) for c, s in stages]


def test_the_inpainter_is_what_its_table_says() -> None:
    network = Inpainter(gen(), layers=3, base=4)
    state = network.state_dict()
    assert not any("running" in name for name in state)
    weights = iter([value for name, value in state.items() if value.ndim == 4])
    biases = iter([v for n, v in state.items() if n in ("encoder.0.bias", "decoder.6.bias")])

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    def norm(x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = x.var((0, 2, 3), keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + 1e-3)

    x = patches(3)
    y = leaky(F.conv2d(x, next(weights), next(biases), padding=1))
    for _ in range(2):
        y = leaky(norm(F.conv2d(y, next(weights), stride=2, padding=1)))
    for _ in range(2):
        y = leaky(norm(F.conv_transpose2d(y, next(weights), stride=2, padding=1)))
    y = torch.tanh(F.conv_transpose2d(y, next(weights), next(biases), padding=1))
    with torch.no_grad():
        torch.testing.assert_close(network(x), y, rtol=1e-4, atol=1e-5)
        assert torch.equal(network.eval()(x), network.train()(x))  # always batch statistics
    assert float(y.abs().max()) < 1


def test_the_discriminator_is_what_its_table_says() -> None:
    """Two patches stacked, weights divided by their largest singular value, a sum over space."""
    network = PatchDiscriminator(gen(), base=4).eval()
    x = patches(6)
    state = {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in network.state_dict().items()
    }
    names = [f"convolutions.{2 * index}" for index in range(5)]
    y = torch.cat([x[:3], x[3:]], 1)
    for index, name in enumerate(names):
        weight = state[f"{name}.weight"]
        # The estimate of the largest singular value after a few iterations is near it.
        exact = float(torch.linalg.matrix_norm(weight.flatten(1), 2))
        normalised = network.get_submodule(name).weight
        assert isinstance(normalised, Tensor)
        scale = float((weight / normalised.detach()).median())
        assert scale == pytest.approx(exact, rel=0.05)
        stride = 2 if index in (1, 3) else 1
        y = F.conv2d(y, weight / scale, state[f"{name}.bias"], stride=stride, padding=1)
        y = torch.where(y > 0, y, 0.1 * y)
    last = state["last.weight"]
    expected = y.sum((2, 3)) @ (last / last.norm()).T + state["last.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected.squeeze(1), rtol=1e-3, atol=1e-4)


def test_one_pass_in_training_takes_one_step_to_the_singular_value() -> None:
    network = PatchDiscriminator(gen(), base=4)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.eval()(patches())
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    network.train()(patches())
    name = "convolutions.0"
    parametrized = f"{name}.parametrizations.weight"
    weight = network.state_dict()[f"{parametrized}.original"].flatten(1)
    u, v = (before[f"{parametrized}.0.{one}"] for one in ("_u", "_v"))
    u = F.normalize(weight @ v, dim=0)
    v = F.normalize(weight.T @ u, dim=0)
    after = dict(network.named_buffers())
    torch.testing.assert_close(after[f"{parametrized}.0._u"], u)
    torch.testing.assert_close(after[f"{parametrized}.0._v"], v)


@pytest.mark.parametrize("make", [
    lambda g: Inpainter(g, base=8), lambda g: PatchDiscriminator(g, base=8),
])  # fmt: skip
def test_weights_are_xavier_uniform_and_come_from_the_generator_alone(
    make: Callable[[torch.Generator], nn.Module],
) -> None:
    state = torch.random.get_rng_state()
    first, again, other = make(gen(1)), make(gen(1)), make(gen(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    drawn = 0
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        if value.ndim >= 2 and value.numel() > 1:
            drawn += 1
            assert not torch.equal(value, other.state_dict()[name]), name
            receptive = value[0, 0].numel()
            bound = (6 / (receptive * (value.shape[0] + value.shape[1]))) ** 0.5
            assert bound * 0.8 < float(value.abs().max()) <= bound
        elif name.endswith("bias"):
            assert not value.any(), name
        elif name.endswith("weight"):
            assert (value == 1).all()
        else:  # the starts of the power iterations
            assert not torch.equal(value, other.state_dict()[name]) or value.numel() == 1, name
    assert drawn == (8 if isinstance(first, Inpainter) else 6)


def test_pairs_are_patches_of_the_two_halves() -> None:
    network = PatchDiscriminator(gen(), base=4).eval()
    x = patches(6)
    with torch.no_grad():
        decisions = network(x)
        assert decisions.shape == (3,)
        torch.testing.assert_close(network(x[[1, 4]]), decisions[[1]])
        other = x.clone()
        other[4] = -other[4]
        changed = network(other) != decisions
        single = PatchDiscriminator(gen(), base=4, pack=1)
        assert single(x).shape == (6,)
    assert changed.tolist() == [False, True, False]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        Inpainter(gen())(patches(2, 20))
    with pytest.raises(ValueError, match="5 patches cannot be stacked in groups of 2"):
        PatchDiscriminator(gen(), base=4)(patches(5))
    with pytest.raises(ValueError, match="1 layers"):
        Inpainter(gen(), layers=1)
    with pytest.raises(ValueError, match="pack 0"):
        PatchDiscriminator(gen(), pack=0)


def test_gradients_reach_every_weight_and_the_patches() -> None:
    inpainter, discriminator = Inpainter(gen(), base=4), PatchDiscriminator(gen(), base=4)
    x = patches().requires_grad_()
    discriminator(inpainter(x)).sum().backward()
    for network in (inpainter, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_the_inpainter_learns_to_autoencode() -> None:
    network = Inpainter(gen(), layers=3, base=8)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3, betas=(0.5, 0.999))
    ramp = torch.linspace(-0.8, 0.8, 16)
    tilt = torch.rand(8, 3, 2, 1, 1, generator=gen(1)) * 2 - 1
    x = tilt[:, :, 0] * ramp + tilt[:, :, 1] * ramp[:, None]
    errors = []
    for _ in range(60):
        error = (network(x) - x).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(error)
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.2 * errors[0]
