"""Chapter 6 as a method: the mended Eq. 6.1, who learns from which pairs, what is seen when."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError
from selfsup_cli.methods.multiview import Multiview, initial_backbone, losses, pairs_of, right
from selfsup_cli.transforms.views import ANCHOR, LATER, MIRRORED, PARTNER, Prepared

SMALL = "timm/test_resnet"


def method_of(**blocks: dict[str, Any]) -> Multiview:
    network = {"arch": SMALL, **blocks.pop("network", {})}
    data = {"side": 32}
    preset = PretrainMultiview.model_validate({"network": network, "data": data, **blocks})
    return Multiview(preset)


def some(count: int = 3, seed: int = 0) -> Prepared:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 4, 3, 32, 32), generator=g).to(torch.uint8)
    return Prepared(images, torch.arange(count) % 2 == 0)


def test_pairs_are_those_of_section_6_2_1() -> None:
    asked = pairs_of(some(2))
    base = [0, 4]
    assert asked["sync"].tolist() == [
        *([b + ANCHOR, b + PARTNER] for b in base),
        *([b + ANCHOR, b + LATER] for b in base),
    ]
    assert asked["flip"].tolist() == [
        *([b + ANCHOR, b + PARTNER] for b in base),
        [0 + ANCHOR, 0 + MIRRORED],  # of the first anchor the partner is mirrored
        [4 + MIRRORED, 4 + PARTNER],
    ]


def test_the_loss_is_the_mended_equation() -> None:
    """Against Eq. 6.1 by hand, pair by pair: minus before all four terms."""
    g = torch.Generator().manual_seed(1)
    given = {"sync": torch.randn(10, generator=g), "flip": torch.randn(10, generator=g)}
    found = losses(given)  # type: ignore[arg-type]
    f1, f2 = (1 / (1 + np.exp(-given[name].double().numpy())) for name in ("sync", "flip"))
    total = 0.0
    for j in range(5):
        total -= np.log(f1[j] * f2[j])  # x_p is both synchronised and not mirrored
        total -= np.log(1 - f1[5 + j]) + np.log(1 - f2[5 + j])
    assert float(found["sync"] + found["flip"]) == pytest.approx(total / 5, rel=1e-6)
    # However sure a wrong answer is, the loss is finite.
    sure = losses({"sync": torch.tensor([-200.0, 200.0])})
    assert float(sure["sync"]) == pytest.approx(400.0)
    assert float(right(torch.tensor([1.0, -1.0, -1.0, 1.0]))) == 0.5


@pytest.mark.parametrize("fusion", ["mult", "concat"])
def test_no_head_learns_from_the_pairs_that_say_nothing(fusion: str) -> None:
    """Gradients by image: the mirrored one never moves ω₁, the later one never moves ω₂."""
    method = method_of(network={"fusion": fusion}).eval()
    network = method.plain
    prepared = some(4)
    images = (prepared.images.flatten(0, 1).float() / 127.5 - 1).requires_grad_()
    found = network(images, pairs_of(prepared))
    parts = losses(found)
    for name, silent in (("sync", MIRRORED), ("flip", LATER)):
        (gradient,) = torch.autograd.grad(parts[name], images, retain_graph=True)  # type: ignore[index]
        moved = gradient.view(4, 4, -1).abs().amax((0, 2))
        assert moved[silent] == 0
        assert all(moved[k] > 0 for k in range(4) if k != silent)
    heads = {name: list(network.get_submodule(name).parameters()) for name in ("sync", "flip")}
    for name, other in (("sync", "flip"), ("flip", "sync")):
        reached = torch.autograd.grad(
            parts[name],  # type: ignore[index]
            [*heads[name], *heads[other]],
            retain_graph=True,
            allow_unused=True,
        )
        assert [one is not None for one in reached] == [True, True, False, False]


def batch_of(count: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    views = torch.randint(0, 256, (count, 3, 3, 32, 32), generator=g).to(torch.uint8)
    return {"views": views, "masks": torch.rand(count, 3, 32, 32, generator=g) > 0.3}


def test_a_step_sees_four_images_of_each_anchor_once_and_moves_everything() -> None:
    method = method_of()
    seen: list[int] = []
    method.backbone.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    before = {name: value.clone() for name, value in method.named_parameters()}
    update = Update(method.optimizers(), lambda _: 1.0, choose("cpu", "32"), seed=0)
    update.begin(0)
    row = method.step(batch_of(5), update)
    assert seen == [20]
    assert set(row) == {"loss", "loss_sync", "acc_sync", "loss_flip", "acc_flip"}
    assert float(row["loss"]) == pytest.approx(float(row["loss_sync"] + row["loss_flip"]))
    moved = {n for n, value in method.named_parameters() if not torch.equal(before[n], value)}
    assert {f"recogniser.{name}.weight" for name in ("sync", "flip")} <= moved
    assert any(name.startswith("recogniser.backbone.network.conv1") for name in moved)


@pytest.mark.parametrize(("signals", "other"), [("sync", "flip"), ("flip", "sync")])
def test_one_signal_alone_has_one_head(signals: str, other: str) -> None:
    method = method_of(pairs={"signals": signals})
    assert method.plain.questions == (signals,)
    assert not hasattr(method.plain, other)
    update = Update(method.optimizers(), lambda _: 1.0, choose("cpu", "32"), seed=0)
    update.begin(0)
    assert f"loss_{other}" not in method.step(batch_of(2), update)


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = (method_of(train={"seed": 3}).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = method_of(train={"seed": 4}).state_dict()
    assert not torch.equal(first["recogniser.sync.weight"], other["recogniser.sync.weight"])


def test_the_standard_block_is_an_option() -> None:
    network = method_of(network={"final_relu": True}).preset.network
    assert "signed" not in initial_backbone(network, 32, 0).spec
    assert method_of().backbone.spec["signed"] is True
    with pytest.raises(InputError, match="cifarnet always ends with its own activation"):
        method_of(network={"arch": "cifarnet"})
    plain = method_of(network={"arch": "cifarnet", "final_relu": True})
    assert isinstance(plain.backbone, nn.Module)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"network": {"init": "imagenet"}}, "--init imagenet takes a file of weights"),
        ({"network": {"weights": "a.safetensors"}}, "--weights is for --init imagenet"),
        ({"pairs": {"views": "single"}}, "one image unless they are changed"),
    ],
)
def test_what_lacks_its_other_half_is_told(blocks: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        method_of(**blocks)


def test_a_scene_that_stands_still_is_a_shortcut_for_mirrored_views_only_when_it_stays() -> None:
    """Of cameras that each have a scene of their own, the scene alone says whether one of two
    images is mirrored; with backgrounds removed nothing is left to say it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
    from tiny_views import TinyViews

    from selfsup_cli.config.multiview import Pairs
    from selfsup_cli.data.view_pairs import Anchor, read_anchor
    from selfsup_cli.randomness import generator
    from selfsup_cli.transforms.views import prepare

    views = TinyViews(cameras=2)
    sample = read_anchor(views, Anchor(0, 0, 1, 10, 40), masks=True)
    nobody = torch.zeros_like(sample["masks"])
    told = {}
    for background in ("keep", "remove"):
        pairs = Pairs(background=background)
        found = prepare(sample["views"], nobody, None, pairs, generator(0, "t"))
        told[background] = found.images[0]
    assert not torch.equal(told["keep"][PARTNER], told["keep"][PARTNER].flip(-1))
    assert torch.equal(told["remove"][PARTNER], told["remove"][PARTNER].flip(-1))
