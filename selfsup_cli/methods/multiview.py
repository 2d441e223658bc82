"""Recognising synchronised and mirrored views (thesis, chapter 6).

A subject is seen by several cameras. Two views of one moment are related by a rigid motion, two of
different moments are not, as the subject has moved; nor are two of one moment of which one is
mirrored. To tell these three from each other (Eq. 6.1) features have to know the pose in space.
What stands still behind the subject would do as well for mirrored views, so it is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.multiview import PretrainMultiview, SiameseNetwork
from selfsup_cli.config.registry import IMAGENET_ARCHS, TIMM
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.library_weights import load_library_weights
from selfsup_cli.models.siamese import QUESTIONS, Question, Siamese
from selfsup_cli.randomness import derive, generator
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.transforms.views import ANCHOR, LATER, MIRRORED, PARTNER, Prepared, prepare

# Transformation: what `transforms.views.prepare` makes of an anchor.

IMAGES = 4


def pairs_of(prepared: Prepared) -> dict[Question, Tensor]:
    """Which of the 4·B images (four of the first anchor, four of the next …) make pairs.

    int64 `[2·B, 2]` of each question: B pairs of which the answer is yes, then B of which it is
    no. x_p are an anchor and its partner, x_n the anchor and a later image, x_f anchor and partner
    one of which is mirrored. Whether x_f is synchronised is not asked, nor whether x_n is mirrored.
    """
    second = prepared.second
    base = IMAGES * torch.arange(len(second), device=second.device)
    synchronised = torch.stack([base + ANCHOR, base + PARTNER], 1)
    unsynchronised = torch.stack([base + ANCHOR, base + LATER], 1)
    mirrored = torch.stack(
        [
            torch.where(second, base + ANCHOR, base + MIRRORED),
            torch.where(second, base + MIRRORED, base + PARTNER),
        ],
        1,
    )
    return {
        "sync": torch.cat([synchronised, unsynchronised]),
        "flip": torch.cat([synchronised, mirrored]),
    }


# Networks


def initial_backbone(network: SiameseNetwork, side: int, seed: int) -> Backbone:
    """The backbone before training, a function of the settings and the seed.

    Raises InputError for a network that cannot be built, and for weights that are not its own.
    """
    ordinary = network.arch in IMAGENET_ARCHS or network.arch.startswith(TIMM)
    if not ordinary and not network.final_relu:
        raise InputError(
            f"{network.arch} always ends with its own activation; use --final-relu, or resnet18, "
            "resnet34, resnet50 or one of timm's, which can do without",
            kind="network",
        )
    backbone = build(
        network.arch,
        width=network.width,
        signed=not network.final_relu,
        colours="imagenet" if ordinary else None,
        crop=side,
        seed=derive(seed, "backbone"),
    )
    if network.init == "imagenet":
        if network.weights is None:
            raise InputError(
                "--init imagenet takes a file of weights: name it with --weights", kind="weights"
            )
        load_library_weights(Path(network.weights), backbone)
    elif network.weights is not None:
        raise InputError("--weights is for --init imagenet; give both", kind="weights")
    return backbone


# Losses


def losses(logits: Mapping[Question, Tensor]) -> dict[Question, Tensor]:
    """The terms of Eq. 6.1, the mean over anchors of each question's two.

    `logits` float `[2·B]`: of pairs of which the answer is yes, then of as many others. With
    F = σ(logit) it is −mean_j [log F(x_p⁽ʲ⁾) + log(1 − F(x_n⁽ʲ⁾))], and with x_f for `flip`.
    """
    found: dict[Question, Tensor] = {}
    for name, given in logits.items():
        yes, no = given.float().chunk(2)
        found[name] = (F.softplus(-yes) + F.softplus(no)).mean()
    return found


def right(logits: Tensor) -> Tensor:
    """Share of `[2·B]` logits that answer right: the first half yes, the second no."""
    yes, no = logits.chunk(2)
    return torch.cat([yes > 0, no < 0]).float().mean()


class Multiview(Trainable):
    """The method as the engine sees it."""

    networks: tuple[str, ...] = ("recogniser",)

    def __init__(self, preset: PretrainMultiview) -> None:
        super().__init__()
        self.preset = preset
        network, seed = preset.network, preset.train.seed
        signals = preset.pairs.signals
        if preset.pairs.views == "single" and not preset.pairs.jitter.on:
            raise InputError(
                "synchronised images of a single camera are one image unless they are changed at "
                "random: use --set pairs.jitter.rotate=20, or --preset multiview/table-6.1/l",
                kind="preset",
            )
        self.recogniser = Siamese(
            initial_backbone(network, preset.data.side, seed),
            network.fusion,
            relu=network.fusion_relu,
            questions=[name for name in QUESTIONS if signals in ("both", name)],
            generator=generator(seed, "heads"),
        )

    @property
    def plain(self) -> Siamese:
        """The network itself, also where it is wrapped for several processes."""
        found: Siamese = getattr(self.recogniser, "module", self.recogniser)
        return found

    @property
    def backbone(self) -> Backbone:
        """What is kept after pretraining."""
        return self.plain.backbone

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": build_optimizer(self.recogniser, self.preset.optim)}

    def prepare(self, batch: Batch, g: torch.Generator) -> Prepared:
        """The images of a batch of anchors, as `data.view_pairs.AnchorDataset` reads them."""
        masks, backgrounds = batch.get("masks"), batch.get("backgrounds")
        return prepare(batch["views"], masks, backgrounds, self.preset.pairs, g)

    def judge(self, prepared: Prepared) -> dict[Question, Tensor]:
        """The logits `[2·B]` of each question (see `pairs_of`); every image is seen once."""
        images = to_unit(prepared.images.flatten(0, 1))
        asked = pairs_of(prepared)
        found: dict[Question, Tensor] = self.recogniser(
            images, {name: asked[name] for name in self.plain.questions}
        )
        return found

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        prepared = self.prepare(batch, update.generator("pairs"))
        with update.autocast():
            logits = self.judge(prepared)
        parts = losses(logits)
        loss = torch.stack(list(parts.values())).sum()
        update(loss)
        out = {"loss": loss.detach()}
        for name, value in parts.items():
            out[f"loss_{name}"] = value.detach()
            out[f"acc_{name}"] = right(logits[name].detach())
        return out

    def facts(self) -> dict[str, Any]:
        """What the network was asked to learn, and how: plain values."""
        pairs, network = self.preset.pairs, self.preset.network
        return {
            "questions": list(self.plain.questions),
            "fusion": network.fusion,
            "background": pairs.background,
            "views": pairs.views,
            "gaps": [pairs.min_gap, pairs.max_gap],
            "init": network.init,
        }


METHOD = Multiview
