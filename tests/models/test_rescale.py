"""Data-dependent scales of fresh layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.models import Backbone, build
from selfsup_cli.models.absorb import absorbed
from selfsup_cli.models.layers import Scalable
from selfsup_cli.models.rescale import between, rates, rescale, within


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain() -> nn.Sequential:
    """Two convolutions, a pool, and two linear layers whose scales are far apart."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 9, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip
    g = seeded(3)
    for module, sigma in zip(affine(layers), (1.0, 1e-3, 30.0, 1e-2), strict=True):
        nn.init.normal_(module.weight, std=sigma, generator=g)  # type: ignore[arg-type]
        nn.init.normal_(module.bias, std=sigma, generator=g)  # type: ignore[arg-type]
    return layers


def affine(layers: nn.Module) -> list[nn.Module]:
    return [one for one in layers.modules() if isinstance(one, nn.Conv2d | nn.Linear)]


def batch(seed: int = 1) -> Tensor:
    return torch.rand(64, 3, 10, 10, generator=seeded(seed)) * 2 - 1


def outputs(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What each convolution or linear layer gives, channels last and flat."""
    found = []
    with torch.no_grad():
        for module in layers:
            x = module(x)
            if isinstance(module, nn.Conv2d):
                found.append(x.movedim(1, -1).flatten(0, -2).clone())
            elif isinstance(module, nn.Linear):
                found.append(x.clone())
    return found


def test_channels_have_unit_variance_on_the_batch_within_a_layer() -> None:
    layers, x = chain(), batch()
    within(affine(layers), lambda: layers(x), bias=0.25)
    for number, found in enumerate(outputs(layers, x)):
        torch.testing.assert_close(found.var(0, correction=0), torch.ones(found.shape[1]))
        mean = 0.25 if number < 3 else 0.0
        torch.testing.assert_close(found.mean(0), torch.full((found.shape[1],), mean))


def test_layers_change_equally_fast_and_the_network_computes_the_same_between_them() -> None:
    layers, x = chain(), batch()
    within(affine(layers), lambda: layers(x))
    uneven = rates(affine(layers), lambda: layers(x), seeded())
    assert max(uneven) > 1.3 * min(uneven)
    before = outputs(layers, x)[-1]
    between(affine(layers), lambda: layers(x), seeded())
    torch.testing.assert_close(outputs(layers, x)[-1], before, rtol=1e-3, atol=1e-4)
    even = rates(affine(layers), lambda: layers(x), seeded())
    assert max(even) == pytest.approx(min(even), rel=1e-3)
    # Against an independent statement of the rate: a sum over outputs, weighted by hand.
    z = layers(x)
    (torch.randn(z.shape, generator=seeded()) * z).sum().backward()
    last = affine(layers)[-1].weight
    assert isinstance(last, Tensor)
    assert last.grad is not None
    assert float(last.grad.norm() / last.detach().norm()) == pytest.approx(even[-1], rel=1e-5)


def test_scales_are_a_function_of_the_batch_and_the_weights() -> None:
    first, x = chain(), batch()
    other, third = copy.deepcopy(first), copy.deepcopy(first)
    rescale(affine(first), lambda: first(x), seeded())
    rescale(affine(other), lambda: other(x), seeded())
    rescale(affine(third), lambda: third(batch(2)), seeded())
    for one, same, another in zip(
        first.parameters(), other.parameters(), third.parameters(), strict=True
    ):
        assert torch.equal(one, same)
        assert not torch.equal(one, another)
        assert one.requires_grad
        assert one.grad is None


def test_layers_side_by_side_share_a_scale() -> None:
    trunk, left, right = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 4)
    x = torch.randn(128, 6, generator=seeded())

    def run() -> tuple[Tensor, Tensor]:
        hidden = trunk(x).relu()
        return left(hidden), right(hidden)

    within([trunk, (left, right)], run)
    before = run()
    between([trunk, (left, right)], run, seeded())
    for old, new in zip(before, run(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-4)
    first, second = rates([trunk, (left, right)], run, seeded())
    assert first == pytest.approx(second, rel=1e-3)


def test_channels_that_do_not_vary_and_layers_without_bias() -> None:
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data[1] = 0
    x = torch.randn(50, 4, generator=seeded())
    within([layer], lambda: layer(x))
    torch.testing.assert_close(layer(x).var(0, correction=0), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="no part of what was run"):
        within([nn.Linear(2, 2)], lambda: layer(x))
    with pytest.raises(TypeError, match="BatchNorm1d cannot be rescaled"):
        within([nn.BatchNorm1d(2)], lambda: layer(x))


def test_alexnet_from_random_weights_gets_activations_of_a_useful_size() -> None:
    network = absorbed(build("alexnet", width=0.125, crop=64, seed=0)).eval()
    x = torch.rand(16, 3, 64, 64, generator=seeded()) * 2 - 1
    layers = affine(network)
    assert float(network(x).detach().std()) < 1e-3
    rescale(layers, lambda: network(x), seeded())
    assert 0.3 < float(network(x).detach().std()) < 1.0


def trained(arch: str) -> Backbone:
    """Batch norm absorbed, biases and statistics as if it had learned something."""
    network = build(arch, width=0.125, crop=32, seed=0)
    g = seeded(5)
    for name, value in network.state_dict().items():
        if name.endswith("bias"):
            nn.init.normal_(value, std=0.1, generator=g)
        if name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 2.0, generator=g)
    return absorbed(network).eval()


@pytest.mark.parametrize("arch", ["alexnet", "alexnet_lrn"])
def test_layers_that_learned_are_balanced_without_changing_what_they_compute(arch: str) -> None:
    network = trained(arch)
    x = torch.rand(8, 3, 32, 32, generator=seeded()) * 2 - 1
    before = network(x).detach()
    chain = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear | Scalable)]
    assert sum(isinstance(one, Scalable) for one in chain) == (2 if "lrn" in arch else 0)
    uneven = rates(chain, lambda: network(x), seeded())
    between(chain, lambda: network(x), seeded())
    torch.testing.assert_close(network(x), before, rtol=1e-3, atol=1e-4)
    even = rates(chain, lambda: network(x), seeded())
    assert max(uneven) > 3 * min(uneven)
    assert max(even) < 1.05 * min(even)


def test_of_few_samples_a_layer_is_scaled_as_a_whole() -> None:
    layer = nn.Linear(64, 200)
    x = torch.randn(3, 64, generator=seeded())
    before = layer.weight.detach().clone()
    within([layer], lambda: layer(x))
    assert float(layer(x).detach().var(0, correction=0).mean()) == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(
        layer.weight / before, (layer.weight / before)[:1, :1].expand(200, 64)
    )
