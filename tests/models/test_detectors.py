"""Detectors: what is pooled, learned from, frozen and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from selfsup_cli.errors import InputError
from selfsup_cli.models import build
from selfsup_cli.models.detector import Detector, DetectorSpec, fixed_size, measured, own_layer
from selfsup_cli.models.detector_weights import is_detector, load_detector, save_detector
from selfsup_cli.randomness import generator

SIZES = [(64, 96), (64, 80)]


def detector(arch: str = "alexnet", seed: int = 0, crop: int = 64, **spec: Any) -> Detector:
    width = {"width": 0.125} if arch.startswith("alexnet") else {}
    backbone = build(arch, crop=crop, seed=seed, **width)
    chosen = {"kind": "fast", "outputs": 3, "layer": backbone.embedding, "own": False, "cells": 3,
              "hidden": [16], **spec}  # fmt: skip
    if chosen["own"]:
        chosen["layer"], chosen["cells"] = own_layer(backbone)
    built = DetectorSpec(**chosen)
    return Detector(backbone, built, generator=generator(seed, "detector"))


def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=generator(1)) * 2 - 1


def proposals() -> list[torch.Tensor]:
    g = generator(2)
    out = []
    for height, width in SIZES:
        corners = torch.rand(40, 2, generator=g) * torch.tensor([width - 20.0, height - 20.0])
        out.append(torch.cat([corners, corners + 8 + 12 * torch.rand(40, 2, generator=g)], 1))
    return out


def targets() -> list[dict[str, torch.Tensor]]:
    boxes = [rows[:2].clone() for rows in proposals()]
    return [{"boxes": boxes[0], "labels": torch.tensor([1, 3])},
            {"boxes": boxes[1][:0], "labels": torch.zeros(0, dtype=torch.int64)}]  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "crop", "spec", "stride"),
    [
        ("alexnet", 64, {}, 16),
        ("alexnet", 64, {"pooling": "align", "layer": "conv2"}, 8),
        ("alexnet", 96, {"own": True}, 16),
        ("alexnet_lrn", 64, {}, 16),
        ("timm/test_resnet", 64, {"layer": "layer2"}, 8),
        ("timm/test_resnet", 64, {}, 32),
        ("timm/test_vit", 64, {}, 16),
        ("timm/test_vit", 64, {"kind": "faster"}, 16),
        ("alexnet", 96, {"kind": "faster", "own": True}, 16),
    ],
)
def test_every_backbone_learns_and_finds(
    arch: str, crop: int, spec: dict[str, Any], stride: float
) -> None:
    kind = str(spec.get("kind", "fast"))
    network = detector(arch, crop=crop, **spec)
    assert network.stride == stride
    x, sizes = images(), SIZES
    if (side := fixed_size(network.backbone)) is not None:
        assert side == crop
        x, sizes = x[..., :64], [(64, 64), (64, 64)]
    _, losses = network.train()(x, sizes, proposals(), targets())
    names = {"loss_classifier", "loss_box_reg"}
    if kind == "faster":
        names |= {"loss_objectness", "loss_rpn_box_reg"}
    assert set(losses) == names
    sum(losses.values()).backward()  # type: ignore[union-attr]
    moved = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None}
    assert moved >= {"backbone", "regions", *({"rpn"} if kind == "faster" else ())}
    # What is never run is not trained, or several processes would wait for its gradient.
    still = [n for n, p in network.named_parameters() if p.grad is None and p.requires_grad]
    assert still == []
    with torch.no_grad():
        found, _ = network.eval()(x, sizes, proposals())
    for one, (height, width) in zip(found, sizes, strict=True):
        assert one["boxes"].shape == (len(one["scores"]), 4)
        assert ((one["labels"] >= 1) & (one["labels"] <= 3)).all()
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_pooled_cells_are_maxima_as_in_the_paper() -> None:
    """Edges are rounded to cells of the map, the last one included, and cut into equal bins."""
    network = detector(cells=2).eval()
    regions = proposals()
    with torch.no_grad():
        maps = network.features(images())
        fed = network.fed(images(), regions)
    height, width = maps.shape[2:]
    expected = []
    for one, rows in zip(maps, regions, strict=True):
        for left, top, right, bottom in (rows / 16).tolist():
            edges = [np.floor(edge + 0.5).astype(int) for edge in (left, top, right, bottom)]
            wide, high = edges[2] - edges[0] + 1, edges[3] - edges[1] + 1
            for row in range(2):
                for column in range(2):
                    y = slice(edges[1] + row * high // 2, edges[1] - (-(row + 1) * high // 2))
                    x = slice(edges[0] + column * wide // 2, edges[0] - (-(column + 1) * wide // 2))
                    cell = one[:, y, x].flatten(1)
                    expected.append(cell.amax(1) if cell.numel() else one.new_zeros(len(one)))
    assert (height, width) == (4, 6)
    stacked = torch.stack(expected).reshape(len(fed), 2, 2, -1).permute(0, 3, 1, 2)
    np.testing.assert_allclose(fed, stacked, atol=1e-6)


def test_own_layers_are_those_of_the_backbone() -> None:
    """A region of all four by four cells gives what the network gives for the image."""
    network = detector(own=True).eval()
    x = images()[..., :64]
    every = torch.tensor([[0.0, 0.0, 48.0, 48.0]])
    with torch.no_grad():
        fed, given = network.fed(x, [every, every]), network.backbone(x)
    np.testing.assert_allclose(fed, given, rtol=1e-3, atol=1e-3 * float(given.abs().max()))


def test_a_region_is_learned_from_as_the_paper_says() -> None:
    """¼ of 32 regions hold objects (overlap ½); the others overlap one by 0.1 or more."""
    network = detector(regions=32, foreground=0.25, overlap=0.5, background_from=0.1)
    rows = proposals()[0]
    around = targets()[0]["boxes"]
    shifts = torch.randn(200, 4, generator=generator(5)) * 3
    rows = torch.cat([rows, around[torch.arange(200) % 2] + shifts])
    chosen, _, labels, regression = network.regions.select_training_samples([rows], [targets()[0]])
    shares = box_iou(chosen[0], around).max(1).values
    assert len(chosen[0]) == 32
    assert int((labels[0] > 0).sum()) == 8
    assert ((shares >= 0.5) == (labels[0] > 0)).all()
    assert (shares >= 0.1).all()
    assert regression[0].shape == (32, 4)
    everything = detector(regions=64, background_from=0.0)
    chosen, _, labels, _ = everything.regions.select_training_samples([rows], [targets()[0]])
    assert (box_iou(chosen[0], around).max(1).values < 0.1).any()


def test_the_loss_is_cross_entropy_and_smooth_l1_of_objects() -> None:
    network = detector(regions=16, dropout=0.0).train()
    torch.manual_seed(0)
    chosen, _, labels, regression = network.regions.select_training_samples(proposals(), targets())
    torch.manual_seed(0)
    _, losses = network(images(), SIZES, proposals(), targets())
    with torch.no_grad():
        scores, offsets = network.outputs(images(), chosen)
    truth, wanted = torch.cat(labels), torch.cat(regression)
    losses = {name: one.detach() for name, one in losses.items()}
    assert float(losses["loss_classifier"]) == pytest.approx(float(F.cross_entropy(scores, truth)))
    total = 0.0
    for k in torch.nonzero(truth > 0).flatten().tolist():
        own = offsets[k].reshape(-1, 4)[truth[k]]
        for difference in (own - wanted[k]).abs().tolist():
            total += difference - 1 / 18 if difference > 1 / 9 else difference**2 * 4.5
    assert float(losses["loss_box_reg"]) == pytest.approx(total / len(truth), rel=1e-4)


def test_batch_norm_stays_where_it_is_fixed() -> None:
    network = detector().train()
    before = network.backbone.conv1.norm.running_mean.clone()  # type: ignore[union-attr]
    network(images(), SIZES, proposals(), targets())
    assert network.backbone.conv1.norm.running_mean.equal(before)  # type: ignore[union-attr]
    moving = detector(batch_norm="batch").train()
    moving(images(), SIZES, proposals(), targets())
    assert not moving.backbone.conv1.norm.running_mean.equal(before)  # type: ignore[union-attr]


def test_frozen_layers_stay() -> None:
    network = detector(batch_norm="batch").freeze("conv2")
    assert network.frozen == ("conv1", "conv2")
    _, losses = network.train()(images(), SIZES, proposals(), targets())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    reached = {n for n, p in network.named_parameters() if p.grad is not None}
    assert not any(n.startswith(("backbone.conv1", "backbone.conv2")) for n in reached)
    assert any(n.startswith("backbone.conv3") for n in reached)
    with pytest.raises(InputError, match="fc1 lies above conv5"):
        detector().freeze("fc1")
    detector(own=True).freeze("fc1")


def test_layers_that_no_region_can_be_cut_out_of() -> None:
    with pytest.raises(InputError, match="fc1 of alexnet is no map"):
        detector(layer="fc1")
    with pytest.raises(InputError, match="unknown layer 'conv9'"):
        detector(layer="conv9")
    with pytest.raises(InputError, match="has no layers of its own"):
        own_layer(build("timm/test_vit", crop=64, seed=0))
    assert measured(build("alexnet", width=0.125, seed=0), "conv1") == (4, 16)


@pytest.mark.parametrize("spec", [{}, {"own": True}, {"kind": "faster"}])
def test_what_is_saved_finds_the_same(tmp_path: Path, spec: dict[str, Any]) -> None:
    network = detector(seed=4, score=0.0, **spec).eval()
    path = tmp_path / "model.safetensors"
    facts = {"scaling": {"shorter": 64, "longest": 96, "fixed": None}}
    digest = save_detector(path, network, ("a", "b", "c"), facts, {"data": "d"})
    assert is_detector(path)
    other = load_detector(path)
    assert (other.classes, other.images, other.weights) == (("a", "b", "c"), facts, digest)
    assert other.network.backbone.trained_on == {"data": "d"}
    with torch.no_grad():
        ours, theirs = (one(images(), SIZES, proposals())[0] for one in (network, other.network))
    for a, b in zip(ours, theirs, strict=True):
        assert a["boxes"].equal(b["boxes"])
        assert a["scores"].equal(b["scores"])
    sidecar = path.with_name("model.safetensors.json")
    sidecar.write_text(sidecar.read_text().replace('"outputs": 3', '"outputs": 2'))
    with pytest.raises(InputError, match="damaged"):
        load_detector(path)
