"""Is it learning? Checks on held-out videos while a method trains."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.data.loader import ClipPlan, Plan
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import in_batches, read_videos
from selfsup_cli.evaluation.neighbours import cosine_topk
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import (
    Finding,
    Interval,
    Measurement,
    ProtocolValue,
    clustered_accuracy,
    wilson,
)

log = logging.getLogger("selfsup")

Unit = Literal["videos", "images"]

Predict = Callable[[Tensor, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Uint8 clips [B, 3, T, H, W] and their labels → logits [B, answers] of each question. The labels
say what is to be done to the pixels, where a method does that; they are not for peeping."""

# Embeddings spread evenly over the sphere have a spread of 1 (see `embedding_health`).
COLLAPSED_SPREAD = 0.01
COLLAPSED_RANK = 1.5


# Pretext accuracy


@dataclass(frozen=True)
class Score:
    """How often one question is answered right on held-out videos.

    `shares` are the shares (0 … 1) of right answers of each video: its clips are not independent,
    so videos are what is counted, or images as `unit` says. `chance` is what an answer that ignores
    the clip would get, and `chance_is` says which answer that is.
    """

    name: str
    shares: tuple[float, ...]
    clips: int
    chance: float
    chance_is: str = "what the best constant answer gets"
    unit: Unit = "videos"

    @property
    def value(self) -> float:
        """Mean over the videos, 0 … 1."""
        return fmean(self.shares)

    @property
    def standard_error(self) -> float:
        """Of the mean over the videos; infinite for a single one."""
        if len(self.shares) < 2:
            return math.inf
        return stdev(self.shares) / math.sqrt(len(self.shares))

    @property
    def above_chance(self) -> bool | None:
        """Whether the whole 95 % interval lies above chance; None where there is no interval."""
        interval = self.measurement(dataset="-", split="-", protocol={"-": 0}).interval
        return None if interval is None else interval.low > 100 * self.chance

    def measurement(
        self, *, dataset: str, split: str, protocol: Mapping[str, ProtocolValue]
    ) -> Measurement:
        """For a report: % of right answers, with an interval over the videos."""
        return clustered_accuracy(
            self.name,
            self.shares,
            self.unit,
            task="pretext",
            subject="learned",
            dataset=dataset,
            split=split,
            metric="held-out accuracy",
            chance=100 * self.chance,
            chance_is=self.chance_is,
            protocol={**protocol, "clips" if self.unit == "videos" else "crops": self.clips},
        )


@dataclass(frozen=True)
class Question:
    """One of the things that are recognised: overall, by true answer, and who is taken for whom.

    `confusion` int64 [answers, answers] counts clips: rows are true, columns given.
    """

    overall: Score
    by_answer: tuple[Score, ...]
    confusion: np.ndarray


@dataclass(frozen=True)
class PretextAccuracy:
    """Held-out accuracy of the pretext task, by the names of its questions."""

    questions: Mapping[str, Question]
    unreadable: int

    def scores(self) -> list[Score]:
        """All scores: each question's overall one, then by answer."""
        asked = self.questions.values()
        return [score for question in asked for score in (question.overall, *question.by_answer)]

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`: shares (0 … 1) under names like `heldout_motion_warp`."""
        return {_logged(score): score.value for score in self.scores()}

    def chances(self) -> dict[str, float]:
        """Chance (0 … 1) of each question as a whole, under the same names; it never changes."""
        overall = [question.overall for question in self.questions.values()]
        return {_logged(score): score.chance for score in overall}

    def findings(self) -> list[Finding]:
        """Whether each question is answered better than by chance, and what to try if not."""
        out = []
        for question in self.questions.values():
            score = question.overall
            said = f"held-out {score.name} accuracy {score.value:.1%} (chance {score.chance:.1%})"
            above = score.above_chance
            if score.chance == 1:
                text = f"held-out {score.name}: all clips have the same answer, which says nothing"
                out.append(Finding(text=text, verdict="unclear"))
            elif above:
                out.append(Finding(text=f"{said}: it is learning", verdict="good"))
            elif above is None:
                out.append(Finding(text=f"{said}: one video says nothing", verdict="unclear"))
            else:
                out.append(
                    Finding(
                        text=f"{said}: not above chance so far; train longer (--epochs), "
                        "try another learning rate (--lr, three times more or less), and look at "
                        "what the network is fed (selfsup visualize pretext)",
                        verdict="bad",
                    )
                )
        return out


def _logged(score: Score) -> str:
    return "heldout_" + score.name.replace(" ", "_").replace("×", "x")


def pretext_accuracy(
    predict: Predict,
    source: ClipSource,
    plan: Plan,
    *,
    questions: Mapping[str, Sequence[str]],
    size: tuple[int, int],
    hardware: Hardware,
    seed: int,
    videos: int = 256,
    draws: int = 2,
    batch: int = 32,
    workers: int = 0,
) -> PretextAccuracy:
    """Let the network, in evaluation mode, recognise transformations of held-out videos.

    `plan` makes the clips of a video with a label for each of `questions` (the position of the
    answer, negative where the question does not apply); `label` is the video's own. Of at most
    `videos` videos, chosen by `seed`, it is drawn `draws` times each, always the same clips, so
    that checks at different times compare. Frames are scaled to `size` (H, W). A video that cannot
    be read is left out and counted. Raises InputError if none can.
    """
    chosen = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "monitor"))
    chosen = sorted(chosen[:videos])
    bound = _Draws(source, plan, draws, seed)
    unreadable: list[str] = []

    def bad(identifier: str, reason: str) -> None:
        log.warning("monitor leaves out %s: %s", identifier, reason)
        unreadable.append(identifier)

    decoded = read_videos(source, chosen, bound, size, workers, bad)
    answers: dict[str, list[Tensor]] = {name: [] for name in questions}
    truths: dict[str, list[np.ndarray]] = {name: [] for name in questions}
    owners: list[int] = []
    for clips, own in in_batches(decoded, batch, hardware.device):
        labels = bound.labels_of(own, first=owners.count(own[0]))
        owners += own
        moved = {name: torch.from_numpy(v).to(hardware.device) for name, v in labels.items()}
        with torch.no_grad(), hardware.autocast():
            logits = predict(clips, moved)
        for name, value in logits.items():
            answers[name].append(value.argmax(1).cpu())
            truths[name].append(labels[name])
    if not owners:
        raise InputError(f"no held-out video of {source.name} could be read", kind="bad-media")
    video = np.array(owners)
    found: dict[str, Question] = {}
    for name, possible in questions.items():
        truth = np.concatenate(truths[name])
        asked = truth >= 0
        if bool(asked.any()):
            answer = torch.cat(answers[name]).numpy()
            found[name] = question(name, possible, answer[asked], truth[asked], video[asked])
    return PretextAccuracy(found, len(unreadable))


def question(
    name: str,
    answers: Sequence[str],
    given: np.ndarray,
    truth: np.ndarray,
    video: np.ndarray,
    unit: Unit = "videos",
) -> Question:
    """Score the answers `given` (int64 [n], like `truth`) on clips of the videos `video`, or on
    what was made of images, as `unit` says.

    Chance of the whole is that of the best constant answer to these very clips; chance of one
    answer is how often the network gives it, right or wrong.
    """
    right = given == truth
    best = "what the best constant answer gets"

    def score(label: str, mask: np.ndarray, chance: float, chance_is: str = best) -> Score:
        shares = tuple(_means(right[mask], video[mask]))
        return Score(label, shares, int(mask.sum()), chance, chance_is, unit)

    everything = np.ones(len(truth), dtype=bool)
    constant = max(fmean(_means(truth == c, video)) for c in range(len(answers)))
    often = "how often the network gives this answer, right or wrong"
    by_answer = [
        score(f"{name} {answers[c]}", truth == c, float((given == c).mean()), often)
        for c in range(len(answers))
        if bool((truth == c).any())
    ]
    confusion = np.zeros((len(answers), len(answers)), dtype=np.int64)
    np.add.at(confusion, (truth, given), 1)
    return Question(score(name, everything, constant), tuple(by_answer), confusion)


class _Draws:
    """The clips of all draws from a video; passed to loader processes."""

    def __init__(self, source: ClipSource, plan: Plan, draws: int, seed: int) -> None:
        self.source = source
        self.plan = plan
        self.draws = draws
        self.seed = seed

    def __call__(self, video: int) -> np.ndarray:
        return self.plan_of(video).frames

    def plan_of(self, video: int) -> ClipPlan:
        n, identifier = int(self.source.num_frames[video]), self.source.ids[video]
        plans = [
            self.plan(n, generator(self.seed, identifier, draw, "monitor draw"))
            for draw in range(self.draws)
        ]
        frames = np.concatenate([plan.frames for plan in plans])
        labels = {
            name: np.concatenate([plan.labels[name] for plan in plans]) for name in plans[0].labels
        }
        if self.source.labels is not None:
            labels["label"] = np.full(len(frames), self.source.labels[video])
        return ClipPlan(frames, labels)

    def labels_of(self, videos: Sequence[int], first: int) -> dict[str, np.ndarray]:
        """Labels of consecutive clips whose videos are given.

        Of the first video `first` clips have gone before; clips of a video are in their order.
        """
        parts: dict[str, list[np.ndarray]] = {}
        for video, group in groupby(videos):
            count = len(list(group))
            for name, values in self.plan_of(video).labels.items():
                parts.setdefault(name, []).append(values[first : first + count])
            first = 0
        return {name: np.concatenate(values) for name, values in parts.items()}


def _means(values: np.ndarray, video: np.ndarray) -> list[float]:
    """The mean of `values` over the clips of each video that has any."""
    _, position, count = np.unique(video, return_inverse=True, return_counts=True)
    sums = np.bincount(position, weights=values.astype(np.float64))
    return [float(mean) for mean in sums / count]


# Embeddings


@dataclass(frozen=True)
class Health:
    """Whether embeddings of different videos differ.

    `spread` is the standard deviation of a dimension of the normalised embeddings, averaged over
    the D dimensions, times √D: 1 on an evenly covered sphere, 0 if all are equal. `effective_rank`
    is the exponential of the entropy of the singular values of the centred embeddings, as shares:
    the number of directions that they really use (1 … `dimensions`).
    """

    spread: float
    effective_rank: float
    dimensions: int
    unit: Unit = "videos"

    @property
    def collapsed(self) -> bool:
        """Whether (nearly) all videos have one embedding, or lie on a line."""
        return self.spread < COLLAPSED_SPREAD or self.effective_rank < COLLAPSED_RANK

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`."""
        return {"embedding_spread": self.spread, "embedding_rank": self.effective_rank}

    def finding(self) -> Finding:
        """One sentence, with what to try if the embeddings collapsed."""
        said = (
            f"embeddings: spread {self.spread:.3f}, effective rank {self.effective_rank:.1f} of "
            f"{self.dimensions}"
        )
        if not self.collapsed:
            return Finding(text=f"{said}: not collapsed", verdict="good")
        return Finding(
            text=f"{said}: collapsed, all {self.unit} look nearly the same to the network; lower "
            "the learning rate (--lr) or the weight decay (--weight-decay), and check that they "
            "differ",
            verdict="bad",
        )


def embedding_health(embeddings: Tensor, unit: Unit = "videos") -> Health:
    """Judge embeddings float [n, D] of different videos. Raises InputError for fewer than two."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"whether embeddings collapse can be told from two {unit} on")
    sphere = F.normalize(embeddings.double(), dim=1)
    dimensions = sphere.shape[1]
    spread = float(sphere.std(0, correction=0).mean()) * math.sqrt(dimensions)
    singular = torch.linalg.svdvals(sphere - sphere.mean(0))
    total = singular.sum()
    rank = 1.0
    if float(total) > 1e-9:
        shares = singular / total
        rank = float(torch.exp(-torch.special.xlogy(shares, shares).sum()))
    return Health(spread, rank, dimensions, unit)


@dataclass(frozen=True)
class KnnAccuracy:
    """How many of `n` videos get the right class from the vote of their k nearest neighbours.

    `chance` (0 … 1) is what the best constant answer gets.
    """

    hits: int
    n: int
    k: int
    chance: float

    @property
    def value(self) -> float:
        """Share of right answers, 0 … 1."""
        return self.hits / self.n

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of `value`."""
        return wilson(self.hits, self.n)


def knn_accuracy(
    train: Tensor,
    train_labels: np.ndarray,
    test: Tensor,
    test_labels: np.ndarray,
    k: int,
    *,
    device: torch.device | str = "cpu",
) -> KnnAccuracy:
    """Classify embeddings `test` [M, D] by the k nearest of `train` [N, D], by cosine.

    The class with most neighbours wins; of equals the one whose neighbours are nearer in sum. k is
    cut to N.
    """
    k = min(k, len(train))
    scores, rows = cosine_topk(test, train, k, device=device)
    votes = torch.from_numpy(train_labels)[rows]
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    # A similarity is below 1 in size, so the sum of k of them, divided by 2k + 1, only breaks ties.
    weight = 1 + scores.double() / (2 * k + 1)
    tally = torch.zeros(len(test), classes, dtype=torch.float64).scatter_add_(1, votes, weight)
    hits = int((tally.argmax(1).numpy() == test_labels).sum())
    chance = float(np.bincount(test_labels).max()) / len(test_labels)
    return KnnAccuracy(hits, len(test_labels), k, chance)
