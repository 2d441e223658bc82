"""Synchronisation: by how many frames is one of two overlapping clips behind the other?

Thesis, section 5.3 and figure 5.3a: features ψ of both at conv5, their difference
ψ(v₁) − ψ(v₂) classified by three fully connected layers into the delays −6 … +6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from selfsup_cli.config.transfer import SyncPairs, TransferSync, TransferVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.data.source import ClipSource
from selfsup_cli.evaluation.clip_task import Answers, ClipTask
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import Measurement, ProtocolValue, clustered_accuracy, clustered_mean


def pair(n: int, frames: int, delay: int, g: torch.Generator) -> np.ndarray:
    """Two clips of consecutive frames, the second `delay` frames behind the first: `[2, frames]`.

    Their place is uniform among those where both lie in the video. Raises ValueError if it has
    fewer than `frames` + |`delay`| frames.
    """
    room = n - frames - abs(delay)
    if room < 0:
        raise ValueError(f"no two clips of {frames} frames, {delay} apart, in {n} frames")
    first = int(torch.randint(0, room + 1, (), generator=g)) + max(0, -delay)
    return np.array([first, first + delay])[:, None] + np.arange(frames)


class Plan:
    """Two clips whose delay is drawn uniformly; `target` counts it from the most negative one."""

    def __init__(self, frames: int, pairs: SyncPairs) -> None:
        self.frames = frames
        self.most = pairs.max_offset

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        target = int(torch.randint(0, 2 * self.most + 1, (), generator=g))
        clips = pair(n, self.frames, target - self.most, g)
        return ClipPlan(clips, {"target": np.full(2, target, dtype=np.int64)})


class Questions:
    """Every delay, at places that are a function of the video's id alone; with `quick` only one."""

    def __init__(
        self, source: ClipSource, frames: int, pairs: SyncPairs, *, quick: bool = False
    ) -> None:
        self.source = source
        self.frames = frames
        self.most = pairs.max_offset
        self.each = pairs.test
        self.quick = quick

    def __call__(self, video: int) -> np.ndarray:
        n, identifier = int(self.source.num_frames[video]), self.source.ids[video]
        if self.quick:
            delay = self._only(identifier) - self.most
            return pair(n, self.frames, delay, generator(0, identifier, "sync test"))
        clips = [
            pair(n, self.frames, delay, generator(0, identifier, k, delay + self.most, "sync test"))
            for k in range(self.each)
            for delay in range(-self.most, self.most + 1)
        ]
        return np.concatenate(clips)

    def truth(self, video: int, number: int) -> tuple[int, str]:
        """The delay, counted from the most negative one, and `VIDEO#DELAY`."""
        identifier, delays = self.source.ids[video], 2 * self.most + 1
        answer = self._only(identifier) if self.quick else number % delays
        again = number // delays
        return answer, f"{identifier}#{answer - self.most:+d}" + (f".{again}" if again else "")

    def _only(self, identifier: str) -> int:
        return derive(0, identifier, "sync test") % (2 * self.most + 1)


class Sync(ClipTask):
    """The task as the engine sees it."""

    name = "sync"
    compared = 2

    @property
    def pairs(self) -> SyncPairs:
        """The preset's pairs."""
        assert isinstance(self.preset, TransferSync)  # noqa: S101 (the table of tasks pairs them)
        return self.preset.pairs

    @property
    def taken(self) -> SyncPairs:
        return self.pairs

    @classmethod
    def min_frames(cls, preset: TransferVideo, frames: int) -> int:
        assert isinstance(preset, TransferSync)  # noqa: S101
        return frames + preset.pairs.max_offset

    @classmethod
    def answers(cls, preset: TransferVideo, source: ClipSource) -> tuple[str, ...]:
        assert isinstance(preset, TransferSync)  # noqa: S101
        most = preset.pairs.max_offset
        return tuple(f"{delay:+d}" if delay else "0" for delay in range(-most, most + 1))

    @property
    def plan(self) -> Plan:
        return Plan(self.input.frames, self.pairs)

    def questions(self, source: ClipSource, *, quick: bool = False) -> Questions:
        return Questions(source, self.input.frames, self.pairs, quick=quick)

    def measurements(
        self, found: Answers, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        most, classes = self.pairs.max_offset, len(self.classes)
        protocol = {
            **protocol,
            "offsets": f"-{most} … +{most} frames",
            "pairs_of_a_video": classes * self.pairs.test,
        }
        return of_delays(found, most, {**about, "task": self.name}, protocol)


def of_delays(
    found: Answers, most: int, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
) -> list[Measurement]:
    """Accuracy, and the mean absolute error in frames, each with its interval over the videos.

    The chance of the error is what always answering 0 gets.
    """
    videos = np.unique(found.video)
    right = found.predictions == found.truth
    wrong_by = np.abs(found.predictions - found.truth).astype(float)
    shares = [float(right[found.video == v].mean()) for v in videos]
    errors = [float(wrong_by[found.video == v].mean()) for v in videos]
    base: dict[str, Any] = {**about, "protocol": protocol}
    chance = 100 / (2 * most + 1)
    mean, interval = clustered_mean(errors)
    return [
        clustered_accuracy(
            "delay",
            shares,
            metric="accuracy",
            chance=chance,
            chance_is="what any constant answer gets",
            **base,
        ),
        Measurement(
            **base,
            name="delay",
            metric="mean absolute error",
            unit="frames",
            value=mean,
            interval=interval,
            n=len(videos),
            chance=float(np.abs(found.truth - most).mean()),
            chance_is="how far always answering 0 is off",
        ),
    ]


TASK = Sync
