"""Pretraining by pretext tasks: on videos, and on images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from selfsup_cli.config.image_pretrain import Framing, ImageFraming, PretrainImages
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.loader import ClipDataset, Loader
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation.shortcut_scores import ShortcutReport
from selfsup_cli.evaluation.shortcuts import detect
from selfsup_cli.jobs import common, images
from selfsup_cli.jobs.common import AnyPart, Part, Videos
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.method_weights import save_method
from selfsup_cli.jobs.monitoring import ImageMonitoring, Monitoring, VideoMonitoring
from selfsup_cli.jobs.pretraining import batches_of
from selfsup_cli.jobs.visualize import pretext_sheet
from selfsup_cli.jobs.visualize_images import pretext_sheet as image_sheet
from selfsup_cli.methods import create, uses_labels
from selfsup_cli.methods.image_pretext import ImagePretext
from selfsup_cli.methods.pretext import VideoPretext
from selfsup_cli.models import save_backbone
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run

log = logging.getLogger("selfsup")

# The least canvas and crop that a preset takes.
_LEAST = 16

Pretext = VideoPretext | ImagePretext


class _Pretraining:
    """What pretext tasks on videos and on images share."""

    preset: PretrainVideo | PretrainImages
    method: Pretext

    @property
    def per_update(self) -> int:
        return self.preset.train.batch_size

    @property
    def seeds(self) -> Sequence[int]:
        return ()

    def begin(self, run: str | None) -> list[dict[str, Any]]:
        return []

    def watch(self, run: Run, part: AnyPart) -> None:
        return None

    def keep(self, run: Run, part: AnyPart, facts: dict[str, Any]) -> str:
        weights = save_backbone(run.path / "backbone.safetensors", self.method.backbone, facts)
        save_method(run, self.method)
        return weights


class VideoWork(_Pretraining):
    """Pretraining on videos."""

    many = "videos"
    inputs = "clips"
    method: VideoPretext

    preset: PretrainVideo

    def __init__(self, preset: PretrainVideo) -> None:
        self.preset = preset

    def open(self, progress: Progress) -> tuple[Videos, Videos]:
        return common.open_parts(
            self.preset.data,
            self.preset.machine,
            progress,
            labels=uses_labels(self.preset),
            min_frames=self.preset.min_frames,
        )

    def create(self, part: Videos) -> VideoPretext:
        self.method = create(self.preset, part.source.classes)
        return self.method

    def loader(self, part: Videos, hardware: Hardware) -> Loader:
        preset = self.preset
        size, seed = preset.augment.resize, preset.train.seed
        return batches_of(
            ClipDataset(part.source, self.method.plan, size, seed), self, part, hardware
        )

    def monitor(self, part: Videos, hardware: Hardware, progress: Progress) -> Monitoring:
        return VideoMonitoring(self.method, part.source, hardware, progress)

    def inputs_each(self) -> int:
        return len(self.method.kinds)

    def about(self) -> dict[str, Any]:
        return _asked(self.method)

    def pictures(self, part: Videos, run: Run) -> list[Picture]:
        pretext_sheet(self.method, part.source, run.picture("pretext.png"), count=2)
        caption = "What the network is fed; each frame bears its index in the video."
        return [Picture(file="pictures/pretext.png", caption=caption)]

    def shortcuts(
        self, train: Videos, heldout: Videos, hardware: Hardware, progress: Progress, stop: StopFlag
    ) -> None:
        return None

    def found(self, part: Videos) -> str:
        counts = np.asarray(part.source.num_frames)
        return (
            f"{len(part.source)} videos of {part.source.name} with {counts.min()} to "
            f"{counts.max()} frames{_left_out(part)}"
        )


class ImageWork(_Pretraining):
    """Pretraining on images."""

    many = "images"
    inputs = "crops"
    method: ImagePretext

    preset: PretrainImages

    def __init__(self, preset: PretrainImages) -> None:
        self.preset = preset

    def open(self, progress: Progress) -> tuple[Images, Images]:
        preset = self.preset
        parts = images.open_parts(preset.data, preset.machine, progress, labels=uses_labels(preset))
        _tell_small(parts[0], preset.framing)
        return parts

    def create(self, part: Images) -> ImagePretext:
        self.method = create(self.preset, part.source.classes)
        return self.method

    def loader(self, part: Images, hardware: Hardware) -> Loader:
        seed, plan = self.preset.train.seed, self.method.plan
        return batches_of(ImageDataset(part.source, seed, plan=plan), self, part, hardware)

    def monitor(self, part: Images, hardware: Hardware, progress: Progress) -> Monitoring:
        return ImageMonitoring(self.method, part.source, hardware, progress)

    def inputs_each(self) -> int:
        return len(self.method.kinds)

    def about(self) -> dict[str, Any]:
        return {**_asked(self.method), **self.method.facts()}

    def pictures(self, part: Images, run: Run) -> list[Picture]:
        image_sheet(self.method, part.source, run.picture("pretext.png"), count=4)
        caption = "What the network is fed: images, each transformed in all ways."
        return [Picture(file="pictures/pretext.png", caption=caption)]

    def shortcuts(
        self, train: Images, heldout: Images, hardware: Hardware, progress: Progress, stop: StopFlag
    ) -> ShortcutReport | None:
        settings = getattr(self.preset, "shortcuts", None)
        if settings is None or not settings.on:
            return None
        return detect(self.method, train.source, heldout.source, hardware, settings, progress, stop)

    def found(self, part: Images) -> str:
        sizes = np.asarray(part.source.sizes).min(1)
        return (
            f"{len(part.source)} images of {part.source.name}, the shorter side {sizes.min()} to "
            f"{sizes.max()} pixels{_left_out(part)}"
        )


def _asked(method: Pretext) -> dict[str, Any]:
    return {"kinds": list(method.kinds), "questions": list(method.questions)}


def _tell_small(part: Images, framing: Framing) -> None:
    """Warn where most images would have to be enlarged: blurred ones teach less, and slower."""
    side = framing.wanted
    shorter = np.asarray(part.source.sizes).min(1)
    small = int((shorter < side).sum())
    if 2 * small <= len(shorter):
        return
    fits = int(np.quantile(shorter, 0.1))
    advice = (
        f"; --set framing.shorter={fits}, with --canvas and --crop no larger, enlarges few of them"
        if fits >= _LEAST and isinstance(framing, ImageFraming)
        else ""
    )
    log.warning(
        "%d of %d images of %s are smaller than the %d pixels of their shorter side that the "
        "preset asks for, and are enlarged%s",
        small,
        len(shorter),
        part.source.name,
        side,
        advice,
    )


def _left_out(part: Part) -> str:
    return f", {len(part.left_out)} left out" if part.left_out else ""
