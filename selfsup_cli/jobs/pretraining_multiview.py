"""Pretraining on synchronised views: its data, its checks, what there is to see of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.data.loader import Loader
from selfsup_cli.data.source import LeftOut
from selfsup_cli.data.view_pairs import AnchorDataset, Anchors
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.jobs.method_weights import save_method
from selfsup_cli.jobs.multiview import divide, name_of, open_views
from selfsup_cli.jobs.multiview_monitoring import MultiviewMonitoring
from selfsup_cli.jobs.multiview_pictures import pair_sheets
from selfsup_cli.jobs.pretraining import batches_of
from selfsup_cli.methods.multiview import IMAGES, Multiview
from selfsup_cli.models import save_backbone
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import curves


@dataclass
class AnchorPart:
    """The anchors of a part of the views."""

    source: Anchors
    left_out: Sequence[LeftOut] = ()


class MultiviewWork:
    """Pretraining of chapter 6."""

    many = "anchors"
    inputs = "images"
    method: Multiview

    def __init__(self, preset: PretrainMultiview) -> None:
        self.preset = preset

    @property
    def per_update(self) -> int:
        return self.preset.train.batch_size

    @property
    def seeds(self) -> Sequence[int]:
        return ()

    def begin(self, run: str | None) -> list[dict[str, Any]]:
        return []

    def open(self, progress: Progress) -> tuple[AnchorPart, AnchorPart]:
        data, settings = self.preset.data, self.preset.pairs
        views = open_views(data, self.preset.machine, progress)
        division = divide(views, data)
        self._by_time = division.by_time
        name, rule = name_of(data), division.rule
        train = Anchors(views, division.train, settings, name=name, split="train", split_rule=rule)
        test = Anchors(
            views,
            division.test,
            settings,
            name=name,
            split="test",
            split_rule=rule,
            threshold=train.threshold,
        )
        self._seen = train
        return AnchorPart(train), AnchorPart(test)

    def create(self, part: AnchorPart) -> Multiview:
        self.method = Multiview(self.preset)
        return self.method

    def loader(self, part: AnchorPart, hardware: Hardware) -> Loader:
        dataset = AnchorDataset(part.source, self.preset.train.seed)
        return batches_of(dataset, self, part, hardware)

    def monitor(
        self, part: AnchorPart, hardware: Hardware, progress: Progress
    ) -> MultiviewMonitoring:
        self._monitoring = MultiviewMonitoring(
            self.method, self._seen, part.source, hardware, progress, by_time=self._by_time
        )
        return self._monitoring

    def watch(self, run: Run, part: AnchorPart) -> Callable[[int, float], None] | None:
        return None

    def keep(self, run: Run, part: AnchorPart, facts: dict[str, Any]) -> str:
        weights = save_backbone(run.path / "backbone.safetensors", self.method.backbone, facts)
        save_method(run, self.method)
        return weights

    def inputs_each(self) -> int:
        return IMAGES

    def about(self) -> dict[str, Any]:
        return self.method.facts()

    def pictures(self, part: AnchorPart, run: Run) -> list[Picture]:
        pictures = pair_sheets(self.method, part.source, self._monitoring.parts["unseen"], run)
        drawn = self._monitoring.curves()
        if drawn:
            curves.draw(run.picture("gaps.png"), drawn)
            caption = "Accuracy by the time between images that are not synchronised (figure 6.4)."
            pictures.append(Picture(file="pictures/gaps.png", caption=caption))
        return pictures

    def shortcuts(
        self,
        train: AnchorPart,
        heldout: AnchorPart,
        hardware: Hardware,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        return None

    def found(self, part: AnchorPart) -> str:
        anchors = part.source
        recordings = [anchors.recording(one.recording) for one in anchors.stretches]
        subjects = dict.fromkeys(one.subject for one in recordings)
        cameras = sorted({len(one.cameras) for one in recordings})
        still = f", {anchors.still_frames} frames without motion" if anchors.still_frames else ""
        return (
            f"{len(anchors)} anchors in {len(recordings)} recordings of {anchors.name}, subjects "
            f"{', '.join(subjects)}, {' or '.join(map(str, cameras))} cameras{still}"
        )
