"""A batch as mini-batches that pass through a network one by one (thesis, section 8.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from selfsup_cli.engine.bilevel import Loss
from selfsup_cli.randomness import derive


def mini_batches(batch: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Cut all tensors of a batch (`[B, …]`) into `count` parts of equal length, in order.

    Raises ValueError where they cannot be cut so.
    """
    lengths = {len(value) for value in batch.values()}
    if len(lengths) != 1 or max(lengths) % count:
        raise ValueError(f"a batch of {sorted(lengths)} cannot be cut into {count} equal parts")
    cut = {name: value.chunk(count) for name, value in batch.items()}
    return [{name: parts[i] for name, parts in cut.items()} for i in range(count)]


class Averages:
    """The averages that `module` keeps of what passes through it (batch norm), as they are now."""

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(b, b.clone()) for b in module.buffers() if b.is_floating_point()]

    def mend(self) -> None:
        """Take back what is no longer finite: a mini-batch that does not count leaves nothing."""
        for now, before in self._kept:
            now.copy_(torch.where(now.isfinite(), now, before))


def with_masks(
    losses: Sequence[Loss], seed: int, step: int, *, equal: bool = False, first: int = 0
) -> list[Loss]:
    """The same losses, with dropout that is a function of (seed, step, number of the mini-batch).

    `equal` gives all of them the same masks, as the ablations of table 8.1 have it but for row d;
    else they are independent. `first` is the number of the first one here, where others are
    in other processes. PyTorch's global generators are seeded, and left so.
    """
    return [
        _seeded(loss, derive(seed, step, 0 if equal else first + i, "dropout"))
        for i, loss in enumerate(losses)
    ]


def _seeded(loss: Loss, seed: int) -> Callable[[], Tensor]:
    def with_seed() -> Tensor:
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed(seed)
        return loss()

    return with_seed
