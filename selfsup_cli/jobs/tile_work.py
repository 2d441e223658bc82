"""Pairs of real and tile-shuffled images, and how well the layers of a network tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from selfsup_cli.config.evaluation import LinearHeads
from selfsup_cli.config.tiles import ProbeTiles
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation.features import Features, extract, weights_sha256
from selfsup_cli.evaluation.labelled import Labelled
from selfsup_cli.evaluation.probe import ProbeResult, described, probe_layer
from selfsup_cli.evaluation.tampered import (
    CLASSES,
    Pairs,
    Tampering,
    band_of,
    painted,
    seam_statistics,
)
from selfsup_cli.evaluation.views import ImageViews, read_images, shorter_side
from selfsup_cli.jobs.compared import learned_from_labels
from selfsup_cli.jobs.subject import RANDOM
from selfsup_cli.models import Backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs.published import OURS, Facts, published
from selfsup_cli.runs.published_images import IMAGENET, LABELS
from selfsup_cli.runs.report import Measurement, ProtocolValue, clustered_accuracy

SEAMS = "seams alone"
"""The control that is shown what is painted over, and nothing else."""

PAINTS = {"laplace": "by Laplace's equation", "grey": "grey"}
"""How bands are painted, in words."""

_SEAM_IMAGES = 1000
_BATCH = 256
_VIEWS = ImageViews("center")


def some(source: ImageSource, most: int, seed: int) -> ImageSource:
    """At most `most` images of a source, chosen by a seeded hash of their ids."""
    if len(source) <= most:
        return source
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "tiles, chosen"))
    return source.subset(np.sort(np.array(order[:most], dtype=np.int64)))


@dataclass
class Work:
    """Pairs of images, their features, and the classifiers that tell them apart."""

    preset: ProbeTiles
    train: ImageSource
    test: ImageSource
    hardware: Hardware
    progress: Progress
    stop: StopFlag

    def pairs(self, source: ImageSource, network: Backbone) -> Pairs:
        """Two images for each of `source`, as large as the network sees them."""
        settings, side = self.preset.tiles, network.input.crop
        band = band_of(side, settings.grid, settings.band)
        return Pairs(source, side, Tampering(settings.grid, band, settings.seed, settings.paint))

    def extract(
        self, name: str, network: Backbone, layers: Sequence[str]
    ) -> tuple[Labelled, Labelled]:
        """Features of the training and of the test pairs."""
        train, test = (
            self._part(network, layers, source, f"{name}, {part}")
            for part, source in (("train", self.train), ("test", self.test))
        )
        return train, test

    def _part(
        self, network: Backbone, layers: Sequence[str], source: ImageSource, what: str
    ) -> Labelled:
        pairs = self.pairs(source, network)
        features = extract(
            network,
            pairs,
            _VIEWS,
            hardware=self.hardware,
            layers=layers,
            grid=self.preset.probe.grid,
            batch=_BATCH,
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=self._counting(f"features ({what}): images"),
        )
        return _labelled(features, pairs)

    def _counting(self, what: str) -> Callable[[int, int], None]:
        counter = self.progress.counting(what)

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        return told

    def measure(self, name: str, network: Backbone, layers: Sequence[str]) -> list[Measurement]:
        """How well each layer of a network tells real from shuffled."""
        train, test = self.extract(name, network, layers)
        out = []
        for layer in layers:
            self.progress.update(f"probing {layer} ({name})", force=True)
            result = self._probed(train, test, layer, self.preset.probe)
            pooling = str(train.features.about["pooling"])
            about: dict[str, ProtocolValue] = {
                "pooling": pooling,
                "weights": weights_sha256(network)[:16],
            }
            row = self._row(result, name, network, layer, self.preset.probe, about)
            if layer == network.embedding:
                row = _beside(row, network, PAINTS[self.preset.tiles.paint])
            out.append(row)
        return out

    def measure_seams(self, network: Backbone) -> Measurement:
        """How well the painted bands alone tell real from shuffled, at the size of `network`."""
        parts = []
        for source in (self.train, self.test):
            pairs = self.pairs(some(source, _SEAM_IMAGES, self.preset.tiles.seed), network)
            values = np.stack(list(self._statistics(pairs, network)))
            rows = np.arange(len(pairs), dtype=np.int64)
            parts.append(_labelled(Features.of({SEAMS: values}, rows), pairs))
        # Twelve numbers fit a classifier in any number of epochs; few would leave it unfinished.
        heads = LinearHeads(seed=self.preset.probe.seed)
        result = self._probed(parts[0], parts[1], SEAMS, heads)
        about: dict[str, ProtocolValue] = {
            "features": "mean absolute differences of neighbouring pixels in the painted bands and "
            "across their edges, along both axes, for each colour",
            "training_images": len(parts[0].labels) // 2,
        }
        return self._row(result, SEAMS, network, None, heads, about)

    def _statistics(self, pairs: Pairs, network: Backbone) -> Iterator[np.ndarray]:
        mask = painted(pairs.side, pairs.tampering.tiles, pairs.tampering.band)
        workers = loader_workers(self.preset.machine.workers)
        told = self._counting(f"{SEAMS}: images")
        found = read_images(pairs, range(len(pairs)), _VIEWS, network.input, workers)
        for done, item in enumerate(found, 1):
            (view,) = item.inputs(torch.device("cpu"))
            yield seam_statistics(view, mask).numpy()
            told(done, len(pairs))

    def _probed(
        self, train: Labelled, test: Labelled, layer: str, settings: LinearHeads
    ) -> ProbeResult:
        return probe_layer(
            train, test, layer, settings, self.hardware, many="images", stop=self.stop
        )

    def _row(
        self,
        result: ProbeResult,
        name: str,
        network: Backbone,
        layer: str | None,
        heads: LinearHeads,
        about: dict[str, ProtocolValue],
    ) -> Measurement:
        settings, spec = self.preset.tiles, network.input
        band = band_of(spec.crop, settings.grid, settings.band)
        protocol: dict[str, ProtocolValue] = {
            "tiles": f"{settings.grid}×{settings.grid}, in another order, drawn by seed "
            f"{settings.seed}",
            "seams": f"{band} pixels across each border, painted {PAINTS[settings.paint]}, in real "
            "images too",
            "crop": f"centre {spec.crop}, shorter side {shorter_side(spec)}",
            "training_images": len(self.train),
            "test": "each image real and shuffled; interval over images",
            "epochs": heads.epochs,
            "batch_size": heads.batch_size,
            "seed": heads.seed,
            **{
                key: value
                for key, value in described(
                    result, result.standardized, "softmax", "images"
                ).items()
                if key != "test"
            },
            "training_accuracy": round(100 * result.training, 2),
            **about,
        }
        right = (result.predictions == result.labels).reshape(-1, 2)
        return clustered_accuracy(
            "real or shuffled",
            right.mean(1).tolist(),
            "images",
            task="probe",
            subject=name,
            dataset=self.test.name,
            split=self.test.split_rule,
            layer=layer,
            metric="top-1 accuracy",
            chance=50.0,
            chance_is="what any constant answer gets",
            protocol=protocol,
        )


def _labelled(features: Features, pairs: Pairs) -> Labelled:
    # Both images of a pair have one name, so that both are held out or neither.
    return Labelled(features, pairs.truth(), CLASSES, pairs.names())


def _beside(row: Measurement, network: Backbone, painted: str) -> Measurement:
    """`row` with what figure 4.1 says of such a network, if it says anything."""
    trained = network.trained_on
    method = OURS if trained.get("method") == "transformations" else f"ImageNet {LABELS}"
    if row.subject == RANDOM or (method != OURS and not learned_from_labels(network)):
        return row
    facts: Facts = {
        "network": network.arch,
        "trained_on": str(trained.get("data", "")),
        "layer": row.layer or "",
    }
    number = published("tiles", row.metric, IMAGENET, method=method, **facts)
    if number is None:
        return row
    differs = [f"seams: painted by a trained network in the thesis, {painted} here"]
    if row.dataset != IMAGENET:
        differs.append(f"data: {IMAGENET} in the thesis, {row.dataset} here")
    differs += number.differs
    number = number.model_copy(update={"comparable": False, "differs": differs})
    return row.model_copy(update={"published": number})
