"""Batch norm that becomes part of the layers before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build, load_backbone, save_backbone
from selfsup_cli.models.absorb import absorbed
from selfsup_cli.models.unpadded import unpadded

SMALL: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 0.125},
    "alexnet_lrn": {"width": 0.125},
    "resnet18": {},
    "timm/resnet10t": {},
    "c3d": {"width": 0.125, "frames": 4, "resize": (32, 32)},
}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def trained(arch: str, **values: Any) -> Backbone:
    """A network whose batch norm has learned something, in evaluation mode."""
    network = build(arch, **{"crop": 32, "seed": 0, **SMALL.get(arch, {}), **values})
    g = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, NORMS):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3, generator=g)
            nn.init.uniform_(module.running_var, 0.3, 3.0, generator=g)
            nn.init.normal_(module.bias, std=0.3, generator=g)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=g)
    network.trained_on = {"data": "scenes"}
    return network.eval()


def inputs(network: Backbone) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.rand(2, *network.input.shape, generator=g) * 2 - 1


@pytest.mark.parametrize("arch", list(SMALL))
def test_every_layer_gives_the_same_without_batch_norm(arch: str) -> None:
    network = trained(arch)
    other = absorbed(network)
    assert not any(isinstance(one, NORMS) for one in other.modules())
    assert any(isinstance(one, NORMS) for one in network.modules())
    assert (other.spec, other.trained_on) == (
        {**network.spec, "absorbed": True},
        {"data": "scenes"},
    )
    x = inputs(network)
    with torch.no_grad():
        wanted = {**network.features(x, network.layers), "": network(x)}
        found = {**other.features(x, other.layers), "": other(x)}
    for name, value in wanted.items():
        largest = float(value.abs().max())
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5 * largest)
    # Nothing looks at a batch, so the mode does not matter to what was normalised.
    if "timm" not in arch:
        torch.testing.assert_close(other.train()(x), other.eval()(x))
    assert absorbed(other) is other


def test_weights_and_biases_are_those_of_the_formula() -> None:
    network = trained("alexnet")
    layer: Any = network.get_submodule("conv2")
    norm = layer.norm
    other: Any = absorbed(network).get_submodule("conv2.conv")
    for c in (0, 7):
        scale = float(norm.weight[c].detach()) / (float(norm.running_var[c]) + norm.eps) ** 0.5
        torch.testing.assert_close(other.weight[c], layer.conv.weight[c] * scale)
        shift = float(norm.bias[c].detach()) - float(norm.running_mean[c]) * scale
        assert float(other.bias[c].detach()) == pytest.approx(shift, rel=1e-5)


@pytest.mark.parametrize("arch", ["alexnet_lrn", "timm/resnet10t"])
def test_it_stays_so_when_saved_and_built_anew(arch: str, tmp_path: Path) -> None:
    network = absorbed(trained(arch))
    save_backbone(tmp_path / "w.safetensors", network, {})
    loaded = load_backbone(tmp_path / "w.safetensors").eval()
    x = inputs(network)
    assert torch.equal(loaded(x), network(x))
    below, above = loaded.parts(loaded.layers[0])
    assert below
    assert above
    again = build(**network.spec, seed=3).eval()
    assert again.state_dict().keys() == network.state_dict().keys()
    assert torch.isfinite(again(x)).all()


def test_convolutions_are_unpadded_without_batch_norm_as_well() -> None:
    network = trained("alexnet")
    x = torch.rand(1, 3, 67, 67, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = unpadded(network, 67)(x)
    torch.testing.assert_close(unpadded(absorbed(network), 67)(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("timm/vit_tiny_patch16_224", "has no batch norm that its layers could absorb"),
        ("timm/resnetv2_18", "does not follow one convolution or linear layer"),
        ("r2plus1d", "does not follow one convolution or linear layer"),
    ],
)
def test_what_cannot_be_absorbed_is_named(arch: str, said: str) -> None:
    video: dict[str, Any] = {"width": 0.125, "frames": 4, "resize": (32, 32)}
    network = build(arch, crop=32, seed=0, **(video if arch == "r2plus1d" else {}))
    with pytest.raises(InputError, match=f"absorb_bn: .*{said}"):
        absorbed(network)
