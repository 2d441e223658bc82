"""The discriminator as a backbone: the same function, its weights as they act, honest averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfsup_cli.errors import InputError
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.gan import Discriminator
from selfsup_cli.models.gan_backbone import backbone_of, settle


def images(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=g) * 2 - 1


@pytest.mark.parametrize(("arch", "settings", "judging"), [
    ("dcgan", {}, {}),
    ("dcgan", {"layout": "table", "activation": "tanh"}, {"layout": "table", "activation": "tanh"}),
    ("dcgan", {"norm": "layer", "depth": 2}, {"depth": 2}),
    ("sngan", {"layout": "sngan", "norm": "spectral"}, {}),
])  # fmt: skip
def test_it_computes_what_the_discriminator_did(
    arch: str, settings: dict[str, Any], judging: dict[str, Any], tmp_path: Path
) -> None:
    network = Discriminator(torch.Generator().manual_seed(0), base=8, **settings)
    for seed in range(3):  # averages and singular values of their own
        network(images(8, seed=seed))
    backbone = backbone_of(network, arch, 0.125, judging)
    save_backbone(tmp_path / "w.safetensors", backbone, {})
    network.eval()
    x = images(4)
    with torch.no_grad():
        for one in (backbone, load_backbone(tmp_path / "w.safetensors").eval()):
            torch.testing.assert_close(one(x), network.run(x).flatten(1))
            assert one.layers == network.layers
            assert one.embed(x).shape == (4, network.last.in_channels)
    assert build(**backbone.spec).spec == backbone.spec


def test_averages_are_those_of_the_images_given() -> None:
    network = Discriminator(torch.Generator().manual_seed(0), base=8)
    network(5 * images(8))
    backbone = backbone_of(network, "dcgan", 0.125, {})
    batches = [images(16, seed=seed) for seed in range(3)]
    settle(backbone, batches)
    norm = backbone.get_submodule("conv2.1")
    assert isinstance(norm, nn.BatchNorm2d)
    convolution = backbone.get_submodule("conv2.0")
    with torch.no_grad():
        seen = [convolution(backbone.features(x, ["conv1"])["conv1"]) for x in batches]
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.025
    assert not backbone.training


def test_what_it_cannot_be_is_told() -> None:
    with pytest.raises(InputError, match="no generator or discriminator of 48×48 pixels"):
        build("dcgan", crop=48)
    with pytest.raises(InputError, match="resnet18 is no discriminator"):
        build("resnet18", judging={"depth": 2})
