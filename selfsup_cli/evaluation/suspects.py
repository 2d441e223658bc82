"""Which labels are wrong? What training shows of each sample, and how well it tells (chapter 8).

The weights of mini-batches ask whether a gradient agrees with that of other samples. For the last
layer alone that is known of every sample without another pass: with logits z = W f + b and
cross-entropy, its gradient for W is (p − y) fᵀ, and its inner product with a gradient V is
(p − y)ᵀ V f. Here V is the mean gradient of all other mini-batches of the step, features are
centred on the step, and the cosine counts: on a single validation mini-batch of eight, with the
mean that all features share, wrong labels are hardly told from right ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs.statistics import Interval, wilson

Ranking = Literal["agreement", "loss", "both"]
RANKINGS: tuple[Ranking, ...] = ("agreement", "loss", "both")


class Suspicion:
    """What was seen of each of `samples` samples in training, on the CPU: 24 bytes for each.

    `memory` and `remember` carry it through checkpoints.
    """

    def __init__(self, samples: int) -> None:
        self._visits = torch.zeros(samples, dtype=torch.int64)
        self._agreement = torch.zeros(samples)
        self._loss = torch.zeros(samples)
        self._support = torch.zeros(samples)
        self._other = torch.full((samples,), -1, dtype=torch.int32)

    @torch.no_grad()
    def see(
        self, index: Sequence[Tensor], features: Sequence[Tensor], logits: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Note a step of several mini-batches of equal length.

        Each has its samples `index` int64 `[B]`, the input `features` `[B, D]` of the last layer,
        its output `logits` `[B, C]`, and the `labels` int64 `[B]` that were given. What is not
        finite is not noted.
        """
        y, z = torch.stack(list(labels)), torch.stack(list(logits)).float()
        p = z.softmax(2)
        agreement = agreements(torch.stack(list(features)).float(), p, y)
        loss = F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none")
        best = p.scatter(2, y[..., None], -1.0).max(2)
        found = torch.stack([agreement.flatten(), loss, best.values.flatten()]).cpu()
        where, second = torch.cat(list(index)).cpu(), best.indices.flatten().cpu().int()
        finite = found.isfinite().all(0)
        where, second, found = where[finite], second[finite], found[:, finite]
        self._visits.index_add_(0, where, torch.ones_like(where))
        self._agreement.index_add_(0, where, found[0])
        self._loss.index_add_(0, where, found[1])
        self._vote(where, second, found[2])

    def scores(self, ranking: Ranking) -> np.ndarray:
        """Suspicion float64 `[N]`, larger where a label is more likely wrong; NaN where none.

        "agreement": minus the mean cosine with the gradients of others over all visits; "loss": the
        mean loss, as samples are usually ranked; "both": the mean of the ranks by each (0 … 1).
        """
        if ranking == "both":
            seen = (self._visits > 0).numpy()
            ranks = [_ranks(self.scores(one)[seen]) for one in ("agreement", "loss")]
            scores = np.full(len(seen), np.nan)
            scores[seen] = sum(ranks) / (2 * max(int(seen.sum()), 1))
            return scores
        total = -self._agreement if ranking == "agreement" else self._loss
        mean: np.ndarray = (total.double() / self._visits).numpy()
        return mean

    @property
    def proposed(self) -> np.ndarray:
        """The label other than its own that the network took each sample for most, int64 `[N]`.

        By a running majority of the most probable other label, weighted with its probability; −1
        for samples that were never seen.
        """
        proposal: np.ndarray = self._other.numpy().astype(np.int64)
        return proposal

    def memory(self) -> dict[str, Tensor]:
        """All that was seen, as tensors."""
        return {name.removeprefix("_"): value.clone() for name, value in vars(self).items()}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        for name in vars(self):
            getattr(self, name).copy_(memory[name.removeprefix("_")])

    @classmethod
    def joined(cls, memories: Sequence[Mapping[str, Tensor]]) -> Suspicion:
        """What several processes saw, each of other samples or in other steps, as `memory` gives
        it. The proposal is that of the process where it had the most support."""
        whole = cls(len(memories[0]["visits"]))
        for name in ("visits", "agreement", "loss"):
            getattr(whole, f"_{name}").copy_(sum(memory[name] for memory in memories))
        support = torch.stack([memory["support"] for memory in memories])
        # Where nobody has support, there may still be a vote that was cancelled.
        others = torch.stack([memory["other"] for memory in memories])
        best = torch.where(others >= 0, support, -1.0).max(0)
        whole._support.copy_(best.values.clamp(min=0))
        whole._other.copy_(others.gather(0, best.indices[None])[0])
        return whole

    def _vote(self, index: Tensor, candidate: Tensor, weight: Tensor) -> None:
        """One vote each; of a sample that comes up twice in a mini-batch, the last one counts."""
        support, other = self._support[index], self._other[index]
        same = candidate == other
        left = torch.where(same, support + weight, support - weight)
        self._other[index] = torch.where(left < 0, candidate, other)
        self._support[index] = left.abs()


def agreements(features: Tensor, p: Tensor, labels: Tensor) -> Tensor:
    """The cosine `[k, B]` of each sample's last-layer gradient with that of other mini-batches.

    `features` `[k, B, D]`, probabilities `p` `[k, B, C]` and `labels` int64 `[k, B]` are those of
    the k mini-batches of a step. With a single one there are no others: zeros.
    """
    f = features - features.mean((0, 1))
    errors = p - F.one_hot(labels, p.shape[2])
    each = torch.einsum("kbc,kbd->kcd", errors, f)
    others = each.sum(0) - each
    inner = torch.einsum("kbc,kcd,kbd->kb", errors, others, f)
    sizes = errors.norm(dim=2) * f.norm(dim=2) * others.flatten(1).norm(dim=1)[:, None]
    return torch.where(sizes > 0, inner / sizes, 0.0)


@dataclass(frozen=True)
class Suspect:
    """A sample whose label may be wrong: its place in the data, score and labels (numbers)."""

    index: int
    score: float
    given: int
    proposed: int


def suspects(
    scores: np.ndarray, given: np.ndarray, proposed: np.ndarray, count: int | None = None
) -> list[Suspect]:
    """The `count` samples with the highest scores (all, if None), of equals the first ones first.

    Samples without a score (NaN) are left out.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])][:count]
    return [Suspect(int(i), float(scores[i]), int(given[i]), int(proposed[i])) for i in order]


def auroc(scores: np.ndarray, wrong: np.ndarray) -> tuple[float, Interval]:
    """How probably a wrong label has a higher score than a right one (ties count half).

    `scores` `[N]` without NaN, `wrong` bool `[N]`. The interval is DeLong's, on the scale of the
    log odds, so that it stays inside of [0, 1]; a perfect ranking has that of as many independent
    pairs as there are samples of the rarer kind. Raises InputError unless some labels are wrong and
    some right.
    """
    m, n = int(wrong.sum()), int((~wrong).sum())
    if not m or not n:
        which = "wrong" if n else "right"
        raise InputError(f"there is no {which} label to tell from the others", kind="suspects")
    among, inside = _ranks(scores), np.empty(len(scores))
    inside[wrong], inside[~wrong] = _ranks(scores[wrong]), _ranks(scores[~wrong])
    # Of each wrong one, the share of right ones below it; of each right one, of wrong ones above.
    higher = (among - inside)[wrong] / n
    lower = 1 - (among - inside)[~wrong] / m
    area = float(higher.mean())
    variance = sum(float(one.var(ddof=1)) / len(one) for one in (higher, lower) if len(one) > 1)
    if not 0 < area < 1 or not variance:
        few = min(m, n)
        bound = wilson(round(area * few), few)
        return area, Interval(
            low=min(bound.low, area), high=max(bound.high, area), method="Wilson, over samples"
        )
    half = NormalDist().inv_cdf(0.975) * math.sqrt(variance) / (area * (1 - area))
    odds = math.log(area / (1 - area))
    low, high = (1 / (1 + math.exp(-(odds + sign * half))) for sign in (-1, 1))
    return area, Interval(low=low, high=high, method="DeLong, log odds")


def precision_at(scores: np.ndarray, wrong: np.ndarray, k: int) -> tuple[float, Interval]:
    """Share of wrong labels among the `k` with the highest scores, with Wilson's interval.

    Raises InputError for a k that the samples do not have.
    """
    if not 1 <= k <= len(scores):
        raise InputError(f"precision is asked for at {k} of {len(scores)} samples", kind="suspects")
    hits = int(wrong[np.argsort(-scores, kind="stable")[:k]].sum())
    return hits / k, wilson(hits, k)


def confident_learning(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The peer: suspicion `[N]` by cleanlab's self-confidence, 1 less the quality of each label.

    `probabilities` `[N, C]` are of a network that was not trained on the samples, `given`
    int64 `[N]`. Raises MachineError where cleanlab is not installed.
    """
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MachineError(
            "confident learning is not installed",
            kind="missing-extra",
            hint="install it: pip install 'selfsup[noise]'",
        ) from error
    return 1 - np.asarray(get_label_quality_scores(given, probabilities), np.float64)


def named(found: Sequence[Suspect], ids: Sequence[str], classes: Sequence[str]) -> list[list[str]]:
    """The rows of `suspects.csv` with its header: id, given label, proposed label, score."""
    rows = [["id", "given", "proposed", "score"]]
    for one in found:
        proposed = classes[one.proposed] if one.proposed >= 0 else ""
        rows.append([ids[one.index], classes[one.given], proposed, f"{one.score:.6g}"])
    return rows


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, of equals their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    mean: np.ndarray = (np.cumsum(count) - (count - 1) / 2)[place]
    return mean
