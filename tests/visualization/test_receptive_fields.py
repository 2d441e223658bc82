"""Receptive fields: computed against measured, against closed forms, and against what changes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from selfsup_cli.models import Backbone, build
from selfsup_cli.visualization.receptive import (
    Box,
    ReceptiveField,
    UnknownOperationError,
    computed,
    measured,
    receptive_field,
    shapes,
)


def network(arch: str, crop: int, **settings: float) -> Backbone:
    return build(arch, crop=crop, resize=(crop, crop), seed=0, **settings).eval()  # type: ignore[arg-type]


def boxes(field: ReceptiveField) -> list[Box]:
    return [field.box(place) for place in range(math.prod(field.cells))]


@pytest.mark.parametrize(
    ("arch", "crop", "layers"),
    [
        ("alexnet", 96, ("conv1", "conv3", "conv5")),
        ("resnet18", 64, ("layer1", "layer2")),
        ("timm/resnet18", 32, ("layer1",)),
    ],
)
def test_what_is_computed_is_what_gradients_say(
    arch: str, crop: int, layers: tuple[str, ...]
) -> None:
    one = network(arch, crop, **({"width": 0.1} if arch == "alexnet" else {}))
    for layer in layers:
        by_kernels, by_gradients = computed(one, layer), measured(one, layer)
        assert by_kernels.cells == by_gradients.cells
        assert boxes(by_kernels) == boxes(by_gradients)


def test_alexnet_sees_what_its_kernels_say() -> None:
    """size += (kernel − 1) · jump, layer by layer, by hand."""
    sizes = {"conv1": 11, "conv2": 19 + 32, "conv3": 67 + 32, "conv4": 99 + 32, "conv5": 131 + 32}
    one = network("alexnet", 224, width=0.1)
    for layer, size in sizes.items():
        assert computed(one, layer).size == (size, size)
    assert computed(one, "fc1").size == (224, 224)


def test_a_clip_is_seen_in_time_as_well() -> None:
    one = build("c3d", width=0.1, frames=16, crop=32, resize=(32, 32), seed=0).eval()
    field = computed(one, "conv2")
    assert field.cells == (16, 16, 16)
    # Kernels of 3, a pool of 1×2×2 between them.
    assert field.size == (5, 8, 8)


@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto"])
def test_what_lies_outside_changes_nothing_and_the_border_does(arch: str) -> None:
    one = network(arch, 64)
    with torch.no_grad():
        for weight in one.parameters():
            weight.add_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )
    layer = one.layers[0]
    field = receptive_field(one, layer)
    assert field.measured == ("convnext" in arch)
    place = field.cells[1] * (field.cells[0] // 2) + field.cells[1] // 3
    (top, bottom), (left, right) = field.box(place)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[top:bottom, left:right] = True

    def value(image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return one.features(image, [layer])[layer].flatten(2)[0, :, place]

    before = value(x)
    assert torch.equal(value(torch.where(inside, x, -x)), before)
    rows, columns = slice(top, bottom), slice(left, right)
    edges: list[tuple[Any, Any]] = [
        (top, columns), (bottom - 1, columns), (rows, left), (rows, right - 1),
    ]  # fmt: skip
    for row, column in edges:
        other = x.clone()
        other[0, :, row, column] = 9 * torch.randn_like(other[0, :, row, column])
        assert not torch.equal(value(other), before)


def test_attention_sees_everything_and_windows_are_cut_off_by_the_border() -> None:
    vit = network("timm/vit_tiny_patch16_224", 32)
    field = receptive_field(vit, "blocks.1")
    assert set(boxes(field)) == {((0, 32), (0, 32))}
    assert field.cells == (2, 2)
    alexnet = network("alexnet", 64, width=0.1)
    corner = computed(alexnet, "conv1")
    assert corner.box(0) == ((0, 8), (0, 8))
    assert corner.window(0) == ((-3, 8), (-3, 8))
    assert corner.box(17) == corner.window(17) == ((1, 12), (1, 12))


def test_what_is_not_known_is_said_and_measured() -> None:
    one = network("timm/convnext_atto", 64)
    with pytest.raises(UnknownOperationError):
        computed(one, "stages.0")
    assert shapes(one, ["stages.0", "stages.1"]) == {
        "stages.0": (40, 16, 16),
        "stages.1": (80, 8, 8),
    }
    for a, b in itertools.pairwise(one.layers[:2]):
        assert receptive_field(one, a).size <= receptive_field(one, b).size
