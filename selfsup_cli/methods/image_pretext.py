"""What methods on images share: a classifier that tells how an image was transformed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.data.framing import Crop
from selfsup_cli.engine.trainable import Trainable
from selfsup_cli.methods.pretext import Questions, Recogniser
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

    `kinds` names the K ways in which each image is transformed. A method gives `examples`, and a
    `step` that trains on them.
    """

    networks: tuple[str, ...] = ("recogniser",)
    questions: Questions
    kinds: Sequence[str]
    recogniser: Recogniser

    def __init__(self, preset: PretrainImages) -> None:
        super().__init__()
        self.preset = preset

    @property
    def plan(self) -> Crop:
        """What is cut out of an image: the canvas, anywhere in it."""
        side = self.preset.framing.canvas
        return Crop((side, side), self.preset.framing.shorter, random=True)

    @property
    def plain(self) -> Recogniser:
        """The network itself, also where it is wrapped for several processes."""
        network: Recogniser = getattr(self.recogniser, "module", self.recogniser)
        return network

    @property
    def backbone(self) -> Backbone:
        """What is kept after pretraining."""
        return self.plain.backbone

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

    def quality(self, examples: Examples) -> dict[str, Tensor]:
        """How well what transforms does its part: scalars."""
        return {}

    def describe(self, quality: Mapping[str, float]) -> list[Quality]:
        """Those scalars of held-out images, each with a sentence about it."""
        return []


def initial_backbone(preset: PretrainImages) -> Backbone:
    """The backbone before training, a function of the preset and its seed."""
    framing, network = preset.framing, preset.network
    side = framing.shorter or framing.canvas
    thesis = network.arch == "alexnet"
    return build(
        network.arch,
        width=network.width,
        padding=network.padding if thesis else None,
        crop=framing.crop,
        resize=(side, side),
        seed=derive(preset.train.seed, "backbone"),
    )
