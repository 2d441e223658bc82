"""What training on labels shows of the samples and of the weights of their mini-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from selfsup_cli.engine import processes
from selfsup_cli.engine.bilevel import Weighting
from selfsup_cli.evaluation.suspects import Suspicion
from selfsup_cli.evaluation.weight_history import WeightHistory


class Looking:
    """Watches the last layer of a network in training: how suspicious is the label of each sample?

    `wrong` bool `[N]` says which labels are wrong on purpose, None where nobody knows.
    """

    def __init__(self, samples: int, wrong: np.ndarray | None) -> None:
        self.suspicion = Suspicion(samples)
        self.history = WeightHistory()
        self._wrong = None if wrong is None else torch.from_numpy(wrong).float()
        self._fed: Tensor | None = None

    def attend(self, last: nn.Module) -> None:
        """Note from now on what the last layer is fed."""

        def note(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._fed = inputs[0].detach() if torch.is_grad_enabled() else None

        last.register_forward_pre_hook(note)

    def fed(self) -> Tensor:
        """What the last layer was fed in the last pass, `[B, D]`."""
        assert self._fed is not None  # noqa: S101 (a pass in training has gone before)
        return self._fed

    @torch.no_grad()
    def see(
        self,
        step: int,
        seen: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        weighting: Weighting | None = None,
    ) -> dict[str, float]:
        """Note the mini-batches of a step: (samples, features, logits, labels) of each.

        In a group of processes each gives its own, as many as the others. Gives numbers to log of
        the weights of mini-batches of few and of many wrong labels, where that is known.
        """
        samples, features, logits, labels = (
            _everybodys(torch.stack([one[part] for one in seen])) for part in range(4)
        )
        self.suspicion.see(list(samples), list(features), list(logits), list(labels))
        if weighting is None:
            return {}
        weights = weighting.weights
        weights = weights.mean(1) if weights.ndim > 1 else weights
        wrong = None
        if self._wrong is not None:
            wrong = self._wrong[samples.cpu()].mean(1)[1:]
        self.history.see(step, weights, wrong)
        if wrong is None:
            return {}
        # Every step logs the same names; where all are alike both are the mean of all. Counts are
        # compared, as the mean of equal shares is rounded.
        counts = (wrong * samples.shape[1]).round()
        mean = counts.sum() / len(counts)
        few, many = counts < mean, counts > mean
        if not bool(many.any()):
            few = many = torch.ones_like(few)
        return {
            "omega_fewer_wrong": float(weights[few].mean()),
            "omega_more_wrong": float(weights[many].mean()),
        }

    def memory(self) -> dict[str, Tensor]:
        """All that was seen, as tensors."""
        parts = {"suspicion": self.suspicion.memory(), "weights": self.history.memory()}
        return {
            f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()
        }

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        for part, holder in (("suspicion", self.suspicion), ("weights", self.history)):
            start = f"{part}."
            own = {k.removeprefix(start): v for k, v in memory.items() if k.startswith(start)}
            holder.remember(own)


def _everybodys(own: Tensor) -> Tensor:
    """Tensors `[n, …]` of all processes, those of the first process first."""
    if processes.members() == 1:
        return own
    own = own.contiguous()
    parts = [torch.empty_like(own) for _ in range(processes.members())]
    dist.all_gather(parts, own)
    return torch.cat(parts)
