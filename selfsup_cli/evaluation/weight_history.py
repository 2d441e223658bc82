"""The weights that mini-batches got in training, of as many steps as can be shown (chapter 8)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_KEPT = 4096


class WeightHistory:
    """The weights ω̂ of mini-batches, and the share of wrong labels in each, of every n-th step.

    Begins with every step; whenever more than 4,096 are kept, every second one of them is
    forgotten. `memory` and `remember` carry it through checkpoints.
    """

    def __init__(self) -> None:
        self._stride = 1
        self._steps: list[int] = []
        self._weights: list[Tensor] = []
        self._wrong: list[Tensor] = []

    def see(self, step: int, weights: Tensor, wrong: Tensor | None) -> None:
        """Note the weights `[k − 1]` of a step, and the shares (0 … 1, `[k − 1]`) if known."""
        if step % self._stride:
            return
        self._steps.append(step)
        self._weights.append(weights.float().cpu())
        self._wrong.append(
            torch.full_like(self._weights[-1], torch.nan) if wrong is None else wrong
        )
        if len(self._steps) > _KEPT:
            self._stride *= 2
            kept = [i for i, one in enumerate(self._steps) if one % self._stride == 0]
            self._steps = [self._steps[i] for i in kept]
            self._weights = [self._weights[i] for i in kept]
            self._wrong = [self._wrong[i] for i in kept]

    def __len__(self) -> int:
        return len(self._steps)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The steps int64 `[S]`, weights and shares of wrong labels float32 `[S, k − 1]`."""
        empty = np.zeros((0, 0), np.float32)
        if not self._steps:
            return np.zeros(0, np.int64), empty, empty
        return (
            np.array(self._steps, np.int64),
            torch.stack(self._weights).numpy(),
            torch.stack(self._wrong).numpy(),
        )

    def memory(self) -> dict[str, Tensor]:
        """All of it, as tensors."""
        steps, weights, wrong = self.arrays()
        return {
            "stride": torch.tensor(self._stride),
            "steps": torch.from_numpy(steps),
            "weights": torch.from_numpy(weights),
            "wrong": torch.from_numpy(wrong),
        }

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        self._stride = int(memory["stride"])
        self._steps = memory["steps"].tolist()
        self._weights = list(memory["weights"])
        self._wrong = list(memory["wrong"])
