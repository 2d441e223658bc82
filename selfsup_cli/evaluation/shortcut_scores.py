"""What the shortcut detector found: scores of local cues, and what a person needs to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from selfsup_cli.config.registry import TRANSFORMS
from selfsup_cli.runs.report import (
    Finding,
    Interval,
    Measurement,
    ProtocolValue,
    clustered_mean,
    wilson,
)

TASK = "shortcuts"
NETWORK = "the whole network"
IDENTITY = "identity"


@dataclass(frozen=True)
class Score:
    """How often one transformation is told from what it is compared `against`, by `subject`.

    `shares` (0 … 1) are those of right answers about each held-out image, of which half are about
    the transformed image and half about what it is compared with: `chance` is a half. Of `kind`
    None they are about all transformations at once, and chance is one of their number.
    """

    subject: str
    kind: str | None
    against: str
    shares: tuple[float, ...]
    chance: float

    @property
    def value(self) -> float:
        """Mean over the images, 0 … 1."""
        return fmean(self.shares)

    @property
    def interval(self) -> Interval | None:
        """95 % interval over the images; None for a single one."""
        mean, interval = clustered_mean(self.shares, unit="images")
        if mean in (0, 1) or (interval is not None and len(set(self.shares)) == 1):
            return wilson(round(mean * len(self.shares)), len(self.shares))
        return interval

    def exceeds(self, margin: float) -> bool | None:
        """Whether it is more than `margin` above chance; None where the interval leaves it open."""
        interval, bound = self.interval, self.chance + margin
        if interval is None or interval.low <= bound < interval.high:
            return None
        return interval.low > bound


@dataclass(frozen=True)
class ShortcutReport:
    """What the probes of local `cues` and the network itself recognise on held-out images.

    `remedies` say for each cue what to do about a shortcut, unless that depends on what is
    transformed (then nothing). `scores` hold those of each cue and, last, of the network.
    """

    kinds: tuple[str, ...]
    cues: tuple[str, ...]
    remedies: Mapping[str, str]
    scores: tuple[Score, ...]
    margin: float
    protocol: Mapping[str, ProtocolValue]
    unreadable: int = 0

    def score(self, subject: str, kind: str | None = None) -> Score:
        """The score of a cue, or of `NETWORK`, on a transformation, or on all. KeyError."""
        for score in self.scores:
            if (score.subject, score.kind) == (subject, kind):
                return score
        raise KeyError((subject, kind))

    @property
    def judged(self) -> tuple[str, ...]:
        """The transformations that scores are about."""
        return tuple(dict.fromkeys(one.kind for one in self.scores if one.kind is not None))

    def shortcuts(self) -> dict[str, list[Score]]:
        """Of each transformation that cues give away, their scores, the strongest first."""
        found = {kind: self._of(kind, True) for kind in self.judged}
        return {kind: scores for kind, scores in found.items() if scores}

    def findings(self) -> list[Finding]:
        """A sentence for each transformation that a cue gives away, and one for the others."""
        found = self.shortcuts()
        out = [Finding(text=self._given_away(own), verdict="bad") for own in found.values()]
        open_ = [kind for kind in self.judged if kind not in found and self._of(kind, None)]
        for kind in open_:
            best = self._of(kind, None)[0]
            text = (
                f"shortcuts: whether a local cue gives {kind} away is open: {_told(best)}; "
                "judge it on more images (shortcuts.heldout)"
            )
            out.append(Finding(text=text, verdict="unclear"))
        free = [kind for kind in self.judged if kind not in found and kind not in open_]
        if free:
            limit = 0.5 + self.margin
            text = (
                f"shortcuts: no local cue tells {_listed(free)} from {self._against(free[0])} in "
                f"more than {limit:.0%} of cases; tried were {_listed(self.cues)}"
            )
            out.append(Finding(text=text, verdict="good"))
        return out

    def measurements(self, *, dataset: str, split: str) -> list[Measurement]:
        """For a report: % of right answers of each cue and of the network."""
        return [
            Measurement(
                task=TASK,
                name=score.kind or "all transformations",
                subject=score.subject,
                dataset=dataset,
                split=split,
                metric=f"told from {score.against}" if score.kind else "top-1 accuracy",
                unit="%",
                value=100 * score.value,
                interval=score.interval.scaled(100, 0, 100) if score.interval else None,
                n=len(score.shares),
                chance=100 * score.chance,
                chance_is="an answer that does not look at the image",
                protocol=dict(self.protocol),
            )
            for score in sorted(self.scores, key=self._place)
        ]

    def _place(self, score: Score) -> tuple[int, int]:
        kinds = [None, *self.judged]
        return kinds.index(score.kind), [*self.cues, NETWORK].index(score.subject)

    def _of(self, kind: str, exceeding: bool | None) -> list[Score]:
        own = [self.score(cue, kind) for cue in self.cues]
        own = [one for one in own if one.exceeds(self.margin) is exceeding]
        return sorted(own, key=lambda one: -one.value)

    def _against(self, kind: str) -> str:
        return self.score(self.cues[0], kind).against

    def _given_away(self, scores: Sequence[Score]) -> str:
        best, *others = scores
        network = self.score(NETWORK, best.kind)
        also = "".join(f", {one.value:.2f} from {one.subject}" for one in others)
        cue = "a local cue gives" if not others else "local cues give"
        return (
            f"shortcuts: {best.kind}: {_told(best)}{also}; {cue} it away (the whole network "
            f"reaches {network.value:.2f}): {self.remedies[best.subject] or _remedy(best.kind)}"
        )


def _told(score: Score) -> str:
    return (
        f"{score.value:.2f} from {score.subject}, against {score.against} "
        f"(chance {score.chance:.2f})"
    )


def _remedy(kind: str | None) -> str:
    """What to try about a transformation that is recognised locally."""
    known = TRANSFORMS.get(kind or "")
    if known is not None and known.inpaints:
        return (
            "train the inpainter longer, or hide more autoencoded patches among the others "
            "(lci.hidden_negatives)"
        )
    if known is not None and known.at == "crop":
        return (
            "what is seen locally on this data shows which way it is turned (thesis, figure 4.5); "
            "leave it out (--kinds)"
        )
    if kind == "warp":
        return (
            "what is resampled is smoother than what is not; turning half of all images by small "
            "angles (framing.rotate_share 0.5, neither 0 nor 1) hides most of that, not all"
        )
    return "it leaves traces where it was done; leave it out (--kinds)"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def scores_of(subject: str, answers: np.ndarray, kinds: Sequence[str]) -> list[Score]:
    """Scores from logarithms of probabilities `[views, K, n, K]` of n images transformed in K ways.

    A transformation is compared with the untransformed image where that is one of the kinds, with
    all others where it is not. Its answer counts as given where it is more probable than these are
    on average, half where both are alike.
    """
    count = len(kinds)
    truth = np.arange(count)[None, :, None]
    right = (answers.argmax(3) == truth).mean((0, 1))
    found = [Score(subject, None, "each other", _shares(right), 1 / count)]
    for k, kind in enumerate(kinds):
        if kind == IDENTITY and count > 1:
            continue
        compared = [kinds.index(IDENTITY)] if IDENTITY in kinds else _others(k, count)
        rest = np.logaddexp.reduce(answers[..., compared], axis=3) - np.log(len(compared))
        said = (np.sign(answers[..., k] - rest) + 1) / 2
        shares = (said[:, k].mean(0) + 1 - said[:, compared].mean((0, 1))) / 2
        against = IDENTITY if IDENTITY in kinds else "the others"
        found.append(Score(subject, kind, against, _shares(shares), 0.5))
    return found


def _others(k: int, count: int) -> list[int]:
    return [j for j in range(count) if j != k]


def _shares(values: np.ndarray) -> tuple[float, ...]:
    return tuple(values.astype(np.float64).tolist())
