"""Preset of `selfsup export embeddings`."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Machine, Preset, VideoData
from selfsup_cli.config.fields import Model, field


class Exported(Model):
    """What gives the features."""

    run: str = field(
        "latest",
        "Run, run directory or backbone.safetensors that gives the features; latest is the newest "
        "finished one that fits.",
        flag="--from",
        names="runs",
    )


class FeatureTable(Model):
    """Which features are written, and of which videos."""

    part: Literal["all", "train", "test"] = field(
        "all", "Part of the data: all of it, or one part of its split.", flag="--part"
    )
    layer: str | None = field(
        None,
        "Layer, averaged over time, height and width; by default the embedding.",
        flag="--layer",
        names="layers",
    )
    clips: int = field(10, "Temporal crops averaged for each video.", flag="--clips", ge=1, le=64)
    max_skip: int = field(
        4, "Largest step between frames (see `clips.max_skip` of probe).", ge=1, le=16
    )


class ExportEmbeddings(Preset):
    """A table of features, one row for each video."""

    task: Literal["embeddings"] = field("embeddings", "The task.")
    subject: Exported = field(Exported(), "What gives the features.")
    data: VideoData = field(VideoData(), "Where the videos come from.")
    table: FeatureTable = field(FeatureTable(), "Which features are written, and of which videos.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
