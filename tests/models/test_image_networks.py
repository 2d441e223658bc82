"""The networks of images: AlexNet of chapter 4, torchvision's ResNets, any of timm's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from selfsup_cli.config.registry import ARCHS, archs, find_arch
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, LinearHead, build, load_backbone, save_backbone
from selfsup_cli.models.backbone import Spec
from selfsup_cli.models.building import construct
from selfsup_cli.models.classifier import Classifier, HeadSpec
from selfsup_cli.models.layers import SameConv2d, SameMaxPool2d
from selfsup_cli.models.unpadded import unpadded
from selfsup_cli.randomness import lent

CONVNEXT, VIT, LEVIT = (
    "timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/levit_128s",
)  # fmt: skip
SAMPLE = (*archs("image"), CONVNEXT, VIT)
JUDGES = ("dcgan", "sngan")


def small(arch: str, **values: Any) -> Backbone:
    width = {"width": 0.125} if "alexnet" in arch or arch in JUDGES else {}
    return build(arch, **{"seed": 0, "crop": 32, **width, **values})


def images(b: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("crop", "parameters"), [
    (64, 35_930_854), (96, 56_902_374), (128, 86_262_502),
])  # fmt: skip
def test_parameters_of_alexnet_are_those_of_the_thesis(crop: int, parameters: int) -> None:
    backbone = construct(Spec(arch="alexnet", frames=1, crop=crop))
    assert count(backbone, LinearHead(backbone.out_features, 6)) == parameters


@pytest.mark.parametrize(("padding", "crop", "sides"), [
    ("same", 64, (16, 8, 4, 4, 4)),
    ("same", 96, (24, 12, 6, 6, 6)),
    ("same", 128, (32, 16, 8, 8, 8)),
    ("valid", 227, (55, 27, 13, 13, 13)),
])  # fmt: skip
def test_every_layer_of_alexnet_has_the_shape_of_its_table(
    padding: str, crop: int, sides: tuple[int, ...]
) -> None:
    backbone = construct(Spec.model_validate(
        {"arch": "alexnet", "padding": padding, "frames": 1, "crop": crop}
    ))  # fmt: skip
    x = torch.empty(2, 3, crop, crop, device="meta")
    found = [tuple(one.shape[1:]) for one in backbone.features(x, backbone.layers).values()]
    maps = list(zip((96, 256, 384, 384, 256), sides, sides, strict=True))
    assert found == (maps if padding == "valid" else [*maps, (4096,), (4096,)])
    assert backbone(x).shape == (2, 256 if padding == "valid" else 4096)


def test_the_convolutions_without_padding_are_the_same_ones() -> None:
    backbone = small("alexnet", crop=64).eval()
    backbone.trained_on = {"data": "scenes"}
    other = unpadded(backbone, 99)
    assert (other.arch, other.trained_on, other.training) == ("alexnet", {"data": "scenes"}, False)
    assert (other.input.crop, other.spec["padding"]) == (99, "valid")
    assert other.layers == backbone.layers[:5]
    weights = [value for name, value in backbone.state_dict().items() if "conv.weight" in name]
    geometry = [(4, 0, 1), (1, 2, 2), (1, 1, 1), (1, 1, 2), (1, 1, 2)]
    x = images(2, 99)
    y = other.arrange(x)
    with torch.no_grad():
        found = other.features(x, other.layers)
        layers = zip(found, weights, geometry, strict=True)
        for index, (name, weight, (stride, padding, groups)) in enumerate(layers):
            y = F.max_pool2d(y, 3, 2) if index in (1, 2) else y
            y = F.relu(F.conv2d(y, weight, None, stride, padding, groups=groups) / 1.001**0.5)
            torch.testing.assert_close(found[name], y, rtol=1e-4, atol=1e-5)
        assert torch.equal(other(x), other.embed(x))
        assert other(x).shape == (2, other.out_features)
        other.get_parameter("conv1.conv.weight").zero_()
    assert weights[0].abs().sum() > 0
    with pytest.raises(InputError, match="resnet18 has only its own padding"):
        unpadded(small("resnet18"))


def test_unpadded_convolutions_are_saved_and_take_a_standard_head(tmp_path: Path) -> None:
    other = unpadded(small("alexnet"), 227)
    path = tmp_path / "w.safetensors"
    save_backbone(path, other, {})
    assert load_backbone(path).spec == other.spec
    head = HeadSpec(kind="fc", outputs=20, hidden=[8, 8])
    network = Classifier(other, head, generator=torch.Generator().manual_seed(0))
    assert network.hidden[0].linear.in_features == 32 * 6 * 6  # type: ignore[union-attr]


def test_alexnet_computes_what_its_table_says() -> None:
    """All layers again, with the zeros and minus infinities of padding SAME written out."""
    backbone = small("alexnet", crop=64).eval()
    state = backbone.state_dict()
    for name in state:
        if name.endswith(("running_mean", "running_var", "norm.weight", "norm.bias")):
            state[name].uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))

    def norm(x: Tensor, name: str) -> Tensor:
        statistics = (state[f"{name}.norm.running_{one}"] for one in ("mean", "var"))
        affine = (state[f"{name}.norm.{one}"] for one in ("weight", "bias"))
        return F.relu(F.batch_norm(x, *statistics, *affine, eps=1e-3))

    def streams(x: Tensor, name: str, pad: int) -> Tensor:
        parts = zip(x.chunk(2, 1), state[f"{name}.conv.weight"].chunk(2), strict=True)
        return torch.cat([F.conv2d(part, weight, padding=pad) for part, weight in parts], 1)

    def pool(x: Tensor) -> Tensor:
        assert x.shape[2] % 2 == 0
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)

    x = images(3, 64)
    mean = torch.tensor([123.68, 116.78, 103.94]).view(3, 1, 1)
    y = F.pad((x + 1) * 127.5 - mean, (3, 4, 3, 4))
    expected = {"conv1": norm(F.conv2d(y, state["conv1.conv.weight"], stride=4), "conv1")}
    expected["conv2"] = norm(streams(pool(expected["conv1"]), "conv2", 2), "conv2")
    conv3 = F.conv2d(pool(expected["conv2"]), state["conv3.conv.weight"], padding=1)
    expected["conv3"] = norm(conv3, "conv3")
    expected["conv4"] = norm(streams(expected["conv3"], "conv4", 1), "conv4")
    expected["conv5"] = norm(streams(expected["conv4"], "conv5", 1), "conv5")
    flat = expected["conv5"].flatten(1)
    expected["fc1"] = norm(flat @ state["fc1.linear.weight"].T, "fc1")
    expected["fc2"] = norm(expected["fc1"] @ state["fc2.linear.weight"].T, "fc2")
    with torch.no_grad():
        found = backbone.features(x, backbone.layers)
        assert torch.equal(backbone(x), found["fc2"])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_norms_and_weights_of_alexnet_start_as_listed() -> None:
    backbone = build("alexnet", width=0.5, crop=64, seed=0)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [(m.momentum, m.eps, m.affine) for m in norms] == [(0.025, 1e-3, True)] * 7
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            sigma = 0.005 if isinstance(module, nn.Linear) else 0.01
            weight = module.weight.detach()
            assert module.bias is None
            assert float(weight.abs().max()) <= 2 * sigma
            # A normal distribution that is cut at 2σ has a standard deviation of 0.880 σ.
            assert float(weight.std()) == pytest.approx(0.8796 * sigma, rel=0.02)
            assert float(weight.mean()) == pytest.approx(0, abs=5 * sigma / weight.numel() ** 0.5)


def test_the_last_layer_can_start_as_alexnets() -> None:
    head = LinearHead(4096, 6, truncated=0.005, generator=torch.Generator().manual_seed(0))
    assert 0.0099 < float(head.weight.detach().abs().max()) <= 0.01
    assert not head.bias.any()


@pytest.mark.parametrize("side", [4, 7, 16, 55])
def test_pools_are_padded_like_the_authors(side: int) -> None:
    x = torch.randn(2, 3, side, side + 1)
    expected = x
    for axis, size in ((3, side + 1), (2, side)):
        zeros = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        before = zeros // 2
        pad = (before, zeros - before) if axis == 3 else (0, 0, before, zeros - before)
        expected = F.pad(expected, pad, value=-torch.inf)
    assert torch.equal(SameMaxPool2d()(x), F.max_pool2d(expected, 3, 2))


@pytest.mark.parametrize("side", [64, 96, 227])
def test_the_first_convolution_pads_more_at_the_end(side: int) -> None:
    conv = SameConv2d(3, 2, 11, 4)
    x = images(1, side)
    zeros = (-(-side // 4) - 1) * 4 + 11 - side
    before = zeros // 2
    pad = (before, zeros - before) * 2
    assert torch.allclose(conv(x), F.conv2d(F.pad(x, pad), conv.weight, stride=4), atol=1e-5)
    assert (pad == (3, 4, 3, 4)) is (side != 227)


def test_the_convolutions_of_alexnet_take_other_sizes_but_not_the_rest() -> None:
    backbone = small("alexnet", crop=64).eval()
    with torch.no_grad():
        assert backbone.embed(images(1, 96)).shape == (1, 32)
        with pytest.raises(ValueError, match="only crops of the size"):
            backbone(images(1, 96))


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_resnets_compute_what_torchvision_computes(arch: str) -> None:
    reference = getattr(torchvision.models, arch)(weights=None, num_classes=5).eval()
    backbone = small(arch)
    drawn = backbone.state_dict()
    weights = {}
    for name in drawn:
        weights[name] = reference.state_dict()[name.removeprefix("stem.")]
        if weights[name].ndim == 4:
            # Same scheme of initialisation: the spread of every convolution agrees.
            spread = float(weights[name].std()) * 8 / weights[name].numel() ** 0.5
            same = pytest.approx(float(weights[name].std()), abs=spread)
            assert float(drawn[name].std()) == same, name
    assert len(weights) == len(reference.state_dict()) - 2
    backbone.load_state_dict(weights)
    backbone.eval()
    x = images(2, 40)
    with torch.no_grad():
        assert torch.allclose(reference.fc(backbone(x)), reference(x), atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0"])
def test_timms_networks_compute_what_timm_computes(name: str) -> None:
    given = {"img_size": 32} if name.startswith("vit") else {}
    reference = timm.create_model(name, pretrained=False, num_classes=0, **given).eval()
    backbone = small(f"timm/{name}").eval()
    backbone.load_state_dict({f"network.{k}": v for k, v in reference.state_dict().items()})
    assert backbone.layers == tuple(one["module"] for one in reference.feature_info)
    x = images(2)
    maps = []
    for layer in backbone.layers:
        module = reference.get_submodule(layer)
        module.register_forward_hook(lambda _, __, out: maps.append(out))
    with torch.no_grad():
        assert torch.equal(backbone(x), reference(x))
        found = backbone.features(x, backbone.layers[::-1])
    assert list(found) == list(backbone.layers[::-1])
    for layer, seen in zip(backbone.layers, maps, strict=True):
        if name.startswith("vit"):  # without the class token, in the order of the image
            seen = seen[:, 1:].transpose(1, 2).unflatten(2, (2, 2))
        torch.testing.assert_close(found[layer], seen)


def test_convnext_tiny_is_built_by_its_name() -> None:
    backbone = small("timm/convnext_tiny", crop=64).eval()
    assert backbone.out_features == 768
    with torch.no_grad():
        found = backbone.features(images(1, 64), backbone.layers)
    assert [tuple(one.shape[1:]) for one in found.values()] == [
        (96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2),
    ]  # fmt: skip
    assert count(backbone) == 27_820_128


@pytest.mark.parametrize(("name", "message"), [
    ("timm/convnext_tinny", "timm has no network 'convnext_tinny'; did you mean timm/convnext_t"),
    ("timm/hf-hub:someone/model", "unknown arch 'timm/hf-hub:someone/model'"),
    ("timm/", "unknown arch 'timm/'"),
])  # fmt: skip
def test_what_timm_has_not_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, seed=0)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("name", "crop"), [
    ("timm/vgg11", 16), ("timm/coatnet_nano_rw_224", 40), ("timm/xcit_nano_12_p16_224", 20),
])  # fmt: skip
def test_a_crop_that_a_network_of_timm_cannot_take_is_refused(name: str, crop: int) -> None:
    message = rf"{name} cannot be built for images of {crop}×{crop} pixels \(\S"
    with pytest.raises(InputError, match=message):
        build(name, crop=crop, seed=0)


@pytest.mark.parametrize(("name", "crop", "near"), [
    ("vit_tiny_patch16_224", 60, "48 or 64"), ("vit_tiny_patch16_224", 65, "64 or 80"),
    ("deit3_small_patch16_224", 40, "32 or 48"),
])  # fmt: skip
def test_a_crop_whose_edge_no_patch_covers_is_refused(name: str, crop: int, near: str) -> None:
    with pytest.raises(InputError, match=rf"outermost of {crop}×{crop}: .* crop of {near}$"):
        build(f"timm/{name}", crop=crop, seed=0)


@pytest.mark.parametrize(("name", "crop"), [("pvt_v2_b0", 32), ("pit_ti_224", 72)])
def test_patches_that_overlap_take_other_crops(name: str, crop: int) -> None:
    """PVT's are 7×7, four apart and padded; PiT's 16×16, eight apart."""
    assert small(f"timm/{name}", crop=crop).input.crop == crop


@pytest.mark.parametrize("arch", SAMPLE)
def test_the_contract_holds(arch: str) -> None:
    backbone = small(arch).eval()
    about = find_arch(arch)
    assert about is not None
    assert about.kind == backbone.input.kind == "image"
    assert backbone.input.shape == (3, 32, 32)
    assert backbone.arch == arch
    if arch in ARCHS:
        # Discriminators have a stage more for each doubling of the 32 pixels.
        whole = build(arch, width=0.125, seed=0) if arch in JUDGES else backbone
        assert whole.layers == about.layers
        assert whole.embedding == about.embedding
    x = images()
    with torch.no_grad():
        found = backbone.features(x, backbone.layers)
        deepest = found[backbone.embedding]
        assert torch.allclose(backbone.embed(x), deepest.mean((2, 3)), atol=1e-6)
        assert backbone(x).shape == (2, backbone.out_features)
        third, first = backbone.layers[2], backbone.layers[0]
        assert list(backbone.features(x, [third, first])) == [third, first]
        assert backbone.features(x, []) == {}
        if "resnet" in arch:
            assert torch.allclose(backbone(x), backbone.embed(x), atol=1e-6)
    assert list(found) == list(backbone.layers)
    with pytest.raises(InputError, match="unknown layer 'con4'"):
        backbone.features(x, ["con4"])
    with pytest.raises(InputError, match="unknown layer 'con4'"):
        backbone.parts("con4")


@pytest.mark.parametrize("arch", SAMPLE)
def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone(
    arch: str,
) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, again, other = (small(arch, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, again[name]), name
        if name.endswith("weight") and value.ndim > 1:
            assert not torch.equal(value, other[name]), name


@pytest.mark.parametrize("arch", [*SAMPLE, LEVIT])
def test_what_is_saved_comes_back(arch: str, tmp_path: Path) -> None:
    backbone = small(arch, resize=(40, 48))
    x = images()
    backbone(x)  # moves the running statistics
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, backbone, {"dataset": "scenes"})
    state = torch.random.get_rng_state()
    again = load_backbone(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (again.spec, again.input) == (backbone.spec, backbone.input)
    assert again.input.resize == (40, 48)
    assert again.training
    with torch.no_grad():
        assert torch.equal(again.eval()(x), backbone.eval()(x))
    assert build(**again.spec, seed=0).input == backbone.input


@pytest.mark.parametrize(("arch", "layer"), [
    ("alexnet", "conv2"), ("resnet18", "layer2"), ("timm/efficientnet_b0", "blocks.2"),
    ("timm/beit_base_patch16_224", "blocks.1"), (VIT, "blocks.11"),
])  # fmt: skip
def test_a_network_falls_into_what_makes_a_layer_and_the_rest(arch: str, layer: str) -> None:
    """Frozen so, the layer's own gradient vanishes and all others stay."""
    backbone = small(arch).train()
    below, above = backbone.parts(layer)
    sides = [{id(p) for module in side for p in module.parameters()} for side in (below, above)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {id(p) for p in backbone.parameters()}
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for module in below:
        module.eval()
    backbone.features(images(), [layer])[layer].sum().backward()
    got = {id(p) for p in backbone.parameters() if p.grad is not None}
    assert got == sides[0]
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name  # no running statistics moved


@pytest.mark.parametrize("arch", [*archs("image"), CONVNEXT, VIT])
@pytest.mark.parametrize("kind", ["fc", "linear"])
def test_a_head_is_trained_on_frozen_or_free_layers(arch: str, kind: str) -> None:
    head = HeadSpec.model_validate(
        {"kind": kind, "outputs": 3, "hidden": [8] if kind == "fc" else []}
    )
    network = Classifier(small(arch), head, generator=torch.Generator().manual_seed(0))
    network.freeze("conv").train()
    still = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(images(4)).logsumexp(1).sum().backward()
    kept = {id(p) for module in network.backbone.parts(network.backbone.embedding)[0]
            for p in module.parameters()}  # fmt: skip
    for name, parameter in network.named_parameters():
        if id(parameter) in kept:
            assert parameter.grad is None, name
    norms = [name for name in still if "running" in name and not name.startswith("fc")]
    for name in norms:
        assert torch.equal(network.backbone.state_dict()[name], still[name]), name
    assert network.last.weight.grad is not None
    with torch.no_grad():
        assert network.eval()(images(4)).shape == (4, 3)


@pytest.mark.parametrize("arch", ["alexnet", "resnet18", CONVNEXT, VIT])
def test_training_reaches_every_parameter(arch: str) -> None:
    backbone = small(arch).train()
    head = LinearHead(backbone.out_features, 3)
    nn.init.normal_(head.weight)
    loss = F.cross_entropy(head(backbone(images(4))), torch.tensor([0, 1, 2, 0]))
    torch.autograd.backward(loss)
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_alexnet_compiles_as_one_graph() -> None:
    compiled = torch.compile(small("alexnet").train(), backend="eager", fullgraph=True)
    try:
        out = compiled(images(4))
    finally:
        # What was learned of the shape of images would make clips of any shape, which takes long.
        torch.compiler.reset()
    assert torch.allclose(out, small("alexnet").train()(images(4)), atol=1e-5)


@pytest.mark.parametrize(("arch", "values", "message"), [
    ("alexnet", {"frames": 16}, "frames: alexnet takes images, which are one frame"),
    ("alexnet", {"padding": "full"}, "no such network: padding"),
    ("alexnet", {"padding": "valid", "crop": 34}, "takes at least 35 pixels, not 34"),
    ("alexnet", {"shortcut": "projected"}, "alexnet has only its standard shortcuts"),
    ("resnet18", {"padding": "same"}, "padding: resnet18 has only its own padding"),
    ("resnet18", {"width": 0.5}, "width: the channels of resnet18 are fixed"),
    (VIT, {"width": 0.5}, "width: the channels of timm/vit_tiny_patch16_224 are fixed"),
    ("c3d", {"padding": "same"}, "padding: c3d has only its own padding"),
    ("resnet99", {}, "unknown arch 'resnet99' .did you mean 'resnet"),
])  # fmt: skip
def test_what_is_no_network_is_refused(arch: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(arch, seed=0, **values)


def test_the_smallest_crop_without_padding_is_told_right() -> None:
    backbone = construct(Spec(arch="alexnet", padding="valid", frames=1, crop=35)).eval()
    x = torch.empty(1, 3, 35, 35, device="meta")
    assert backbone.features(x, ["conv5"])["conv5"].shape == (1, 256, 1, 1)
    with pytest.raises(RuntimeError):
        backbone(torch.empty(1, 3, 34, 34, device="meta"))


def test_a_lent_generator_is_given_back_whatever_happens() -> None:
    state = torch.random.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with suppress(KeyError), lent(torch.Generator().manual_seed(seed)):
            drawn.append(torch.rand(3))
            raise KeyError
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_images_are_as_in_section_4_4_by_default() -> None:
    backbone = build("alexnet", width=0.125, seed=0)
    assert (backbone.input.crop, backbone.input.resize) == (64, (96, 96))
    assert backbone.input.frames == 1
    assert small("alexnet", crop=48).input.resize == (48, 48)
