"""Images and labels mixed in pairs, and labels made soft: the rivals of thesis' table 8.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Images `[B, 3, H, W]` of which `share` is one image and the rest another, and the labels
    int64 `[B]` of both; `order` int64 `[B]` says which other one."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: float
    order: Tensor


def mixup(images: Tensor, labels: Tensor, alpha: float, generator: torch.Generator) -> Mixed:
    """Mix each image (float) with another one of the batch, all by one share from Beta(α, α).

    `generator` is on the CPU; α of 0 mixes nothing. Mini-batches whose labels stand in the same
    order, as those of `MatchedSampler` do, are to be mixed with generators in the same state: then
    their mixed labels are the same, too.
    """
    if alpha < 0:
        raise ValueError(f"α has to be at least 0, not {alpha:g}")
    if not alpha:
        return Mixed(images, labels, labels, 1.0, torch.arange(len(labels)))
    # PyTorch draws from Beta with its global generator only.
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    share = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    mixed = share * images + (1 - share) * images[order]
    return Mixed(mixed, labels, labels[order], share, order)


def mixed_cross_entropy(logits: Tensor, mixed: Mixed, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy with the labels of both images, by their shares.

    With `smoothing` ε the label gets 1 − ε of the probability, and all classes share ε.
    """
    own, other = (
        F.cross_entropy(logits, labels, label_smoothing=smoothing)
        for labels in (mixed.labels, mixed.others)
    )
    return mixed.share * own + (1 - mixed.share) * other
