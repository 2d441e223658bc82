"""Pretraining of a GAN: its data, what it keeps on the way, what there is to see of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.data.framing import Crop
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.loader import Loader
from selfsup_cli.data.ring import PointLoader, Points
from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.gan_pixels import Reals, some
from selfsup_cli.jobs import images
from selfsup_cli.jobs.gan_monitoring import GanMonitoring
from selfsup_cli.jobs.gan_progress import progress_pictures
from selfsup_cli.jobs.generators import FOLDER, keep_time
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.pretraining import batches_of
from selfsup_cli.methods.dfgan import Dfgan
from selfsup_cli.models import save_backbone
from selfsup_cli.models.gan import Discriminator
from selfsup_cli.models.gan_backbone import backbone_of, settle
from selfsup_cli.models.gan_files import FILE, save_generator
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.transforms.images import to_unit

log = logging.getLogger("selfsup")

_SETTLING = 1024
_GREY_LOOKS = 16


@dataclass
class PointPart:
    """Points of the ring; none is ever left out."""

    source: Points
    left_out: Sequence[LeftOut] = ()


GanPart = Images | PointPart


class GanWork:
    """Pretraining of a generator and a discriminator, on images or on the points of `ring`."""

    method: Dfgan

    def __init__(self, preset: PretrainGan) -> None:
        self.preset = preset
        self.many = self.inputs = "points" if preset.on_points else "images"

    @property
    def per_update(self) -> int:
        return self.preset.train.batch_size * self.preset.train.discriminator_steps

    @property
    def seeds(self) -> Sequence[int]:
        return self.preset.train.seeds

    def begin(self, run: str | None) -> list[dict[str, Any]]:
        return []

    def open(self, progress: Progress) -> tuple[GanPart, GanPart]:
        data = self.preset.data
        if self.preset.on_points:
            ring = data.ring
            return PointPart(Points(ring, "train")), PointPart(Points(ring, "test"))
        train, heldout = images.open_parts(data, self.preset.machine, progress, labels=False)
        train = Images(some(train.source, data.images, data.split_seed), train.left_out)
        self._check(train)
        if len(heldout.source) < 2:
            raise InputError(
                f"{heldout.source.name} holds {len(heldout.source)} images out, and samples are "
                "compared with at least two; hold out more (--test-share)",
                kind="too-few-images",
            )
        return train, heldout

    def create(self, part: GanPart) -> Dfgan:
        self.method = Dfgan(self.preset)
        return self.method

    def loader(self, part: GanPart, hardware: Hardware) -> Loader:
        seed = self.preset.train.seed
        if isinstance(part, PointPart):
            return PointLoader(
                part.source,
                batch_size=self.per_update,
                seed=seed,
                rank=processes.rank(),
                world=processes.world(),
            )
        side = self.preset.network.size
        dataset = ImageDataset(part.source, seed, plan=Crop((side, side), side))
        return batches_of(dataset, self, part, hardware)

    def monitor(self, part: GanPart, hardware: Hardware, progress: Progress) -> GanMonitoring:
        return GanMonitoring(
            self.method,
            lambda: self._heldout(part),
            hardware,
            progress,
            dataset=part.source.name,
            split_rule=part.source.split_rule,
        )

    def watch(self, run: Run, part: GanPart) -> Callable[[int, float], None]:
        """Keep the generator at evenly spaced steps, and how long the training had taken."""
        train = self.preset.train
        total = self.preset.training.epochs * (len(part.source) // self.per_update)
        total = min(total, train.max_steps or total)
        kept = train.keep_generators
        steps = {round(total * (k + 1) / kept) for k in range(kept)}

        def after(step: int, seconds: float) -> None:
            if step in steps and processes.rank() == 0:
                (run.path / FOLDER).mkdir(exist_ok=True)
                path = run.path / FOLDER / f"step-{step:08d}.safetensors"
                self._save(path, part, step, run.name)
                keep_time(run.path, step, seconds)

        return after

    def keep(self, run: Run, part: GanPart, facts: dict[str, Any]) -> str | None:
        weights = self._save(run.path / FILE, part, facts["steps"], run.name)
        judge = self.method.discriminator
        if not isinstance(judge, Discriminator) or not isinstance(part, Images):
            return weights
        network = self.preset.network
        judging: dict[str, Any] = {"activation": network.activation, "depth": network.depth}
        if network.arch == "dcgan":
            judging["layout"] = network.discriminator
        backbone = backbone_of(judge, network.arch, network.width, judging)
        settle(backbone, self._some_real(part))
        save_backbone(run.path / "backbone.safetensors", backbone, facts)
        return weights

    def inputs_each(self) -> int:
        return 1

    def about(self) -> dict[str, Any]:
        filtering = self.preset.filtering
        return {
            "objective": self.preset.objective,
            "noise": filtering.noise,
            "feeding": self.method.feeding,
            "noise_weight": filtering.weight,
        }

    def pictures(self, part: GanPart, run: Run) -> list[Picture]:
        real = part.source.points if isinstance(part, PointPart) else self._first_real(part)
        return progress_pictures(run, self.preset, real)

    def shortcuts(
        self,
        train: GanPart,
        heldout: GanPart,
        hardware: Hardware,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        return None

    def found(self, part: GanPart) -> str:
        if isinstance(part, PointPart):
            return f"{len(part.source)} points of {self.preset.data.ring.modes} modes"
        sizes = np.asarray(part.source.sizes).min(1)
        left = f", {len(part.left_out)} left out" if part.left_out else ""
        return (
            f"{len(part.source)} images of {part.source.name}, the shorter side {sizes.min()} to "
            f"{sizes.max()} pixels{left}"
        )

    def _check(self, part: Images) -> None:
        """Tell what of the images does not fit; fewer than an update takes raise InputError."""
        source, side = part.source, self.preset.network.size
        if len(source) < self.per_update:
            turns = self.preset.train.discriminator_steps
            each = f" ({turns} of the discriminator)" if turns > 1 else ""
            raise InputError(
                f"{len(source)} training images of {source.name} are fewer than the "
                f"{self.per_update} of one update{each}; use --batch-size {len(source) // turns} "
                "or less",
                kind="batch-size",
            )
        small = int((np.asarray(source.sizes).min(1) < side).sum())
        if 2 * small > len(source):
            log.warning(
                "%d of %d images of %s are smaller than the %d pixels that are generated, and are "
                "enlarged: samples will be as blurred; a smaller --size is nearer to them",
                small, len(source), source.name, side,
            )  # fmt: skip
        if self._grey(part):
            log.warning(
                "the images of %s are grey: they are generated in colour all the same, in three "
                "equal channels that the networks have to learn to keep equal",
                source.name,
            )

    def _grey(self, part: Images) -> bool:
        chosen = some(part.source, _GREY_LOOKS, self.preset.data.split_seed)
        looks = next(self._read(chosen, len(chosen)))
        return bool((looks == looks[:, :1]).all())

    def _heldout(self, part: GanPart) -> Tensor:
        most = self.preset.monitor.images
        if isinstance(part, PointPart):
            return part.source.points[:most]
        chosen = some(part.source, most, self.preset.train.seed)
        return torch.cat(list(self._read(chosen, most)))

    def _first_real(self, part: Images) -> Tensor:
        chosen = some(part.source, 8, self.preset.train.seed)
        return to_unit(next(self._read(chosen, 8)))

    def _some_real(self, part: Images) -> Iterator[Tensor]:
        chosen = some(part.source, _SETTLING, self.preset.train.seed)
        for batch in self._read(chosen, self.preset.train.batch_size):
            if len(batch) > 1:
                yield to_unit(batch)

    def _read(self, source: Any, batch: int) -> Iterator[Tensor]:
        """Images uint8, framed as in training, at most `batch` at a time."""
        machine = self.preset.machine
        workers = loader_workers(machine.workers, machine.devices) if len(source) > 256 else 0
        reals = Reals(source, self.preset.network.size, workers=workers)
        return reals.read([(0, len(source))], batch)

    def _save(self, path: Path, part: GanPart, step: int, run: str) -> str:
        facts = {
            "method": self.preset.name,
            "run": run,
            "step": step,
            "data": part.source.name,
            "fingerprint": part.source.fingerprint,
            **self.about(),
        }
        method = self.method
        return save_generator(
            path, method.generator, facts, average=method.average, noise=method.noise
        )
