"""Fully convolutional networks: upsampling, strides, sizes, what is trained, what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build, save_backbone
from selfsup_cli.models.fcn import (
    FcnSpec,
    Segmenter,
    TrainedSegmenter,
    Upsampling,
    bilinear,
    is_segmenter,
    load_segmenter,
    planned,
    save_segmenter,
)


def small(arch: str = "alexnet", **how: object) -> Backbone:
    settings_: dict[str, object] = {"width": 0.125} if arch.startswith("alexnet") else {}
    return build(arch, seed=0, **{**settings_, **how})  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "line"), [
    (2, [0.25, 0.75, 0.75, 0.25]), (3, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
])  # fmt: skip
def test_kernels_by_hand(factor: int, line: list[float]) -> None:
    np.testing.assert_allclose(bilinear(factor).numpy(), np.outer(line, line), atol=1e-7)


@settings(max_examples=20)
@given(
    st.integers(2, 32), st.integers(1, 4), st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.booleans(),
)  # fmt: skip
def test_upsampling_begins_as_bilinear_interpolation(
    factor: int, channels: int, size: tuple[int, int], mixing: bool
) -> None:
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(factor))
    found = Upsampling(channels, factor, mixing=mixing)(x)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arch", "how", "expected", "side"),
    [
        ("alexnet", {}, [("conv5", 32), ("conv5", 16), ("conv2", 8)], None),
        ("alexnet", {"padding": "valid", "crop": 99},
         [("conv5", 32), ("conv5", 16), ("conv2", 8)], None),
        ("resnet18", {}, [("layer4", 32), ("layer3", 16), ("layer2", 8)], None),
        ("timm/mobilenetv3_small_050", {},
         [("blocks.5", 32), ("blocks.3", 16), ("blocks.1", 8)], None),
        ("timm/vit_tiny_patch16_224", {"crop": 64}, [("blocks.11", 32), ("blocks.11", 16)], 64),
    ],
)  # fmt: skip
def test_layers_are_found_by_their_strides(
    arch: str, how: dict[str, object], expected: list[tuple[str, int]], side: int | None
) -> None:
    backbone = small(arch, **how)
    finest = {3: "8s", 2: "16s"}[len(expected)]
    plan = planned(backbone, finest)
    found = [(plan.last.layer, plan.coarsest), *((one.layer, one.stride) for one in plan.skips)]
    assert (found, plan.side) == (expected, side)
    network = Segmenter(backbone, FcnSpec(outputs=3, finest=finest)).eval()  # type: ignore[arg-type]
    x = torch.randn(1, 3, side or 70, side or 90)
    with torch.no_grad():
        assert network(x).shape == (1, 3, *x.shape[2:])
    if side is not None:
        with pytest.raises(ValueError, match="takes 64×64 only"):
            network(torch.zeros(1, 3, 64, 80))
        with pytest.raises(InputError, match="8 pixels apart, as 8s needs; use --fcn 16s"):
            planned(backbone, "8s")


def test_scores_are_summed_from_coarse_to_fine() -> None:
    """The network, written out with interpolation instead of transposed convolutions."""
    backbone = small("resnet18")
    spec = FcnSpec(outputs=4, finest="8s", hidden=[8], kernel=3, dropout=0.5)
    network = Segmenter(backbone, spec, generator=torch.Generator().manual_seed(0)).eval()
    for skip in network.skips:
        torch.nn.init.normal_(skip.weight)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 80, 100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(x)
        padded = F.pad(x, (0, 28, 0, 16))
        maps = backbone.features(padded, ["layer4", "layer3", "layer2"])
        conv = network.hidden[0]
        assert isinstance(conv, torch.nn.Conv2d)
        hidden = F.relu(F.conv2d(maps["layer4"], conv.weight, conv.bias, padding=1))
        score = network.score(hidden)
        for skip, layer in zip(network.skips, ("layer3", "layer2"), strict=True):
            score = F.interpolate(score, scale_factor=2, mode="bilinear") + skip(maps[layer])
        expected = F.interpolate(score, scale_factor=8, mode="bilinear")[..., :80, :100]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_what_is_trained(tmp_path: Path) -> None:
    backbone = small("alexnet", crop=32)
    network = Segmenter(backbone, FcnSpec(outputs=3), generator=torch.Generator().manual_seed(0))
    network.freeze("conv3")
    network.train()
    x = torch.randn(2, 3, 64, 64)
    target = torch.randint(3, (2, 64, 64))
    for _ in range(2):  # at first, scores of the skips are 0
        F.cross_entropy(network(x), target).backward()
        with torch.no_grad():
            for weight in network.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
    moved = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert {name.split(".")[1] for name in moved if name.startswith("backbone")} == {
        "conv4", "conv5",
    }  # fmt: skip
    assert {name.split(".")[0] for name in moved} == {"backbone", "score", "skips", "doubled"}
    np.testing.assert_allclose(network.enlarged.weight[0, 0].numpy(), bilinear(8).numpy())
    with pytest.raises(InputError, match="fc1 lies above conv5"):
        network.freeze("fc1")
    trained = TrainedSegmenter(network.eval(), ("a", "b", "c"), {"shorter": None})
    sha = save_segmenter(tmp_path / "m.safetensors", trained, {"method": "transfer/segment"})
    back = load_segmenter(tmp_path / "m.safetensors")
    assert (back.classes, back.facts, back.weights) == (trained.classes, trained.facts, sha)
    with torch.no_grad():
        assert torch.equal(back.network(x), network(x))
    save_backbone(tmp_path / "b.safetensors", backbone, {})
    assert is_segmenter(tmp_path / "m.safetensors")
    assert not is_segmenter(tmp_path / "b.safetensors")
    assert not is_segmenter(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="does not describe a network"):
        load_segmenter(tmp_path / "b.safetensors")
