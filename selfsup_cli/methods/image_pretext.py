"""What methods on images share: a classifier that tells how an image was transformed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.registry import PADDED
from selfsup_cli.data.framing import Plan
from selfsup_cli.engine.trainable import Trainable
from selfsup_cli.methods.pretext import Questions
from selfsup_cli.models import Backbone, build
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Finding
from selfsup_cli.transforms.inpainting import Inpainted


@dataclass(frozen=True)
class Examples:
    """What the classifier is fed of B images, transformed in K ways.

    `crops` float `[K·B, 3, C, C]` in [-1, 1], all images of the first kind, then all of the second,
    and so on; `labels` int64 `[K·B]` counts the kinds. They were made of `canvases` float
    `[B, 3, S, S]`, and of these as they were `inpainted`, where something asks for it.
    """

    crops: Tensor
    labels: Tensor
    canvases: Tensor
    inpainted: Inpainted | None = None


@dataclass(frozen=True)
class Quality:
    """A number that says how well what transforms images does its part, and what follows."""

    name: str
    value: float
    finding: Finding


class ImagePretext(Trainable):
    """A method that learns from images by recognising what was done to them.

    `kinds` names the K ways in which each image is transformed. A method gives a `plan` and
    `examples`, a `step` that trains on them, and its `recogniser`, a network with a `backbone` that
    answers the questions.
    """

    networks: tuple[str, ...] = ("recogniser",)
    questions: Questions
    kinds: Sequence[str]
    recogniser: nn.Module

    def __init__(self, preset: PretrainImages) -> None:
        super().__init__()
        self.preset = preset

    @property
    def plan(self) -> Plan:
        """What is cut out of an image in training."""
        raise NotImplementedError

    @property
    def plain(self) -> nn.Module:
        """The network itself, also where it is wrapped for several processes."""
        return unwrapped(self.recogniser)

    @property
    def backbone(self) -> Backbone:
        """What is kept after pretraining."""
        backbone = self.plain.backbone
        assert isinstance(backbone, Backbone)  # noqa: S101 (see above)
        return backbone

    @property
    def asking(self) -> bool:
        """Whether the questions can be answered yet; some methods have to train something first."""
        return True

    def examples(self, images: Tensor, g: torch.Generator) -> Examples:
        """Transform canvases uint8 `[B, 3, S, S]` in all ways. Gradients reach what transforms."""
        raise NotImplementedError

    @torch.no_grad()
    def judge(
        self, images: Tensor, g: torch.Generator
    ) -> tuple[Examples, dict[str, Tensor], dict[str, Tensor]]:
        """Examples of canvases uint8 `[B, 3, S, S]`, the logits of each question, the answers."""
        examples = self.examples(images, g)
        return examples, self.plain(examples.crops), {"transformation": examples.labels}

    def facts(self) -> dict[str, Any]:
        """What else than its kinds and questions tells it from others of its name: plain values."""
        return {}

    def quality(self, examples: Examples) -> dict[str, Tensor]:
        """How well what transforms does its part: scalars."""
        return {}

    def describe(self, quality: Mapping[str, float]) -> list[Quality]:
        """Those scalars of held-out images, each with a sentence about it."""
        return []


def unwrapped(network: nn.Module) -> nn.Module:
    """The network without what wraps it for several processes."""
    found: nn.Module = getattr(network, "module", network)
    return found


def initial_backbone(preset: PretrainImages) -> Backbone:
    """The backbone before training, a function of the preset and its seed."""
    framing, network = preset.framing, preset.network
    side = framing.sides()[1]
    return build(
        network.arch,
        width=network.width,
        padding=network.padding if network.arch in PADDED else None,
        crop=framing.crop,
        resize=(side, side),
        seed=derive(preset.train.seed, "backbone"),
    )
