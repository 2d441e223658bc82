"""Presets of the shortcut detector: can what should not suffice solve the pretext task?"""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine


class LocalProbes(Model):
    """Small probes that are shown a local cue only, and try the pretext task."""

    steps: int = field(150, "Updates of each probe.", ge=1)
    images: int = field(1024, "Training images that the probes learn from.", ge=2)
    heldout: int = field(256, "Held-out images on which they are judged.", ge=2)
    patch: int = field(
        16, "Side of the single patch; at most half of the crop is taken.", unit="pixels", ge=4
    )
    border: int = field(
        3, "Width of the frame; at most an eighth of the crop is taken.", unit="pixels", ge=1
    )
    margin: float = field(
        0.1,
        "A cue counts as a shortcut where its share of right answers, interval and all, is more "
        "than this above chance.",
        gt=0,
        lt=0.5,
    )
    seed: int = field(0, "Seed of the probes, and of the images they are shown.", ge=0)


class Shortcuts(LocalProbes):
    """Whether local cues alone solve the pretext task."""

    on: bool = field(True, "Look for shortcuts after pretraining.", flag="--shortcuts")


class Examined(Model):
    """What is examined."""

    run: str = field(
        "latest",
        "Run of 'selfsup pretrain transformations'; latest is the newest finished one.",
        flag="--from",
        names="runs",
    )


class DetectShortcuts(Preset):
    """Whether local cues alone solve the pretext task of a run, and for which transformations."""

    task: Literal["shortcuts"] = field("shortcuts", "The task.")
    subject: Examined = field(Examined(), "What is examined.")
    data: ImageData = field(
        ImageData(), "Where the images come from; without a source, those of the run."
    )
    shortcuts: LocalProbes = field(LocalProbes(), "The probes.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")
