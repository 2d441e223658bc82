"""The network that compares two images (thesis, section 6.2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.heads import LinearHead

Fusion = Literal["mult", "add", "diff", "concat"]
Question = Literal["sync", "flip"]
QUESTIONS: tuple[Question, ...] = ("sync", "flip")


class Siamese(nn.Module):
    """F_i(x₁, x₂) = ω_i(ReLU(Φ(x₁) ⊙ Φ(x₂))): the same backbone Φ for both, a linear ω_i each.

    `sync` says whether two images are synchronised, `flip` whether neither of them is mirrored,
    both as logits; it is asked the `questions` that it has heads for. Other fusions than the
    product ("mult") are for comparison; "diff" and "concat" tell which image came first.
    """

    def __init__(
        self,
        backbone: Backbone,
        fusion: Fusion = "mult",
        *,
        relu: bool = True,
        questions: Sequence[Question] = QUESTIONS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion: Fusion = fusion
        self.relu = relu
        width = backbone.out_features * (2 if fusion == "concat" else 1)
        self.questions: tuple[Question, ...] = tuple(questions)
        for name in self.questions:
            self.add_module(name, LinearHead(width, 1, xavier=True, generator=generator))

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Features float `[..., D]` of both images → `[..., D]`, of "concat" `[..., 2·D]`."""
        match self.fusion:
            case "mult":
                fused = first * second
            case "add":
                fused = first + second
            case "diff":
                fused = first - second
            case "concat":
                wide = first + torch.zeros_like(second)
                fused = torch.cat([wide, second + torch.zeros_like(first)], -1)
        return F.relu(fused) if self.relu else fused

    def score(self, question: Question, first: Tensor, second: Tensor) -> Tensor:
        """The logits `[...]` of one question about pairs of features `[..., D]`."""
        head: nn.Linear = getattr(self, question)
        found: Tensor = head(self.fuse(first, second))
        return found.squeeze(-1)

    def forward(self, images: Tensor, pairs: Mapping[Question, Tensor]) -> dict[Question, Tensor]:
        """Images float `[N, 3, S, S]` in [-1, 1], each seen once → logits `[P]` of each question.

        `pairs` int64 `[P, 2]` says of which images (0 … N - 1) each question is asked.
        """
        features = self.backbone(images)
        return {
            name: self.score(name, features[ij[:, 0]], features[ij[:, 1]])
            for name, ij in pairs.items()
        }
