"""Detection: Fast R-CNN on proposals, or Faster R-CNN (thesis, sections 3.4.2 and 4.4.2).

The thesis transfers the convolutions, absorbs their batch norm, rescales the fresh fully connected
layers, trains in several scales and tests in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfsup_cli.config.detect import TransferDetect
from selfsup_cli.config.registry import PADDED
from selfsup_cli.data.boxed_source import open_boxed
from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.proposals import SelectiveSearch, from_file, searched
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.detect_images import (
    GREY,
    DetectDataset,
    Scaling,
    join,
    parts_of,
    placed,
    read_tests,
    whole,
)
from selfsup_cli.evaluation.detect_scores import FoundBoxes, measurements, require_coco
from selfsup_cli.evaluation.detection import Detections, mean_average_precision
from selfsup_cli.evaluation.fresh import layers_of
from selfsup_cli.evaluation.task import Task, Told
from selfsup_cli.models import Backbone
from selfsup_cli.models.detector import Detector, DetectorSpec, fixed_size, own_layer
from selfsup_cli.models.detector_weights import save_detector
from selfsup_cli.models.rescale import affine, between, within
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.transforms.images import to_unit

_QUICK = 256
# Training images on which statistics and scales are found, and regions of each.
_MEASURED, _RESCALED, _REGIONS = 32, 8, 64
_LOSSES = {
    "loss_classifier": "loss_classes",
    "loss_box_reg": "loss_boxes",
    "loss_objectness": "loss_objectness",
    "loss_rpn_box_reg": "loss_proposals",
}


class Detect(Task):
    """The task as the engine sees it."""

    name = "detect"
    many = "images"
    labelled = True
    opener = staticmethod(open_boxed)
    preset: TransferDetect

    def __init__(
        self, preset: TransferDetect, backbone: Backbone, classes: tuple[str, ...], seed: int
    ) -> None:
        super().__init__()
        self.preset = preset
        self.classes = classes
        self.seed = seed
        require_coco()
        self.fixed = fixed_size(backbone)
        self.network = detector(preset, backbone, len(classes), seed=seed)
        self.regions: dict[str, np.ndarray] | None = {} if preset.detector.kind == "fast" else None

    @classmethod
    def answers(cls, preset: TransferDetect, source: BoxedImages) -> tuple[str, ...]:
        """The classes of the objects."""
        assert source.attributes is not None  # noqa: S101 (images with boxes have them)
        return source.attributes

    @property
    def plain(self) -> Detector:
        network = super().plain
        assert isinstance(network, Detector)  # noqa: S101 (it makes no other)
        return network

    @property
    def layer(self) -> str | None:
        spec = self.plain.spec
        return None if spec.own else spec.layer

    def save(self, path: Path, trained_on: dict[str, Any]) -> str:
        return save_detector(path, self.plain, self.classes, self.facts, trained_on)

    def samples(self, source: BoxedImages) -> DetectDataset:
        return DetectDataset(
            source, self.preset.images, self.seed, fixed=self.fixed, regions=self.regions
        )

    def join(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return join(samples, self.fixed)

    @property
    def scaling(self) -> Scaling:
        """In which size test images are looked at."""
        images = self.preset.images
        return Scaling(images.test_shorter, images.test_longest, self.fixed)

    def prepare(
        self,
        train: BoxedImages,
        heldout: BoxedImages,
        hardware: Hardware,
        *,
        workers: int,
        telling: Callable[[str], Told],
    ) -> None:
        exact = self.preset.train.deterministic and hardware.device.type == "cuda"
        if exact and self.plain.spec.pooling == "max":
            raise InputError(
                "detector.pooling: maxima of regions have no deterministic kernel on a GPU; use "
                "--set detector.pooling=align with --deterministic",
                kind="deterministic",
            )
        for source in (train, heldout):
            self._propose(source, workers, telling)
        spec, start = self.plain.spec, self.preset.start.init
        if start == "random" and spec.batch_norm == "fixed" and _norms(self.plain.backbone):
            self._measure(train, hardware)

    def _propose(
        self, source: BoxedImages, workers: int, telling: Callable[[str], Told] | None = None
    ) -> None:
        """Find regions of images that have none yet."""
        if self.regions is None or all(name in self.regions for name in source.ids):
            return
        given, how = self.preset.proposals, self.search
        if given.file is not None:
            found = from_file(Path(given.file), source)
        else:
            told = None if telling is None else telling("selective search: images")
            processes.first_rank_decides(
                lambda: len(searched(source, how, workers=workers, told=told))
            )
            found = searched(source, how, workers=workers)
        self.regions.update(zip(source.ids, found, strict=True))

    @property
    def search(self) -> SelectiveSearch:
        """How proposals are made where no file has them."""
        given = self.preset.proposals
        return SelectiveSearch(given.mode, given.side, given.most)

    def _first(self, source: BoxedImages, count: int) -> list[dict[str, Any]]:
        """Some training images, chosen by the seed."""
        dataset = self.samples(source)
        order = torch.randperm(len(dataset), generator=generator(self.seed, "first", "images"))
        return [dataset[0, int(i)] for i in order[:count]]

    def _seen(
        self, samples: Sequence[dict[str, Any]], hardware: Hardware
    ) -> tuple[Tensor, list[Tensor]]:
        """Training images on a canvas, and some regions of each."""
        batch = self.join(samples)
        sizes, proposals, targets = parts_of(batch)
        regions = []
        for name, size, rows, target in zip(batch["id"], sizes, proposals, targets, strict=True):
            g = generator(self.seed, "first", name)
            chosen = rows[torch.randperm(len(rows), generator=g)[:_REGIONS]]
            rows = torch.cat([chosen, target["boxes"], whole(size, rows)])
            regions.append(rows.to(hardware.device))
        return to_unit(batch["image"]).to(hardware.device), regions

    @torch.no_grad()
    def _measure(self, source: BoxedImages, hardware: Hardware) -> None:
        """Give batch norm the statistics of training images, on which it stays from then on."""
        network = self.plain.to(hardware.device).eval()
        norms = _norms(network.backbone)
        momenta = [module.momentum for module in norms]
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # plain averages
            module.train()
        for sample in self._first(source, _MEASURED):
            network.outputs(*self._seen([sample], hardware))
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
        network.train()

    def rescale(self, source: BoxedImages, hardware: Hardware) -> None:
        network = self.plain.to(hardware.device).eval()
        images, regions = self._seen(self._first(source, _RESCALED), hardware)
        g = generator(self.seed, "rescale")
        backbone, fresh = network.backbone, network.fresh
        upto = backbone.layers[-1] if network.spec.own else network.spec.layer
        below = layers_of(backbone.parts(upto)[0])

        def whole_run() -> tuple[Tensor, Tensor]:
            return network.outputs(images, regions)

        if self._rescales_all:
            within(affine([*below, *fresh]), whole_run)
        with torch.no_grad():
            fed = network.fed(images, regions)
        if not self._rescales_all:
            within(fresh, lambda: network.judged(fed))
        if backbone.spec.get("absorbed") and backbone.arch in PADDED:
            still = len(layers_of(backbone.parts(network.frozen[-1])[0])) if network.frozen else 0
            between([*below[still:], *fresh], whole_run, g)
        else:
            between(fresh, lambda: network.judged(fed), g)
        network.train()

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        sizes, proposals, targets = parts_of(batch)
        given = None if self.regions is None else proposals
        with update.autocast():
            _, losses = self.network(to_unit(batch["image"]), sizes, given, targets)
        loss = torch.stack(list(losses.values())).sum()
        update(loss)
        return {"loss": loss, **{_LOSSES[name]: value for name, value in losses.items()}}

    @torch.no_grad()
    def ask(
        self,
        source: BoxedImages,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> FoundBoxes:
        if quick and len(source) > _QUICK:
            order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "quick"))
            source = source.subset(np.array(sorted(order[:_QUICK]), np.int64))
        self._propose(source, workers)
        network = self.plain.to(hardware.device).eval()
        found = []
        for item in read_tests(source, self.scaling, workers):
            was = source.sizes[item.position].tolist()
            regions = None if self.regions is None else self.regions[source.ids[item.position]]
            found.append(found_in(network, item.image, was, regions, self.fixed, hardware))
            if told is not None:
                told(len(found), len(source))
        return FoundBoxes(source, found, self.classes)

    def grade(self, found: FoundBoxes) -> tuple[str, float]:
        share = mean_average_precision(found.per_class())
        return "test_mean_precision", 0.0 if np.isnan(share) else share

    def measurements(
        self, found: FoundBoxes, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        return measurements(found, {**about, "task": self.name}, protocol)

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        images, given, sampling = self.preset.images, self.preset.proposals, self.preset.regions
        test = self.preset.test
        if self.fixed is not None:
            scales = tested = f"longer side {self.fixed}"
        else:
            scales = f"shorter side {', '.join(map(str, images.shorter))}, up to {images.longest}"
            tested = f"shorter side {images.test_shorter}, up to {images.test_longest}"
        how = f"selective search ({given.mode}) in images of {given.side} pixels"
        if self.regions is None:
            how = "the network's own"
        elif given.file is not None:
            how = f"the file {Path(given.file).name}"
        return {
            "training_scales": scales + (", half mirrored" if images.flip else ""),
            "test_scale": tested,
            "proposals": how,
            "regions": f"{sampling.count} of each image, up to {100 * sampling.foreground:g} % "
            f"of objects (overlap {sampling.overlap:g})",
            **({"batch_norm": self._normed()} if _norms(self.plain.backbone) else {}),
            **({"rescaled": self._rescaled()} if self.preset.start.rescale else {}),
            "test": f"scores from {test.score:g}, non-maximum suppression at {test.nms:g}, up to "
            f"{test.most} boxes of an image",
        }

    def _normed(self) -> str:
        if self.plain.spec.batch_norm == "batch":
            return "statistics of each batch"
        random = self.preset.start.init == "random"
        return f"fixed, statistics of {'training images' if random else 'what it started from'}"

    def _rescaled(self) -> str:
        which = "all layers" if self._rescales_all else "fresh layers"
        return f"{which}, on regions of up to {_RESCALED} training images"

    @property
    def _rescales_all(self) -> bool:
        """Batch norm keeps the scales of what lies below it, whatever these layers do."""
        return self.preset.start.init == "random" and not _norms(self.plain.backbone)

    @property
    def facts(self) -> dict[str, Any]:
        return {"scaling": asdict(self.scaling), "search": asdict(self.search)}


@torch.no_grad()
def found_in(
    network: Detector,
    image: Tensor,
    was: Sequence[int],
    regions: np.ndarray | None,
    fixed: int | None,
    hardware: Hardware,
) -> Detections:
    """What a network in evaluation mode finds in an image uint8 [3, h, w], `was` (H, W) before.

    `regions` float [P, 4] are the proposals that Fast R-CNN is given; `fixed` is the side of the
    only images that the network takes. Boxes of both are in pixels of the image as it was.
    """
    size = (image.shape[1], image.shape[2])
    canvas = image[None].to(hardware.device)
    if fixed is not None:
        canvas = canvas.new_full((1, 3, fixed, fixed), GREY)
        canvas[0, :, : size[0], : size[1]] = image
    proposals = None
    if regions is not None:
        rows = torch.from_numpy(placed(regions, was, size)).to(hardware.device)
        proposals = [torch.cat([rows, whole(size, rows)])]
    with hardware.autocast():
        ((one,), _) = network(to_unit(canvas), [size], proposals)
    return Detections(
        placed(one["boxes"].float().cpu().numpy(), size, (was[0], was[1])),
        one["scores"].float().cpu().numpy(),
        one["labels"].cpu().numpy() - 1,
    )


def _norms(backbone: Backbone) -> list[Any]:
    """The batch norms of a network that have running statistics."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    found = (one for one in backbone.modules() if isinstance(one, kinds))
    return [one for one in found if one.track_running_stats]


def detector(preset: TransferDetect, backbone: Backbone, classes: int, *, seed: int) -> Detector:
    """The network that is trained: `backbone`, partly frozen, with what finds objects on it."""
    asked, sampling, test = preset.detector, preset.regions, preset.test
    own = asked.head == "own"
    layer, cells = own_layer(backbone) if own else (asked.layer or backbone.embedding, asked.cells)
    width = float(backbone.spec["width"])
    spec = DetectorSpec(
        kind=asked.kind,
        outputs=classes,
        layer=layer,
        own=own,
        cells=cells,
        pooling=asked.pooling,
        hidden=[] if own else [max(8, 8 * round(n * width / 8)) for n in asked.hidden],
        dropout=asked.dropout,
        batch_norm=asked.batch_norm,
        regions=sampling.count,
        foreground=sampling.foreground,
        overlap=sampling.overlap,
        background_from=sampling.background_from,
        anchors=asked.anchors,
        score=test.score,
        nms=test.nms,
        most=test.most,
    )
    network = Detector(backbone, spec, generator=generator(seed, "detector"))
    return network.freeze(preset.start.freeze)


TASK = Detect
