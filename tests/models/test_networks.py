from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from selfsup_cli.config.registry import ARCHS, archs
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, LinearHead, build
from selfsup_cli.models.layers import FactorizedConv3d, SameConv3d, TemporalConv3d

THESIS = ("c3d", "r3d", "r2plus1d")
TORCHVISION = ("r3d_18", "mc3_18", "r2plus1d_18")


def small(arch: str, **values: Any) -> Backbone:
    width = {"width": 0.125} if arch in THESIS else {}
    return build(arch, **{"seed": 0, "frames": 8, "crop": 32, **width, **values})


def clip(b: int = 2, t: int = 8, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, t, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("arch", "shortcut", "parameters"),
    [
        ("c3d", "standard", 17_259_464),
        ("r3d", "standard", 31_824_456),
        ("r3d", "projected", 32_178_760),
        ("r2plus1d", "standard", 15_375_752),
        ("r2plus1d", "projected", 15_730_056),
    ],
)
def test_parameters_are_those_of_the_thesis(arch: str, shortcut: str, parameters: int) -> None:
    backbone = build(arch, shortcut=shortcut, seed=0)
    assert count(backbone, LinearHead(backbone.out_features, 8)) == parameters


SHAPES: dict[str, tuple[int, dict[str, tuple[int, ...]], tuple[int, ...]]] = {
    "c3d": (
        112,
        {
            "conv1": (16, 112, 112),
            "conv2": (16, 56, 56),
            "conv3": (8, 28, 28),
            "conv4": (4, 14, 14),
            "conv5": (2, 7, 7),
            "fc1": (),
            "fc2": (),
        },
        (64, 128, 256, 256, 256, 2048, 2048),
    ),
    "r3d": (
        128,
        {
            "stem": (16, 64, 64),
            "layer1": (16, 31, 31),
            "layer2": (16, 16, 16),
            "layer3": (8, 8, 8),
            "layer4": (4, 4, 4),
        },
        (64, 64, 128, 256, 512),
    ),
    "r2plus1d": (
        128,
        {
            "stem": (16, 64, 64),
            "layer1": (16, 64, 64),
            "layer2": (8, 32, 32),
            "layer3": (4, 16, 16),
            "layer4": (2, 8, 8),
        },
        (64, 64, 128, 256, 512),
    ),
}


@pytest.mark.parametrize("arch", THESIS)
def test_every_layer_has_the_shape_of_its_table(arch: str) -> None:
    crop, sizes, channels = SHAPES[arch]
    with torch.device("meta"):
        x = torch.empty(3, 3, 16, crop, crop)
    backbone = build(arch, crop=crop, seed=0).to("meta")
    found = backbone.features(x, backbone.layers)
    assert tuple(found) == tuple(sizes)
    for (name, size), width in zip(sizes.items(), channels, strict=True):
        assert found[name].shape == (3, width, *size), name
    assert backbone(x).shape == (3, channels[-1])


@pytest.mark.parametrize("arch", archs("video"))
def test_the_registry_tells_the_truth(arch: str) -> None:
    backbone = small(arch).eval()
    about = ARCHS[arch]
    assert about.kind == "video"
    assert backbone.arch == arch
    assert backbone.layers == about.layers
    assert backbone.embedding == about.embedding
    x = clip()
    with torch.no_grad():
        found = backbone.features(x, backbone.layers)
        embedding = backbone.embed(x)
        out = backbone(x)
    assert list(found) == list(about.layers)
    assert all((value >= 0).all() and value.std() > 0 for value in found.values())
    deepest = found[about.embedding].flatten(2).mean(2)
    assert torch.allclose(embedding, deepest, atol=1e-6)
    assert out.shape == (2, backbone.out_features)
    if arch == "c3d":
        assert torch.equal(out, found["fc2"])
    elif arch != "r2plus1d":
        assert torch.allclose(out, deepest, atol=1e-6)


@pytest.mark.parametrize("arch", ["c3d", "r3d"])
def test_features_come_in_the_order_asked_for_and_run_no_deeper(arch: str) -> None:
    backbone = small(arch).eval()
    ran = []
    for name in backbone.layers:
        stage = backbone.get_submodule(name)
        stage.register_forward_hook(lambda *_, name=name: ran.append(name))
    third, first = backbone.layers[2], backbone.layers[0]
    found = backbone.features(clip(), [third, first])
    assert list(found) == [third, first]
    assert ran == list(backbone.layers[:3])
    ran.clear()
    assert backbone.features(clip(), []) == {}
    assert ran == []


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'con4' \(did you mean 'conv4'"):
        small("c3d").features(clip(), ["con4"])


@pytest.mark.parametrize("arch", archs("video"))
def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone(arch: str) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, again, other = small(arch, seed=1), small(arch, seed=1), small(arch, seed=2)
    small(arch, seed=None)
    assert torch.equal(torch.random.get_rng_state(), state)
    differs = 0
    for name, value in first.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, again.state_dict()[name]), name
        differs += not torch.equal(value, other.state_dict()[name])
    assert differs == sum(
        isinstance(m, nn.Conv3d | nn.Linear) and not isinstance(m, TemporalConv3d)
        for m in first.modules()
    )


def test_without_a_seed_weights_differ() -> None:
    first, second = small("c3d", seed=None), small("c3d", seed=None)
    name = "conv1.conv.weight"
    assert not torch.equal(first.get_parameter(name), second.get_parameter(name))


@pytest.mark.parametrize("arch", archs("video"))
def test_spec_rebuilds_the_same_network(arch: str) -> None:
    backbone = small(arch, resize=(40, 48))
    again = build(**backbone.spec, seed=0)
    assert again.spec == backbone.spec
    assert again.input == backbone.input
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize("arch", THESIS)
def test_weights_are_xavier_uniform_and_norms_start_as_the_identity(arch: str) -> None:
    backbone = build(arch, width=0.25, frames=8, crop=32, seed=0)
    for module in backbone.modules():
        if isinstance(module, TemporalConv3d):
            continue
        if isinstance(module, nn.Conv3d | nn.Linear):
            receptive = math.prod(module.weight.shape[2:])
            fan = (module.weight.shape[0] + module.weight.shape[1]) * receptive
            bound = math.sqrt(6 / fan)
            assert module.weight.abs().max() <= bound
            spread = 6 * bound / math.sqrt(3 * module.weight.numel())
            drawn = float(module.weight.detach().std())
            assert drawn == pytest.approx(bound / math.sqrt(3), abs=spread)
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
            state = {
                name: set(value.flatten().tolist()) for name, value in module.state_dict().items()
            }
            assert state == {
                "weight": {1},
                "bias": {0},
                "running_mean": {0},
                "running_var": {1},
                "num_batches_tracked": {0},
            }
            expected = (0.025, 1e-3) if arch == "c3d" else (0.003, 1e-5)
            assert (module.momentum, module.eps) == expected


@pytest.mark.parametrize("arch", TORCHVISION)
def test_torchvision_networks_compute_what_torchvision_computes(arch: str) -> None:
    reference = getattr(torchvision.models.video, arch)(weights=None, num_classes=5).eval()
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    backbone = small(arch)
    drawn = backbone.state_dict()
    # Same scheme of initialisation: the spread of every convolution agrees.
    for name, value in weights.items():
        assert value.shape == drawn[name].shape
        if value.ndim == 5:
            spread = float(value.std()) * 8 / math.sqrt(value.numel())
            assert float(drawn[name].std()) == pytest.approx(float(value.std()), abs=spread)
    backbone.load_state_dict(weights)
    backbone.eval()
    head = LinearHead(backbone.out_features, 5)
    head.load_state_dict(reference.fc.state_dict())
    with torch.no_grad():
        assert torch.allclose(head(backbone(clip())), reference(clip()), atol=1e-5)


@pytest.mark.parametrize("size", [(4, 12, 12), (5, 13, 14), (1, 7, 9)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        ((1, 7, 7), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
        ((1, 1, 1), (1, 2, 2)),
    ],
)
def test_same_padding_puts_the_odd_zero_at_the_end(
    size: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    x = torch.randn(2, 3, *size)
    conv = SameConv3d(3, 4, kernel, stride, bias=True)
    padding: list[int] = []
    for n, k, s in zip(size, kernel, stride, strict=True):
        outputs = math.ceil(n / s)
        total = max((outputs - 1) * s + k - n, 0)
        padding = [total // 2, total - total // 2, *padding]
    expected = F.conv3d(F.pad(x, padding), conv.weight, conv.bias, stride)
    out = conv(x)
    assert out.shape[2:] == tuple(math.ceil(n / s) for n, s in zip(size, stride, strict=True))
    assert torch.allclose(out, expected, atol=1e-5)


def test_the_stem_pads_two_zeros_before_and_three_after() -> None:
    conv = SameConv3d(3, 2, (1, 7, 7), (1, 2, 2))
    x = torch.randn(1, 3, 2, 128, 128)
    expected = F.conv3d(F.pad(x, (2, 3, 2, 3)), conv.weight, stride=(1, 2, 2))
    assert torch.allclose(conv(x), expected, atol=1e-5)
    symmetric = F.conv3d(x, conv.weight, stride=(1, 2, 2), padding=(0, 3, 3))
    assert not torch.allclose(conv(x), symmetric, atol=1e-2)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_along_time_start_as_the_identity(stride: int) -> None:
    backbone = small("r2plus1d")
    temporal = [m for m in backbone.modules() if isinstance(m, TemporalConv3d)]
    assert len(temporal) == 17
    assert {m.stride[0] for m in temporal} == {1, 2}
    for module in backbone.modules():
        if not isinstance(module, FactorizedConv3d) or module.temporal.stride[0] != stride:
            continue
        x = torch.randn(1, module.spatial.in_channels, 6, 10, 10)
        spatial = F.relu(module.spatial(x))
        # An even length halved pads at the end only: the centre taps lie on the odd frames.
        expected = spatial if stride == 1 else spatial[:, :, 1::2]
        assert torch.equal(module(x), expected)


def test_r2plus1d_ends_in_a_norm_of_the_mean() -> None:
    backbone = small("r2plus1d")
    out = backbone(clip(8))
    assert torch.allclose(out.mean(0), torch.zeros(()), atol=1e-4)
    mean = backbone.embed(clip(8))
    norm = backbone.get_submodule("norm")
    expected = (mean - mean.mean(0)) / torch.sqrt(mean.var(0, unbiased=False) + 1e-5)
    assert torch.allclose(norm(mean), expected, atol=1e-3)


@pytest.mark.parametrize("shortcut", ["standard", "projected"])
def test_shortcuts_project_where_they_must_or_everywhere(shortcut: str) -> None:
    backbone = small("r3d", shortcut=shortcut)
    projections = [
        n for n, _ in backbone.named_parameters() if "shortcut" in n and n.endswith("0.weight")
    ]
    assert len(projections) == (3 if shortcut == "standard" else 8)


@pytest.mark.parametrize(("frames", "crop"), [(16, 40), (8, 112), (17, 33), (16, 16)])
def test_c3d_fits_its_fully_connected_layers_to_the_clip(frames: int, crop: int) -> None:
    backbone = build("c3d", width=0.0625, frames=frames, crop=crop, seed=0).eval()
    assert backbone(clip(1, frames, crop)).shape == (1, 128)
    with pytest.raises(ValueError, match="clips of the length and crop"):
        backbone(clip(1, frames, 4 * crop))


def test_c3d_pools_keep_the_last_pixel_of_odd_sizes() -> None:
    backbone = build("c3d", width=0.0625, frames=16, crop=112, seed=0).eval()
    x = torch.zeros(1, 16, 2, 7, 7)
    x[..., -1, -1] = 1
    pooled = backbone.get_submodule("fc1").get_submodule("pool")(x)
    assert pooled.shape[2:] == (1, 4, 4)
    assert pooled[0, :, 0, 3, 3].min() == 1
    assert pooled.sum() == 16


@pytest.mark.parametrize("arch", archs("video"))
def test_training_reaches_every_parameter(arch: str) -> None:
    backbone = small(arch).train()
    head = LinearHead(backbone.out_features, 3)
    nn.init.normal_(head.weight)
    loss = F.cross_entropy(head(backbone(clip(4))), torch.tensor([0, 1, 2, 0]))
    torch.autograd.backward(loss)
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("arch", THESIS)
def test_compiles_as_one_graph(arch: str) -> None:
    backbone = small(arch).train()
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    reference = small(arch).train()
    assert torch.allclose(compiled(clip(4)), reference(clip(4)), atol=1e-5)


@pytest.mark.parametrize("arch", ["c3d", "r3d", "r2plus1d"])
def test_memory_layout_changes_nothing(arch: str) -> None:
    backbone = small(arch).eval()
    with torch.no_grad():
        expected = backbone(clip())
        backbone.to(memory_format=torch.channels_last_3d)
        out = backbone(clip().to(memory_format=torch.channels_last_3d))
    assert torch.allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("arch", archs("video"))
def test_autocast_traces(arch: str) -> None:
    backbone = small(arch).eval().to("meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = backbone(clip().to("meta"))
    assert out.shape == (2, backbone.out_features)


def test_widths_are_multiples_of_eight() -> None:
    for width, first in ((0.01, 8), (0.125, 8), (0.25, 16), (0.3, 16), (2.0, 128)):
        with torch.device("meta"):
            x = torch.empty(1, 3, 8, 32, 32)
        backbone = build("r3d", width=width, seed=0).to("meta")
        assert backbone.features(x, ["stem"])["stem"].shape[1] == first


@pytest.mark.parametrize(
    ("arch", "values", "message"),
    [
        ("cd3", {}, "unknown arch 'cd3' .did you mean 'c3d'"),
        ("c3d", {"width": 0}, "no such network: width: .* greater than 0"),
        ("c3d", {"width": float("nan")}, "no such network: width"),
        ("c3d", {"frames": 0}, "no such network: frames"),
        ("c3d", {"crop": 8, "frames": "16"}, "no such network: frames: .*; crop: "),
        ("r3d", {"shortcut": "none"}, "no such network: shortcut"),
        ("c3d", {"shortcut": "projected"}, "c3d has only its standard shortcuts"),
        ("r3d_18", {"shortcut": "projected"}, "r3d_18 has only its standard shortcuts"),
        ("r3d_18", {"width": 0.5}, "width: the channels of r3d_18 are fixed"),
    ],
)
def test_what_is_no_network_is_refused(arch: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(arch, **values)


def test_a_linear_head_starts_small() -> None:
    g = torch.Generator().manual_seed(0)
    state = torch.random.get_rng_state()
    head = LinearHead(512, 101, generator=g)
    assert torch.equal(torch.random.get_rng_state(), state)
    again = LinearHead(512, 101, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.weight, again.weight)
    assert float(head.weight.detach().std()) == pytest.approx(1e-3, rel=0.02)
    assert (head.bias == 0).all()
    assert head(torch.randn(4, 512)).shape == (4, 101)
    assert not torch.equal(LinearHead(8, 8).weight, LinearHead(8, 8).weight)


def test_the_last_layer_of_c3d_starts_from_xavier() -> None:
    head = LinearHead(512, 8, xavier=True, generator=torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / (512 + 8))
    assert float(head.weight.abs().max()) <= bound
    assert float(head.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not head.bias.any()
