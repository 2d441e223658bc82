"""The networks of chapter 8: their sizes, what they compute, how they start."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.alexnet_artifacts import ShiftNorm2d
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.cifarnet import CifarNet, standardized
from selfsup_cli.models.inception_small import InceptionSmall
from selfsup_cli.models.preact_resnet import PreActResNet

KINDS: dict[str, type[Backbone]] = {
    "cifarnet": CifarNet, "inception_small": InceptionSmall, "preact_resnet18": PreActResNet,
}  # fmt: skip


def blank(arch: str, crop: int, width: float = 1.0) -> Backbone:
    with torch.device("meta"):
        return KINDS[arch](Spec(arch=arch, frames=1, crop=crop, resize=(crop, crop), width=width))


@cache
def small(arch: str, crop: int = 29) -> Backbone:
    backbone = blank(arch, crop, 0.25)
    backbone.initialize(torch.Generator().manual_seed(0))
    return backbone.eval()


def images(count: int = 2, side: int = 29) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("arch", "crop", "parameters", "sides"), [
    ("cifarnet", 32, 1_756_426, {"conv1": 32, "conv2": 16}),
    ("cifarnet", 28, 1_387_786, {"conv1": 28, "conv2": 14}),
    ("inception_small", 29, 1_649_402, {"conv1": 27, "stage1": 27, "stage2": 14, "stage3": 7}),
    ("preact_resnet18", 32, 11_171_274, {
        "stem": 32, "layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4,
    }),
])  # fmt: skip
def test_sizes_are_those_of_the_thesis(
    arch: str, crop: int, parameters: int, sides: dict[str, int]
) -> None:
    backbone = blank(arch, crop)
    head = 10 * (backbone.out_features + 1)
    assert sum(p.numel() for p in backbone.parameters()) + head == parameters
    x = torch.empty(2, 3, crop, crop, device="meta")
    found = backbone.features(x, backbone.layers)
    assert {name: one.shape[2] for name, one in found.items() if one.ndim == 4} == sides
    assert backbone(x).shape == (2, backbone.out_features)
    assert backbone.embed(x).shape == (2, found[backbone.embedding].shape[1])


def test_blocks_of_inception_have_the_channels_of_its_table() -> None:
    backbone = blank("inception_small", 29)
    found = []
    for module in backbone.modules():
        module.register_forward_hook(
            lambda module, _, out: found.append((type(module).__name__, out.shape[1:]))
        )
    backbone(torch.empty(2, 3, 29, 29, device="meta"))
    blocks = [(name[1:5], *shape[:2]) for name, shape in found if name in ("_Block", "_Halving")]
    assert blocks == [
        ("Bloc", 64, 27), ("Bloc", 80, 27), ("Halv", 160, 14), ("Bloc", 160, 14),
        ("Bloc", 160, 14), ("Bloc", 160, 14), ("Bloc", 144, 14), ("Halv", 240, 7),
        ("Bloc", 336, 7), ("Bloc", 336, 7),
    ]  # fmt: skip
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(isinstance(module, ShiftNorm2d) and module.weight is None for module in norms)
    assert {(module.momentum, module.eps) for module in norms} == {(0.025, 1e-3)}
    assert all(m.bias is None for m in backbone.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("arch", KINDS)
def test_the_contract_holds_and_training_reaches_every_parameter(arch: str) -> None:
    backbone = small(arch)
    x = images()
    with torch.no_grad():
        found = backbone.features(x, backbone.layers)
        assert list(found) == list(backbone.layers)
        assert torch.equal(backbone(x), backbone.summarize(found[backbone.layers[-1]]))
        assert not torch.equal(backbone(x)[0], backbone(x)[1])
    backbone.train()
    try:
        torch.autograd.backward(backbone(images(4)).square().sum())
    finally:
        backbone.eval()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_images_are_standardised_one_by_one() -> None:
    x = images(3, 8)
    values = (x + 1) * 127.5
    x[2] = 0.25
    expected = torch.stack([(one - one.mean()) / one.std(correction=0) for one in values[:2]])
    torch.testing.assert_close(standardized(x)[:2], expected, rtol=1e-4, atol=1e-5)
    assert not standardized(x)[2].any()
    # Values that hardly differ are divided by 1 / √N, not by what they differ by.
    flat = torch.zeros(1, 3, 8, 8)
    flat[0, 0, 0, 0] = 1e-3
    spread = float(standardized(flat).max()) / (1e-3 * 127.5)
    assert spread == pytest.approx(math.sqrt(192), rel=0.01)


def test_cifarnet_computes_what_its_table_says() -> None:
    backbone = small("cifarnet", 32)
    state = backbone.state_dict()

    def normed(x: Tensor) -> Tensor:
        """Every value by the squares of four neighbours on each side."""
        out = torch.empty_like(x)
        for c in range(x.shape[1]):
            near = x[:, max(c - 4, 0) : c + 5].square().sum(1)
            out[:, c] = x[:, c] / (1 + 0.001 / 9 * near) ** 0.75
        return out

    def affine(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.affine.weight"], state[f"{name}.affine.bias"]
        y = x @ weight.T + bias if weight.ndim == 2 else F.conv2d(x, weight, bias, padding=2)
        return y.relu()

    x = images(2, 32)
    y = normed(F.max_pool2d(affine(standardized(x), "conv1"), 2))
    y = F.max_pool2d(normed(affine(y, "conv2")), 2).flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), affine(affine(y, "fc1"), "fc2"))
        backbone.train()
        assert not torch.equal(backbone(x), backbone(x))  # dropout
        backbone.eval()
    with pytest.raises(RuntimeError):
        backbone(images(2, 36))


def test_preact_blocks_compute_what_they_say() -> None:
    backbone = small("preact_resnet18")
    state = backbone.state_dict()

    def active(x: Tensor, name: str) -> Tensor:
        keys = (f"{name}.{one}" for one in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *(state[key] for key in keys)).relu()

    x = images()
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
    y = F.conv2d(((x + 1) / 2 - mean) / std, state["stem.0.weight"], padding=1)
    y = active(y, "stem.1")
    for layer in range(1, 5):
        for block, stride in ((0, 1 if layer == 1 else 2), (1, 1)):
            name = f"layer{layer}.{block}"
            a = active(y, f"{name}.norm1")
            short = f"{name}.shortcut.weight"
            shortcut = F.conv2d(a, state[short], stride=stride) if short in state else a
            y = F.conv2d(a, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(active(y, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
            y = y + shortcut
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), y.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert [f"layer{n}.0.shortcut.weight" in state for n in range(1, 5)] == [False] + 3 * [True]


def test_dropout_in_blocks_is_off_until_it_is_set() -> None:
    backbone = small("preact_resnet18")
    assert isinstance(backbone, PreActResNet)
    x = images()
    torch.manual_seed(0)
    with torch.no_grad():
        backbone.train()
        assert torch.equal(backbone(x), backbone(x))
        backbone.drop(0.3)
        assert not torch.equal(backbone(x), backbone(x))
        backbone.eval()
        assert torch.equal(backbone(x), backbone(x))
    backbone.drop(0.0)


def test_weights_start_as_listed() -> None:
    cifarnet = blank("cifarnet", 32)
    cifarnet.initialize(torch.Generator().manual_seed(0))
    inception = blank("inception_small", 29)
    inception.initialize(torch.Generator().manual_seed(0))
    for backbone in (cifarnet, inception):
        for name, module in backbone.named_modules():
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            weight = module.weight.detach()
            if backbone is inception:
                sigma = math.sqrt(2 / weight[0].numel())
            else:
                # A normal distribution that is cut at 2σ has a standard deviation of 0.880 σ.
                sigma = 0.8796 * (0.04 if isinstance(module, nn.Linear) else 0.05)
                assert module.bias is not None
                expected = 0.1 if isinstance(module, nn.Linear) else 0.0
                assert module.bias.detach().unique().tolist() == pytest.approx([expected])
            error = 5 / weight.numel() ** 0.5
            assert float(weight.std()) == pytest.approx(sigma, rel=max(error, 0.01)), name
