"""Presets of `selfsup probe sync` and `selfsup retrieve sync` (thesis, section 6.3.3)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.multiview import RATE, ViewSource

_WHERE = "Where the views come from; without --data, those that the run learned from and held out."


class Comparing(Model):
    """The network that compares views."""

    run: str = field(
        "latest",
        "Run of 'selfsup pretrain multiview' to look at; latest is the newest finished one.",
        flag="--from",
        names="runs",
    )
    background: Literal["auto", "remove", "keep"] = field(
        "auto",
        "What becomes of the scene behind subjects: removed or kept; auto is as in pretraining, "
        "kept where that substituted it.",
        flag="--background",
    )


class GapProbe(Model):
    """Which pairs are judged."""

    gaps: list[Annotated[int, Ge(8)]] = field(
        [8, 24, 40, 56, 72, 88, 104, 120],
        f"Times Δ between images that are not synchronised, at {RATE} frames a second; each pair's "
        "is drawn evenly from Δ - 7 to Δ + 8.",
        flag="--gaps",
        unit="frames",
        min_length=1,
    )
    pairs: int = field(
        200,
        "Synchronised pairs of each subject, and as many others at each Δ.",
        flag="--pairs",
        ge=8,
    )
    seen: int = field(
        2,
        "So many of the subjects that were learned from are judged as well, the first ones.",
        flag="--seen",
        ge=0,
    )
    sheet: int = field(4, "Moments drawn with their answers at each time between.", ge=0, le=64)
    seed: int = field(0, "Seed from which pairs are drawn.", flag="--seed", ge=0)


class ProbeSync(Preset):
    """How well are synchronised views told from others, by the time between them? (figure 6.4)"""

    task: Literal["probe-sync"] = field("probe-sync", "The task.")
    subject: Comparing = field(Comparing(), "What is looked at.")
    data: ViewSource = field(ViewSource(), _WHERE)
    probe: GapProbe = field(GapProbe(), "Which pairs are judged.")
    machine: Machine = field(Machine(), "Where the job runs.")


class SyncSearch(Model):
    """What is looked for, and where."""

    queries: int = field(
        64, "Frames of unseen subjects that are looked for.", flag="--queries", ge=1
    )
    gallery: int = field(
        1000,
        "Frames of each other subject among which the best one is looked for, evenly spread over "
        "its recordings and cameras.",
        flag="--gallery",
        ge=2,
    )
    step: int = field(
        2,
        "Of the other camera every so many frames are candidates.",
        flag="--step",
        unit="frames",
        ge=1,
    )
    sheet: int = field(6, "Queries that are drawn.", ge=0, le=64)
    seed: int = field(0, "Seed that chooses queries and cameras.", flag="--seed", ge=0)


class RetrieveSync(Preset):
    """Find the views that a network takes for synchronised (figures 6.5 and 6.6).

    For each query the best frame of every other subject, and the best frame of another camera.
    """

    task: Literal["retrieve-sync"] = field("retrieve-sync", "The task.")
    subject: Comparing = field(Comparing(), "What is looked at.")
    data: ViewSource = field(ViewSource(), _WHERE)
    search: SyncSearch = field(SyncSearch(), "What is looked for, and where.")
    machine: Machine = field(Machine(), "Where the job runs.")
