"""Features made comparable: mean 0 and variance 1, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.errors import InputError


@dataclass(frozen=True)
class Standard:
    """Subtracts `mean` and multiplies by `scale`, float32 [D] each: batch norm without affine."""

    mean: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[n, D] → [n, D], with mean 0 and variance 1 on what the statistics were taken from."""
        return (x - self.mean.to(x.device)) * self.scale.to(x.device)

    @classmethod
    def none(cls, features: int) -> Standard:
        """Statistics that leave features as they are."""
        return cls(torch.zeros(features), torch.ones(features))


def standard(blocks: Iterator[Tensor]) -> Standard:
    """Per-feature statistics of rows that come in blocks [n, D], in one pass.

    As in batch norm, a small constant is added to the variances, so that features that hardly vary
    do not drown the rest in noise; it is a thousandth of the mean variance (0.001 is what batch
    norm takes where the variances are about 1), so the result does not depend on the layer's scale.
    """
    count = 0
    mean = square = torch.zeros(())
    for block in blocks:
        block = block.double()
        n = len(block)
        if n == 0:
            continue
        own = block.mean(0)
        delta = own - mean
        deviation = (block - own).square().sum(0)
        square = square + deviation + delta.square() * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
    if count == 0:
        raise InputError("there are no features to take statistics of")
    variance = square / count
    scale = (variance + 1e-3 * variance.mean()).rsqrt()
    return Standard(mean.float(), torch.where(torch.isfinite(scale), scale, 0.0).float())
