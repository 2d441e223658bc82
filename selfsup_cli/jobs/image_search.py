"""Features of gallery and queries, the search among them, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from selfsup_cli.config.retrieval_images import RetrieveImages
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation.features import Features, extract, weights_sha256
from selfsup_cli.evaluation.image_retrieval import (
    measurements,
    nearest,
    standardized,
    vectors_of,
)
from selfsup_cli.evaluation.retrieval import Neighbourhood
from selfsup_cli.evaluation.views import ImageViews, shorter_side
from selfsup_cli.jobs.compared import Compared
from selfsup_cli.jobs.images import Images
from selfsup_cli.models import Backbone
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.visualization.neighbours_images import Shown

_DRAWN = 192
"""Shorter side to which images are scaled for the picture."""


@dataclass(frozen=True)
class Found:
    """What a network holds to be alike."""

    name: str
    network: Backbone
    neighbours: Neighbourhood


@dataclass
class Search:
    """Features of gallery and queries, and the search among them."""

    preset: RetrieveImages
    gallery: Images | None
    queries: Images
    hardware: Hardware
    progress: Progress
    stop: StopFlag

    @property
    def among(self) -> ImageSource:
        """Where neighbours are searched."""
        return (self.gallery or self.queries).source

    def __call__(self, network: Backbone, name: str) -> Neighbourhood:
        """The neighbours of every query."""
        settings = self.preset.neighbours
        layer = settings.layer or network.embedding
        source = self.queries.source
        queries = vectors_of(self._features(network, source, name), layer, len(source))
        gallery = None
        if self.gallery is not None:
            source = self.gallery.source
            features = self._features(network, source, f"{name}, gallery")
            gallery = vectors_of(features, layer, len(source))
        self.progress.update(f"searching ({name})", force=True)
        if settings.standardize:
            standardized(*(part for part in (gallery, queries) if part is not None))
        return nearest(
            queries,
            gallery,
            max(settings.shown, *settings.ks),
            device=self.hardware.device,
            progress=self._counting(f"neighbours ({name}): queries"),
        )

    def extract_all(self, compared: Compared) -> None:
        """Extract all features that a search will ask for."""
        for name, network in compared.networks():
            self._features(network, self.queries.source, name)
            if self.gallery is not None:
                self._features(network, self.gallery.source, f"{name}, gallery")

    def _features(self, network: Backbone, source: ImageSource, what: str) -> Features:
        settings = self.preset.neighbours
        return extract(
            network,
            source,
            ImageViews(settings.crops),
            hardware=self.hardware,
            layers=[settings.layer or network.embedding],
            grid=settings.grid,
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=self._counting(f"features ({what}): images"),
        )

    def _counting(self, what: str) -> Callable[[int, int], None]:
        counter = self.progress.counting(what)

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        return told

    def rows(self, found: Found) -> list[Measurement]:
        """The numbers, where there are labels to take them from."""
        queries = self.queries.source
        if queries.labels is None or self.among.labels is None:
            return []
        settings = self.preset.neighbours
        layer = settings.layer or found.network.embedding
        spec = found.network.input
        crops = "five crops (centre, corners)" if settings.crops == "five" else "centre crop"
        protocol: dict[str, ProtocolValue] = {
            "neighbours_among": "the test images, leave-one-out"
            if self.gallery is None
            else "the training images",
            "crops": f"{crops} of {spec.crop}, shorter side {shorter_side(spec)}",
            "features": f"{layer}, averaged to at most {settings.grid}×{settings.grid} cells where "
            "it has more; crops one after the other",
            "standardised": f"with {'its own' if self.gallery is None else 'gallery'} statistics"
            if settings.standardize
            else "no",
            "weights": weights_sha256(found.network)[:16],
        }
        return measurements(
            found.neighbours,
            queries.labels,
            None if self.gallery is None else self.among.labels,
            settings.ks,
            subject=found.name,
            dataset=queries.name,
            split=queries.split_rule,
            layer=layer,
            protocol=protocol,
        )

    def shown(self, query: int, found: Found) -> list[Shown]:
        """The nearest neighbours of a query as they are drawn."""
        count = self.preset.neighbours.shown
        near = found.neighbours
        out = []
        for row, score in zip(near.rows[query, :count], near.scores[query, :count], strict=True):
            hit = None
            if self.queries.source.labels is not None and self.among.labels is not None:
                own, other = self.queries.source.labels[query], self.among.labels[row]
                hit = bool(((own == 1) & (other == 1)).any()) if own.ndim else bool(own == other)
            out.append(drawn(self.among, int(row), float(score), hit))
        return out


def drawn(
    source: ImageSource, i: int, score: float | None = None, hit: bool | None = None
) -> Shown:
    """An image of a source for a picture, with its class or labels."""
    label = None
    if source.labels is not None and source.classes is not None:
        label = source.classes[int(source.labels[i])]
    elif source.labels is not None and source.attributes is not None:
        has = np.flatnonzero(source.labels[i] == 1).tolist()
        label = ", ".join(source.attributes[a] for a in has) or "none of the labels"
    small = int(source.sizes[i].min()) <= _DRAWN
    return Shown(source.read(i, None if small else _DRAWN), source.ids[i], label, score, hit)
