"""AlexNet with response normalisation, and the discriminator on top of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.alexnet_artifacts import (
    AlexNetLRN,
    Discriminator,
    ResponseNorm,
    ShiftNorm2d,
)
from selfsup_cli.models.backbone import Spec
from selfsup_cli.models.unpadded import unpadded

WIDTHS = (96, 256, 384, 384, 256)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, side, side, generator=gen(seed)) * 2 - 1


def blank(crop: int, width: float = 1.0, padding: str = "same") -> AlexNetLRN:
    values = {"arch": "alexnet_lrn", "frames": 1, "crop": crop, "resize": (crop, crop)}
    spec = Spec.model_validate({**values, "width": width, "padding": padding})
    with torch.device("meta"):
        return AlexNetLRN(spec)


def small(crop: int = 32, padding: str = "same", seed: int = 0) -> AlexNetLRN:
    backbone = blank(crop, 0.125, padding)
    backbone.initialize(gen(seed))
    return backbone


def lively(backbone: nn.Module) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=gen(1))  # type: ignore[arg-type]
            nn.init.uniform_(module.running_mean, -0.5, 0.5, generator=gen(2))  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=gen(3))


@pytest.mark.parametrize(("crop", "parameters"), [(96, 40_097_411), (128, 69_457_539)])
def test_parameters_are_as_many_as_in_the_table(crop: int, parameters: int) -> None:
    backbone = blank(crop)
    counted = sum(p.numel() for p in backbone.parameters())
    masks, classes = 3 * 3 * 256 + 1, 2 * 4096 + 2
    assert counted + masks + classes == parameters
    heads = Discriminator(small(), gen())
    assert [p.numel() for p in (*heads.get_submodule("masks").parameters(),)] == [9 * 32, 1]
    assert [p.numel() for p in heads.classes.parameters()] == [2 * 512, 2]


@pytest.mark.parametrize(("padding", "crop", "sides"), [
    ("same", 96, (24, 12, 6, 6, 6)),
    ("same", 128, (32, 16, 8, 8, 8)),
    ("valid", 227, (55, 27, 13, 13, 13)),
])  # fmt: skip
def test_every_layer_has_the_shape_of_its_table(
    padding: str, crop: int, sides: tuple[int, ...]
) -> None:
    backbone = blank(crop, padding=padding)
    x = torch.empty(2, 3, crop, crop, device="meta")
    with torch.device("meta"):
        found = [tuple(one.shape[1:]) for one in backbone.features(x, backbone.layers).values()]
        out = backbone(x)
    maps = list(zip(WIDTHS, sides, sides, strict=True))
    assert found == (maps if padding == "valid" else [*maps, (4096,)])
    assert out.shape == (2, backbone.out_features) == (2, 256 if padding == "valid" else 4096)


def response_norm(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for i in range(x.shape[1]):
        around = x[:, max(i - 2, 0) : i + 3].square().sum(1)
        out[:, i] = x[:, i] / (1 + 2e-5 * around) ** 0.75
    return out


def test_activations_are_normalised_over_five_channels() -> None:
    x = 200 * torch.randn(2, 9, 3, 4, generator=gen())
    torch.testing.assert_close(ResponseNorm()(x), response_norm(x))
    half = ResponseNorm()(x.half())
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_it_computes_what_its_table_says() -> None:
    """All layers again, with the zeros and minus infinities of padding SAME written out."""
    backbone = small(64).eval()
    lively(backbone)
    state = backbone.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = (state[f"{name}.norm.running_{one}"] for one in ("mean", "var"))
        return F.relu(F.batch_norm(x, mean, var, None, state[f"{name}.norm.bias"], eps=1e-3))

    def conv(x: Tensor, name: str, pad: int, streams: int = 1) -> Tensor:
        weights = state[f"{name}.conv.weight"].chunk(streams)
        parts = zip(x.chunk(streams, 1), weights, strict=True)
        y = torch.cat([F.conv2d(part, weight, padding=pad) for part, weight in parts], 1)
        bias = state.get(f"{name}.conv.bias")
        return y if bias is None else y + bias[:, None, None]

    def pool(x: Tensor) -> Tensor:
        assert x.shape[2] % 2 == 0
        return response_norm(F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2))

    x = images(3, 64)
    mean = torch.tensor([123.68, 116.78, 103.94]).view(3, 1, 1)
    y = F.pad((x + 1) * 127.5 - mean, (3, 4, 3, 4))
    conv1 = F.conv2d(y, state["conv1.conv.weight"], state["conv1.conv.bias"], stride=4)
    expected = {"conv1": F.relu(conv1)}
    expected["conv2"] = F.relu(conv(pool(expected["conv1"]), "conv2", 2, 2))
    expected["conv3"] = F.relu(conv(pool(expected["conv2"]), "conv3", 1))
    expected["conv4"] = F.relu(conv(expected["conv3"], "conv4", 1, 2))
    expected["conv5"] = norm(conv(expected["conv4"], "conv5", 1, 2), "conv5")
    expected["fc1"] = norm(expected["conv5"].flatten(1) @ state["fc1.linear.weight"].T, "fc1")
    with torch.no_grad():
        found = backbone.features(x, backbone.layers)
        assert torch.equal(backbone(x), found["fc1"])
        assert torch.equal(backbone.embed(x), found["conv5"].mean((2, 3)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-3)


def test_weights_biases_and_norms_start_as_listed() -> None:
    backbone = blank(32, 0.5)
    backbone.initialize(gen())
    state = backbone.state_dict()
    biases = {name: set(value.tolist()) for name, value in state.items() if "bias" in name}
    tenth = float(torch.tensor(0.1))
    assert biases == {
        "conv1.conv.bias": {tenth}, "conv2.conv.bias": {tenth}, "conv3.conv.bias": {0.0},
        "conv4.conv.bias": {0.0}, "conv5.norm.bias": {0.0}, "fc1.norm.bias": {0.0},
    }  # fmt: skip
    assert not any("norm.weight" in name for name in state)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [(m.momentum, m.eps) for m in norms] == [(0.025, 1e-3)] * 2
    c = [w // 2 for w in WIDTHS]
    bounds = {
        "conv1.conv": 121 * (3 + c[0]),
        "conv2.conv": 25 * (c[0] // 2 + c[1] // 2),
        "conv3.conv": 9 * (c[1] + c[2]),
        "conv4.conv": 9 * (c[2] // 2 + c[3] // 2),
        "conv5.conv": 9 * (c[3] // 2 + c[4] // 2),
        "fc1.linear": 2 * 2 * (c[4] + 2048),
    }
    for name, fans in bounds.items():
        bound, weight = math.sqrt(6 / fans), state[f"{name}.weight"]
        assert 0.99 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_batch_norm_shifts_but_does_not_scale() -> None:
    norm = ShiftNorm2d(3)
    nn.init.constant_(norm.bias, 2.0)
    x = 5 + 3 * torch.randn(8, 3, 6, 6, generator=gen())
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.full((3,), 2.0))
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3, atol=0)
    norm.reset_parameters()
    assert (norm.bias == 0).all()
    assert torch.equal(norm.running_mean, torch.zeros(3))  # type: ignore[arg-type]
    assert list(norm.state_dict()) == ["bias", "running_mean", "running_var", "num_batches_tracked"]


def test_the_discriminator_says_what_its_heads_see() -> None:
    discriminator = Discriminator(small(48), gen(5)).eval()
    lively(discriminator)
    x = images(4, 48)
    with torch.no_grad():
        found = discriminator(x)
        seen = discriminator.backbone.features(x, ("conv5", "fc1"))
    assert found.classes.shape == (4, 2)
    assert found.masks.shape == (4, 1, 3, 3)
    state = discriminator.state_dict()
    classes = seen["fc1"] @ state["classes.weight"].T + state["classes.bias"]
    torch.testing.assert_close(found.classes, classes, rtol=1e-4, atol=1e-4)
    masks = F.conv2d(seen["conv5"], state["masks.weight"], state["masks.bias"], padding=1)
    torch.testing.assert_close(found.masks, masks, rtol=1e-4, atol=1e-4)
    first, rest = found.split(1)
    assert torch.equal(torch.cat([first.classes, rest.classes]), found.classes)
    assert first.masks is not None
    assert torch.equal(first.masks, found.masks[:1])
    blind = Discriminator(small(48), gen(5), locates=False)(x)
    assert blind.masks is None
    assert blind.split(2)[1].masks is None


def test_half_of_the_units_of_fc1_are_dropped_in_training() -> None:
    discriminator = Discriminator(small(), gen())
    seen: list[Tensor] = []
    discriminator.classes.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    discriminator.dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.manual_seed(0)
    discriminator(images(8))
    before, after = seen
    survivors = before > 0
    share = float((after[survivors] > 0).float().mean())
    assert abs(share - 0.5) < 0.05
    torch.testing.assert_close(after[after > 0], 2 * before[after > 0])


def test_gradients_reach_all_of_the_discriminator_and_its_input() -> None:
    discriminator = Discriminator(small(), gen())
    x = images(4).requires_grad_()
    found = discriminator(x)
    (found.classes.square().sum() + found.masks.square().sum()).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters())


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="only crops of the size they were built for"):
        small(32)(images(2, 48))
    with pytest.raises(InputError, match="takes at least 35 pixels, not 32"):
        small(32, "valid")
    with pytest.raises(ValueError, match="a backbone without fc1"):
        Discriminator(small(48, "valid"), gen())


def test_convolutions_take_images_of_any_size_and_come_without_padding() -> None:
    padded = small(32).eval()
    lively(padded)
    assert padded.embed(images(2, 80)).shape == (2, 32)
    other = unpadded(padded, 67)
    assert isinstance(other, AlexNetLRN)
    assert (other.layers[-1], other.input.crop, other.spec["padding"]) == ("conv5", 67, "valid")
    x = images(2, 67)
    found = other.features(x, ["conv1", "conv2"])
    assert found["conv1"].shape[2:] == (15, 15)
    assert found["conv2"].shape[2:] == (7, 7)
    weight, bias = (padded.get_parameter(f"conv1.conv.{name}") for name in ("weight", "bias"))
    assert torch.allclose(
        found["conv1"], F.relu(F.conv2d(padded.arrange(x), weight, bias, 4)), atol=1e-4
    )


def test_weights_depend_on_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (Discriminator(small(seed=s), gen(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    for name in ("masks.weight", "classes.weight", "backbone.conv1.conv.weight"):
        assert not torch.equal(first[name], other[name])
