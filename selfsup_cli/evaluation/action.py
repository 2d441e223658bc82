"""Action recognition: one clip of a video in training, the mean of many in testing.

Thesis, section 5.3: fine-tuning of all layers, or three fully connected layers on frozen ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from selfsup_cli.config.transfer import ActionClips, TransferAction, TransferVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.data.source import ClipSource
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clip_task import Answers, ClipTask
from selfsup_cli.evaluation.clips import ClipProtocol, ProtocolPlan
from selfsup_cli.evaluation.probe import balanced_interval
from selfsup_cli.runs.report import Measurement, ProtocolValue, accuracy
from selfsup_cli.transforms.time import random_clip


class Plan:
    """One clip from anywhere in the video; its label comes with the video."""

    def __init__(self, frames: int, clips: ActionClips) -> None:
        self.frames = frames
        self.clips = clips

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        return ClipPlan(random_clip(n, self.frames, self.clips.max_skip, g)[None])


class Questions(ProtocolPlan):
    """The clips that stand for a test video, and its class."""

    def truth(self, video: int, number: int) -> tuple[int, str]:
        """Class and id of a video."""
        assert self.source.labels is not None  # noqa: S101 (`answers` has refused such a source)
        return int(self.source.labels[video]), self.source.ids[video]


class Action(ClipTask):
    """The task as the engine sees it."""

    name = "action"
    labelled = True
    heads = "linear"

    @property
    def clips(self) -> ActionClips:
        """The preset's clips."""
        assert isinstance(self.preset, TransferAction)  # noqa: S101 (the table of tasks pairs them)
        return self.preset.clips

    @property
    def taken(self) -> ActionClips:
        return self.clips

    @classmethod
    def min_frames(cls, preset: TransferVideo, frames: int) -> int:
        return 1  # short videos are repeated (methods, section 3.2)

    @classmethod
    def answers(cls, preset: TransferVideo, source: ClipSource) -> tuple[str, ...]:
        if source.classes is None or len(source.classes) < 2:
            raise InputError(
                f"action: {source.name} needs labels of at least two classes; see docs/data.md for "
                "the layouts that carry them",
                kind="unlabelled",
            )
        return source.classes

    @property
    def plan(self) -> Plan:
        return Plan(self.input.frames, self.clips)

    def questions(self, source: ClipSource, *, quick: bool = False) -> Questions:
        count = 1 if quick else self.clips.test
        every = None if count == "all" else int(count)
        return Questions(source, ClipProtocol(self.input.frames, self.clips.max_skip, every))

    def measurements(
        self, found: Answers, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        protocol = {
            **protocol,
            "test_clips": self.clips.test,
            "largest_skip": self.clips.max_skip,
            "test": "mean of the softmax over the clips of a video",
        }
        return of_classes(found, {**about, "task": self.name}, protocol)


def of_classes(
    found: Answers, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
) -> list[Measurement]:
    """Top-1, top-5 (of more than five classes) and class-balanced accuracy, with chance."""
    n, truth = len(found.truth), found.truth
    counts = np.bincount(truth, minlength=len(found.classes))
    right = found.predictions == truth
    base: dict[str, Any] = {
        **about,
        "protocol": protocol,
        "chance_is": "what the best constant answer gets",
    }
    rows = [accuracy("top-1", int(right.sum()), n, chance=100 * float(counts.max()) / n, **base)]
    if len(found.classes) > 5:
        first = np.argsort(-found.probabilities, axis=1, kind="stable")[:, :5]
        hits = int((first == truth[:, None]).any(1).sum())
        most = 100 * float(np.sort(counts)[-5:].sum()) / n
        rows.append(accuracy("top-5", hits, n, metric="top-5 accuracy", chance=most, **base))
    present = np.flatnonzero(counts)
    shares = [float(right[truth == c].mean()) for c in present]
    each = [f"{found.classes[c]}: {100 * s:.1f} %" for c, s in zip(present, shares, strict=True)]
    mean = 100 * float(np.mean(shares))
    balanced = rows[0].model_dump() | {
        "name": "class-balanced",
        "metric": "class-balanced accuracy",
        "value": mean,
        "interval": balanced_interval(shares, counts[present].tolist()),
        "chance": 100 / len(present),
        "chance_is": f"what any constant answer gets, one of {len(present)} classes",
        "protocol": {**protocol, "per_class": each},
    }
    return [*rows, Measurement.model_validate(balanced)]


TASK = Action
