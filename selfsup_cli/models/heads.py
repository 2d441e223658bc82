"""What is put on top of a backbone."""

from __future__ import annotations

import torch
from torch import nn

from selfsup_cli.models.layers import truncated_normal


class LinearHead(nn.Linear):
    """`[B, in_features]` → `[B, out_features]` logits; bias zero.

    Weights come from N(0, 10⁻³), as on the thesis' residual networks; with `xavier` from the
    uniform distribution that all of its C3D starts from (section 5.2.3); or with `truncated` from
    a normal distribution of that σ cut at 2σ (0.005 in its AlexNet, section 4.4). They are drawn
    from `generator` (on the CPU), or without one from PyTorch's default.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        xavier: bool = False,
        truncated: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device="meta")
        self.to_empty(device="cpu")
        if xavier:
            nn.init.xavier_uniform_(self.weight, generator=generator)
        elif truncated is not None:
            truncated_normal(self.weight, truncated, generator)
        else:
            nn.init.normal_(self.weight, std=1e-3, generator=generator)
        nn.init.zeros_(self.bias)
