"""How well pairs of views are recognised, and how that depends on the time between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.multiview import RATE
from selfsup_cli.data.view_pairs import AnchorDataset, Anchors, at_rate
from selfsup_cli.models.siamese import Question
from selfsup_cli.runs.report import Measurement, ProtocolValue, clustered_accuracy

Judge = Callable[[Mapping[str, Tensor], int], Mapping[Question, Tensor]]
"""A batch of anchors and its number → logits `[2·B]` of each question, yes first."""

STRETCH = 128
"""Frames at 50 Hz: anchors of a recording that fall into the same stretch count as one."""

NAMES: Mapping[Question, str] = {"sync": "synchronised or not", "flip": "mirrored or not"}


@dataclass(frozen=True)
class Answers:
    """What was answered about `n` anchors.

    `yes` and `no` bool `[n]` say of each question whether the pair of which the answer is yes, and
    that of which it is no, was recognised; `gaps` float `[n]` are the times between the images that
    are not synchronised, in frames at 50 Hz; `stretches` int64 `[n]` number the stretches of time.
    """

    yes: Mapping[Question, np.ndarray]
    no: Mapping[Question, np.ndarray]
    gaps: np.ndarray
    stretches: np.ndarray

    def score(
        self, question: Question, name: str | None = None, chosen: np.ndarray | None = None
    ) -> PairScore:
        """Accuracy over both kinds of pairs of all anchors, or of those `chosen` (bool `[n]`)."""
        kept = np.ones(len(self.gaps), bool) if chosen is None else chosen
        both = (self.yes[question][kept] + self.no[question][kept].astype(np.float64)) / 2
        return PairScore.of(name or NAMES[question], both, self.stretches[kept])


@dataclass(frozen=True)
class PairScore:
    """How often pairs are recognised. `shares` (0 … 1) are those of stretches of time, weighted
    alike; `pairs` how many pairs there were. Half of them are of each kind, so chance is one half.
    """

    name: str
    shares: tuple[float, ...]
    pairs: int

    @classmethod
    def of(cls, name: str, right: np.ndarray, stretches: np.ndarray) -> PairScore:
        """Of the share of right answers of each anchor, float `[n]`."""
        shares = tuple(float(right[stretches == one].mean()) for one in np.unique(stretches))
        return cls(name, shares, 2 * len(right))

    @property
    def value(self) -> float:
        """Mean over stretches, 0 … 1."""
        return fmean(self.shares)

    @property
    def errors_above(self) -> float | None:
        """By how many standard errors it lies above chance; None where there is no error."""
        if len(self.shares) < 2:
            return None
        error = stdev(self.shares) / math.sqrt(len(self.shares))
        return (self.value - 0.5) / error if error > 0 else None

    def measurement(
        self,
        *,
        task: str,
        subject: str,
        dataset: str,
        split: str,
        protocol: Mapping[str, ProtocolValue],
        control: str | None = None,
    ) -> Measurement:
        """For a report: % of right answers, with an interval over stretches of time."""
        return clustered_accuracy(
            self.name,
            self.shares,
            "stretches",
            task=task,
            subject=subject,
            control=control,
            dataset=dataset,
            split=split,
            metric="accuracy",
            chance=50.0,
            chance_is="half of the pairs are of each kind",
            protocol={**protocol, "pairs": self.pairs, "stretch": f"{STRETCH / RATE:.2f} s"},
        )


def bins_of(min_gap: int, max_gap: int, count: int = 4) -> list[tuple[int, int]]:
    """Gaps of more than `min_gap` and fewer than `max_gap` frames in at most `count` parts.

    Each (first, last), inclusive, is about twice as wide as the one before it.
    """
    low, high = min_gap + 1, max_gap - 1
    edges = [low]
    for k in range(1, count):
        edge = low + round((high + 1 - low) * (2**k - 1) / (2**count - 1))
        if edge > edges[-1]:
            edges.append(edge)
    ends = [edge - 1 for edge in edges[1:]] + [high]
    return list(zip(edges, ends, strict=True))


def chosen_anchors(anchors: Anchors, count: int) -> np.ndarray:
    """Up to `count` anchors, evenly spread over all of a part: int64, ascending."""
    return np.unique(np.linspace(0, len(anchors) - 1, min(count, len(anchors))).round()).astype(
        np.int64
    )


def batches(
    dataset: AnchorDataset, chosen: Sequence[int] | np.ndarray, size: int
) -> Iterator[dict[str, Tensor]]:
    """The anchors `chosen` of epoch 0, `size` at a time, as the loader gives them."""
    for first in range(0, len(chosen), size):
        samples = [dataset[0, int(index)] for index in chosen[first : first + size]]
        yield {
            name: torch.cat([sample[name] for sample in samples])
            for name in samples[0]
            if name not in ("bad", "index")
        }


def answers(
    judge: Judge,
    anchors: Anchors,
    seed: int,
    count: int,
    *,
    batch: int = 64,
    dataset: AnchorDataset | None = None,
) -> Answers:
    """Ask about up to `count` anchors of a part: the same ones with every call.

    `dataset` reads them in another way than training does.
    """
    read = dataset or AnchorDataset(anchors, seed, "monitor")
    chosen = chosen_anchors(anchors, count)
    logits: dict[Question, list[Tensor]] = {}
    for number, one in enumerate(batches(read, chosen, batch)):
        for name, given in judge(one, number).items():
            logits.setdefault(name, []).append(given.float().cpu().view(2, -1))
    together = {name: torch.cat(parts, 1).numpy() for name, parts in logits.items()}
    found = [anchors.anchor(seed, 0, int(index), "monitor") for index in chosen]
    rates = [anchors.recording(one.recording).rate for one in found]
    gaps = [at_rate(abs(a.later - a.time), rate) for a, rate in zip(found, rates, strict=True)]
    places = [
        (a.recording, int(a.time * RATE / rate) // STRETCH)
        for a, rate in zip(found, rates, strict=True)
    ]
    return Answers(
        {name: given[0] > 0 for name, given in together.items()},
        {name: given[1] < 0 for name, given in together.items()},
        np.array(gaps),
        np.unique(np.array(places), axis=0, return_inverse=True)[1].reshape(-1),
    )
