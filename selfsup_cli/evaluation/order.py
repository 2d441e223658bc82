"""Before or after: do the two halves of a clip stand in their order of time?

Thesis, section 5.3 and figure 5.3b: two runs of half as many frames as the network takes, from one
video and without overlap, joined in one order or the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from selfsup_cli.config.transfer import OrderPairs, TransferOrder, TransferVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.data.source import ClipSource
from selfsup_cli.evaluation.clip_task import Answers, ClipTask
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Measurement, ProtocolValue, clustered_accuracy

CLASSES = ("before", "after")


def halves(n: int, frames: int, pairs: OrderPairs, g: torch.Generator) -> np.ndarray:
    """Two runs of `frames` / 2 frames in order of time, without overlap: indices `[frames]`.

    Every skip-th frame is kept, skip = max(1, min(⌊n / frames⌋, max_skip)). The two places are
    uniform among all pairs that the video has room for, with at most `max_gap` frames between the
    runs where that is given. Raises ValueError if the video has fewer than `frames` frames.
    """
    if n < frames:
        raise ValueError(f"no two runs of {frames // 2} frames in {n} frames")
    skip = max(1, min(n // frames, pairs.max_skip))
    length = frames // 2 * skip
    spare = n - 2 * length
    most = spare if pairs.max_gap is None else min(spare, pairs.max_gap)
    # A gap of k frames leaves spare − k + 1 places.
    places = torch.arange(spare + 1, spare - most, -1, dtype=torch.float64)
    gap = int(torch.multinomial(places, 1, generator=g))
    first = int(torch.randint(0, spare - gap + 1, (), generator=g))
    steps = skip * np.arange(frames // 2)
    return np.concatenate([first + steps, first + length + gap + steps])


def joined(clip: np.ndarray, answer: int) -> np.ndarray:
    """The halves as they are (0, before) or changed round (1, after)."""
    return clip if answer == 0 else np.roll(clip, len(clip) // 2)


class Plan:
    """One clip, its halves in order or not, as a fair coin falls; `target` says which."""

    def __init__(self, frames: int, pairs: OrderPairs) -> None:
        self.frames = frames
        self.pairs = pairs

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        target = int(torch.randint(0, 2, (), generator=g))
        clip = joined(halves(n, self.frames, self.pairs, g), target)
        return ClipPlan(clip[None], {"target": np.array([target], dtype=np.int64)})


class Questions:
    """Both orders at `each` places, which are a function of the video's id alone."""

    def __init__(self, source: ClipSource, frames: int, pairs: OrderPairs, each: int) -> None:
        self.source = source
        self.frames = frames
        self.pairs = pairs
        self.each = each

    def __call__(self, video: int) -> np.ndarray:
        n, identifier = int(self.source.num_frames[video]), self.source.ids[video]
        clips = []
        for k in range(self.each):
            g = generator(0, identifier, k, "order test")
            clip = halves(n, self.frames, self.pairs, g)
            clips += [joined(clip, 0), joined(clip, 1)]
        return np.stack(clips)

    def truth(self, video: int, number: int) -> tuple[int, str]:
        """Whether the halves were changed round, and `VIDEO#ANSWER.PLACE`."""
        answer = number % 2
        return answer, f"{self.source.ids[video]}#{CLASSES[answer]}.{number // 2}"


class Order(ClipTask):
    """The task as the engine sees it."""

    name = "order"

    @property
    def pairs(self) -> OrderPairs:
        """The preset's pairs."""
        assert isinstance(self.preset, TransferOrder)  # noqa: S101 (the table of tasks pairs them)
        return self.preset.pairs

    @property
    def taken(self) -> OrderPairs:
        return self.pairs

    @classmethod
    def min_frames(cls, preset: TransferVideo, frames: int) -> int:
        return frames

    @classmethod
    def answers(cls, preset: TransferVideo, source: ClipSource) -> tuple[str, ...]:
        return CLASSES

    @property
    def plan(self) -> Plan:
        return Plan(self.input.frames, self.pairs)

    def questions(self, source: ClipSource, *, quick: bool = False) -> Questions:
        return Questions(source, self.input.frames, self.pairs, 1 if quick else self.pairs.test)

    def measurements(
        self, found: Answers, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        half = self.input.frames // 2
        protocol = {
            **protocol,
            "frames": f"two non-overlapping runs of {half}",
            "largest_skip": self.pairs.max_skip,
            "largest_gap": "any" if self.pairs.max_gap is None else self.pairs.max_gap,
            "pairs_of_a_video": 2 * self.pairs.test,
        }
        right = found.predictions == found.truth
        shares = [float(right[found.video == v].mean()) for v in np.unique(found.video)]
        about = {**about, "task": self.name, "protocol": protocol}
        return [
            clustered_accuracy(
                "before or after",
                shares,
                metric="accuracy",
                chance=50.0,
                chance_is="what any constant answer gets",
                **about,
            )
        ]


TASK = Order
