"""Guided gradients against NumPy and tensor hooks; the network stays as it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from selfsup_cli.config.registry import archs
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.backbone import Spec
from selfsup_cli.visualization.guided import GuidedReLUs, active_pixels, guided_gradient

SHAPE = (1, 3, 2, 2, 2)


def keep(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An in-place function whose result is taken from its argument."""

    def called(x: Tensor) -> Tensor:
        function(x)
        return x

    return called


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu, in place": lambda x: F.relu(x, inplace=True),
    "F.relu, in place by position": lambda x: F.relu(x, True),
    "F.relu, in place, result dropped": keep(lambda x: F.relu(x, inplace=True)),
    "F.relu_": keep(F.relu_),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU, in place": nn.ReLU(inplace=True),
    "nn.ReLU, in place, result dropped": keep(nn.ReLU(inplace=True)),
    "torch.relu": torch.relu,
    "torch.relu by name": lambda x: torch.relu(input=x),
    "torch.relu_": keep(torch.relu_),
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": keep(Tensor.relu_),
}


class Tiny(Backbone):
    """Two fully connected layers: what can be written down by hand."""

    layers = ("hidden", "top")
    embedding = "top"

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__(Spec(arch="tiny", frames=2), out_features=4)
        self.relu = relu
        rng = np.random.default_rng(3)
        self.first = nn.Parameter(torch.from_numpy(rng.standard_normal((6, 24))))
        self.second = nn.Parameter(torch.from_numpy(rng.standard_normal((4, 6))))

    def hidden(self, x: Tensor) -> Tensor:
        return self.relu(x.flatten(1) @ self.first.T)

    def top(self, x: Tensor) -> Tensor:
        return self.relu(x @ self.second.T)


def clip(seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, SHAPE))


def by_hand(network: Tiny, x: Tensor, unit: str | int, *, guided: bool = True) -> np.ndarray:
    """The gradient of ½ Σ a² of the top layer, stated without automatic differentiation."""
    first, second = network.first.detach().numpy(), network.second.detach().numpy()
    flat = x.numpy().reshape(-1)
    hidden = np.maximum(first @ flat, 0)
    top = np.maximum(second @ hidden, 0)
    chosen = np.zeros(4)
    if unit == "all":
        chosen[:] = 1
    else:
        chosen[int(np.argmax(top)) if unit == "strongest" else int(unit)] = 1
    at_hidden = second.T @ (chosen * top)
    if guided:
        at_hidden = np.where(at_hidden > 0, at_hidden, 0)
    return (first.T @ np.where(hidden > 0, at_hidden, 0)).reshape(SHAPE)


@pytest.mark.parametrize("unit", ["all", "strongest", 0, 3])
@pytest.mark.parametrize("relu", RELUS)
def test_the_gradient_is_that_of_the_definition(relu: str, unit: str | int) -> None:
    network, x = Tiny(RELUS[relu]), clip()
    guided = by_hand(network, x, unit)
    got = guided_gradient(network, x, unit=unit)  # type: ignore[arg-type]
    np.testing.assert_allclose(got.numpy(), guided, rtol=1e-12, atol=1e-12)
    if unit in ("all", "strongest"):
        assert np.abs(guided - by_hand(network, x, unit, guided=False)).max() > 0.1


def test_a_lower_layer_is_seen_by_itself() -> None:
    network, x = Tiny(F.relu), clip()
    first = network.first.detach().numpy()
    hidden = np.maximum(first @ x.numpy().reshape(-1), 0)
    expected = (first.T @ hidden).reshape(SHAPE)
    np.testing.assert_allclose(guided_gradient(network, x, layer="hidden").numpy(), expected)


def test_clips_of_a_batch_do_not_mix() -> None:
    network = Tiny(F.relu)
    both = guided_gradient(network, torch.cat([clip(1), clip(2)]), unit="strongest")
    for k, seed in enumerate((1, 2)):
        one = guided_gradient(network, clip(seed), unit="strongest")
        torch.testing.assert_close(both[k : k + 1], one)


def small(arch: str) -> Backbone:
    width = 0.125 if arch in ("c3d", "r3d", "r2plus1d") else 1.0
    return build(arch, width=width, frames=8, crop=24, resize=(32, 32), seed=1)


@pytest.mark.parametrize("arch", archs("video"))
def test_every_network_is_guided_at_each_of_its_relus(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small(arch)
    x = torch.rand(1, 3, 8, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = guided_gradient(network, x)

    calls = itertools.count()

    def hooked(x: Tensor, inplace: bool = False) -> Tensor:
        next(calls)
        y = torch.relu(x)
        y.register_hook(lambda gradient: gradient.clamp(min=0))
        return y

    monkeypatch.setattr(F, "relu", hooked)
    leaf = x.clone().requires_grad_()
    active = network.eval().features(leaf, [network.embedding])[network.embedding]
    (expected,) = torch.autograd.grad(active.square().sum() / 2, leaf)
    assert next(calls) >= 5
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("arch", ["c3d", "r3d_18"])
def test_the_network_is_afterwards_what_it_was(arch: str) -> None:
    network = small(arch).train()
    frozen = next(one for one in network.modules() if isinstance(one, nn.BatchNorm3d))
    frozen.eval()
    modes = [one.training for one in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.rand(2, 3, 8, 24, 24) * 2 - 1

    def plain() -> Tensor:
        leaf = x.clone().requires_grad_()
        total = network.features(leaf, ["conv2" if arch == "c3d" else "layer1"])
        return torch.autograd.grad(next(iter(total.values())).sum(), leaf)[0]

    network.eval()
    gradient = plain()
    for one, mode in zip(network.modules(), modes, strict=True):
        one.training = mode
    guided_gradient(network, x)
    with pytest.raises(InputError, match="conv9"):
        guided_gradient(network, x, layer="conv9")
    assert [one.training for one in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())
    assert not x.requires_grad
    network.eval()
    torch.testing.assert_close(plain(), gradient)


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        got = guided_gradient(Tiny(F.relu), clip())
        assert not torch.is_grad_enabled()
    np.testing.assert_allclose(got.numpy(), by_hand(Tiny(F.relu), clip(), "all"))


def test_the_values_of_a_relu_stay_the_same() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0, float("nan"), float("inf")])
    with GuidedReLUs() as relus:
        got = F.relu(x)
    torch.testing.assert_close(got, torch.relu(x), equal_nan=True)
    assert relus.count == 1


def test_a_unit_or_layer_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="--unit 4: top has 4 channels, counted from 0"):
        guided_gradient(Tiny(F.relu), clip(), unit=4)
    with pytest.raises(InputError, match="unknown layer 'bottom'"):
        guided_gradient(Tiny(F.relu), clip(), layer="bottom")


def test_a_network_without_relus_is_refused() -> None:
    with pytest.raises(ValueError, match="no ReLU"):
        guided_gradient(Tiny(torch.tanh), clip())


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 2), st.just(3), *[st.integers(1, 4)] * 3),
        elements=st.floats(-10, 10),
    )
)
def test_active_pixels_are_distances_from_the_median_of_their_frame(gradient: np.ndarray) -> None:
    got = active_pixels(torch.from_numpy(gradient)).numpy()
    for b, t in np.ndindex(gradient.shape[0], gradient.shape[2]):
        frame = gradient[b, :, t]
        np.testing.assert_allclose(got[b, :, t], np.abs(frame - np.median(frame)), atol=1e-12)


def test_what_is_the_same_everywhere_in_a_frame_is_not_shown() -> None:
    gradient = torch.arange(5.0)[:, None, None].expand(3, 5, 8, 8).clone()
    gradient[0, 2, 3, 4] += 7
    shown = active_pixels(gradient)
    assert shown[0, 2, 3, 4] == 7
    assert float(shown.sum()) == 7
