"""Grad-CAM against its closed form, and layers that have nothing to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from selfsup_cli.errors import InputError
from selfsup_cli.models import build
from selfsup_cli.models.classifier import Classifier, HeadSpec
from selfsup_cli.visualization.gradcam import Look, deepest, gradcam, overlaid, sheet


def classifier(arch: str, crop: int = 64) -> Classifier:
    width = 0.05 if arch == "alexnet" else 1.0
    backbone = build(arch, width=width, crop=crop, resize=(crop, crop), seed=0)
    spec = HeadSpec(kind="linear", outputs=4, hidden=[])
    return Classifier(backbone, spec, generator=torch.Generator().manual_seed(0)).eval()


def images(crop: int = 64) -> torch.Tensor:
    return torch.rand(3, 3, crop, crop, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto"])
def test_behind_a_mean_the_weights_are_those_of_the_head(arch: str) -> None:
    """The logit is Σ w · mean(A) + b: a channel's mean gradient is w over the number of cells."""
    network = classifier(arch)
    if arch != "resnet18":
        inner: Any = network.backbone.network
        inner.head.norm = torch.nn.Identity()
    x, wanted = images(), torch.tensor([2, 0, 3])
    layer = network.backbone.embedding
    found = gradcam(network, network.backbone, x, wanted, layer)
    with torch.no_grad():
        active = network.backbone.features(x, [layer])[layer].double().numpy()
    weights = network.last.get_parameter("weight").detach().double().numpy()
    for i in range(3):
        raw = np.maximum(np.einsum("c,chw->hw", weights[wanted[i]], active[i]), 0)
        large = F.interpolate(torch.from_numpy(raw)[None, None], (64, 64), mode="bilinear")[0, 0]
        expected = large / large.max() if large.max() > 0 else large
        assert torch.allclose(found.maps[i].double(), expected, atol=1e-4)
    assert torch.allclose(found.logits, network(x).detach(), atol=1e-4)


def test_by_default_it_is_for_the_answer_given_and_maps_lie_between_0_and_1() -> None:
    network = classifier("alexnet")
    x = images()
    found = gradcam(network, network.backbone, x, None, "conv4")
    same = gradcam(network, network.backbone, x, network(x).argmax(1), "conv4")
    assert torch.equal(found.maps, same.maps)
    assert float(found.maps.min()) >= 0
    assert float(found.maps.max()) == 1
    assert not any(one.grad is not None for one in network.parameters())


def test_tokens_are_put_where_they_lie_and_a_last_block_has_no_say() -> None:
    network = classifier("timm/vit_tiny_patch16_224", 32)
    x = images(32)
    with pytest.raises(InputError, match="class token alone"):
        gradcam(network, network.backbone, x, None, "blocks.11")
    assert deepest(network, network.backbone, x) == "blocks.10"
    maps = gradcam(network, network.backbone, x, None, "blocks.10").maps
    assert maps.shape == (3, 32, 32)
    inner: Any = network.backbone.network
    seen: list[torch.Tensor] = []
    hook = inner.blocks[10].register_forward_hook(lambda *given: seen.append(given[2]))
    out = network(x.requires_grad_())
    hook.remove()
    (gradient,) = torch.autograd.grad(out.amax(1).sum(), seen[0])
    # Four patches after the class token, row by row.
    cells = torch.einsum("bc,bnc->bn", gradient[:, 1:].mean(1), seen[0][:, 1:]).relu()
    large = F.interpolate(cells.view(3, 1, 2, 2), (32, 32), mode="bilinear")[:, 0].detach()
    large = large / large.flatten(1).amax(1)[:, None, None].clamp(min=1e-9)
    assert torch.allclose(maps, large, atol=1e-4)


@pytest.mark.parametrize(("layer", "said"), [("fc1", "has no cells; take conv5"), ("fc2", "cells")])
def test_layers_without_cells_are_refused(layer: str, said: str) -> None:
    network = classifier("alexnet")
    with pytest.raises(InputError, match=said):
        gradcam(network, network.backbone, images(), None, layer)


def test_where_there_is_no_evidence_the_image_is_as_it_was(tmp_path: Path) -> None:
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    evidence = torch.zeros(16, 16)
    assert torch.equal(overlaid(image, evidence), image)
    evidence[4, 5] = 1
    changed = (overlaid(image, evidence) != image).any(0).nonzero().tolist()
    assert changed == [[4, 5]]
    looks = [Look(image, None, "image"), Look(image, evidence, "for a", "90 %", True)]
    sheet(tmp_path / "a.png", [("x.png", looks)], title="A", note="n", legend=("good", "bad"))
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.width >= 560
