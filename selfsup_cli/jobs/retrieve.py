"""`selfsup retrieve`: nearest neighbours, and how often they share the class (table 5.4)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from selfsup_cli.config.evaluation import Retrieve
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import EMBEDDING, Features, extract, weights_sha256
from selfsup_cli.evaluation.retrieval import (
    Neighbourhood,
    measurements,
    neighbours_of,
    pick_queries,
)
from selfsup_cli.jobs import common, findings
from selfsup_cli.jobs.common import Outcome, Videos
from selfsup_cli.jobs.subject import LEARNED, Subject, load_subject
from selfsup_cli.jobs.thesis import beside
from selfsup_cli.models import Backbone
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import sheets

SHOWN = 2
"""Neighbours of a query in the picture, as in figure 5.5 of the thesis."""


def retrieve(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    share: bool = False,
) -> Outcome:
    """Search the training part for the neighbours of every test video and report the hits.

    Data without labels gives the picture of neighbours alone. With `machine.devices > 1` that many
    processes extract the features, of which each calls this with `share`: extract features together
    with the others, and do no more. Raises InputError, MachineError and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, Retrieve)  # noqa: S101 (the command and the preset belong together)
    subject = load_subject(preset.subject, "video")
    layer = preset.neighbours.layer
    if layer is not None and layer not in subject.learned.layers:
        raise unknown("layer", layer, list(subject.learned.layers))
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        gallery, queries = common.open_both(preset.data, preset.machine, progress)
        if dry_run:
            return _rehearse(preset, subject, gallery, queries)
        search = Search(preset, gallery.source, queries.source, hardware, progress, stop)
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                search.extract_all(subject)
        if share or processes.rank() > 0:
            return Outcome()
        record = common.started_run(
            resolved,
            run,
            arch=subject.learned.arch,
            data=gallery.source.name,
            seed=preset.neighbours.seed,
            command=command,
            dataset=common.describe_both(gallery, queries),
            parents=subject.parents,
        )
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, gallery, queries)
            began = time.monotonic()
            if preset.machine.devices > 1 and not processes.launched():
                processes.launch(preset.machine.devices, _share, resolved)
            found = search(subject.learned, LEARNED)
            rows = search.rows(found, subject.learned, LEARNED)
            if queries.source.labels is not None:
                for name, network in subject.networks()[1:]:
                    rows += search.rows(search(network, name), network, name)
                for control in preset.neighbours.controls:
                    destroyed = search(subject.learned, LEARNED, control)
                    rows += search.rows(destroyed, subject.learned, LEARNED, control)
            pictures = _sheet(record, preset, subject, search, found)
            seconds = time.monotonic() - began
            return _conclude(record, subject, rows, pictures, gallery, queries, seconds)


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    retrieve(resolved, share=True)


class Search:
    """Features of gallery and queries, and the search among them."""

    def __init__(
        self,
        preset: Retrieve,
        gallery: ClipSource,
        queries: ClipSource,
        hardware: Hardware,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        self.preset = preset
        self.gallery = gallery
        self.queries = queries
        self.hardware = hardware
        self.progress = progress
        self.stop = stop

    def __call__(self, network: Backbone, name: str, control: str | None = None) -> Neighbourhood:
        """The neighbours of every query; `control` destroys the order of time in the queries."""
        settings = self.preset.neighbours
        largest = max(SHOWN, *settings.ks)
        return neighbours_of(
            self._vectors(network, self.queries, f"{name}, queries", control),
            self._vectors(network, self.gallery, f"{name}, gallery", None),
            largest,
            standardize=settings.standardize,
            device=self.hardware.device,
        )

    def extract_all(self, subject: Subject) -> None:
        """Extract all features that a search will ask for."""
        for name, network in subject.networks():
            self._features(network, self.gallery, f"{name}, gallery", None)
            self._features(network, self.queries, f"{name}, queries", None)
        if self.queries.labels is not None:
            for control in self.preset.neighbours.controls:
                self._features(subject.learned, self.queries, f"{LEARNED}, queries", control)

    def _vectors(
        self, network: Backbone, source: ClipSource, what: str, control: str | None
    ) -> Tensor:
        features = self._features(network, source, what, control)
        layer = self.preset.neighbours.layer or EMBEDDING
        return features.video_means(layer, len(source))

    def _features(
        self, network: Backbone, source: ClipSource, what: str, control: str | None
    ) -> Features:
        settings = self.preset.neighbours
        counter = self.progress.counting(f"features ({what}{f', {control}' if control else ''})")

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        return extract(
            network,
            source,
            self._clips(network, control),
            hardware=self.hardware,
            layers=[] if settings.layer is None else [settings.layer],
            grid=1,
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=told,
        )

    def _clips(self, network: Backbone, control: str | None) -> ClipProtocol:
        settings = self.preset.neighbours
        return ClipProtocol(
            network.input.frames,
            settings.max_skip,
            settings.clips,
            control=control,  # type: ignore[arg-type]
            seed=settings.seed,
        )

    def shot(self, source: ClipSource, video: int, score: float | None = None) -> sheets.Shot:
        """Three frames of a video for the picture: of its first quarter, middle, last quarter."""
        n = int(source.num_frames[video])
        frames = np.array([n // 4, n // 2, min(3 * n // 4, n - 1)])
        label = None
        if source.labels is not None and source.classes is not None:
            label = source.classes[int(source.labels[video])]
        pictures = source.read(video, frames, None)
        return sheets.Shot(pictures, source.ids[video], label, score)

    def rows(
        self, found: Neighbourhood, network: Backbone, name: str, control: str | None = None
    ) -> list[Measurement]:
        """The numbers, where there are labels to take them from."""
        if self.queries.labels is None or self.gallery.labels is None:
            return []
        settings = self.preset.neighbours
        layer = settings.layer or network.embedding
        protocol: dict[str, reports.ProtocolValue] = {
            "clips": settings.clips,
            "frames": network.input.frames,
            "largest_skip": settings.max_skip,
            "crop": network.input.pixels,
            "features": f"{layer} averaged over time, height and width, then over clips",
            "standardised": "with gallery statistics" if settings.standardize else "no",
            "weights": weights_sha256(network)[:16],
        }
        if control == "shuffled":
            protocol["seed"] = settings.seed
        rows = measurements(
            found,
            self.queries.labels,
            self.gallery.labels,
            settings.ks,
            subject=name,
            dataset=self.gallery.name,
            split=self.queries.split_rule,
            layer=layer,
            protocol=protocol,
            control=control,
        )
        if name != LEARNED or control is not None:
            return rows
        return [
            beside(
                "retrieve",
                row,
                network,
                layer="global average pool" if settings.layer is None else settings.layer,
                clips=settings.clips,
                standardised=settings.standardize,
            )
            for row in rows
        ]


def _sheet(
    run: Run, preset: Retrieve, subject: Subject, search: Search, found: Neighbourhood
) -> list[Picture]:
    """The picture of some queries and their nearest neighbours, as figure 5.5 of the thesis."""
    settings = preset.neighbours
    queries = search.queries
    chosen = pick_queries(settings.sheet, settings.seed, queries.ids, queries.labels)
    if len(chosen) == 0:
        return []
    rows = []
    for query in chosen.tolist():
        near = zip(found.rows[query, :SHOWN], found.scores[query, :SHOWN], strict=True)
        shots = [search.shot(search.gallery, int(row), float(score)) for row, score in near]
        rows.append((search.shot(queries, query), shots))
    caption = (
        f"Queries of the test part and their {SHOWN} nearest neighbours in the training part, by "
        f"the cosine of features of the network {subject.run}. The queries were chosen by seed "
        f"{settings.seed}, not by how well they do."
    )
    title = f"Nearest neighbours: {queries.name}"
    sheets.retrieval_sheet(run.picture("neighbours.png"), rows, title=title, note=caption)
    return [Picture(file="pictures/neighbours.png", caption=caption)]


def _conclude(
    run: Run,
    subject: Subject,
    rows: list[Measurement],
    pictures: list[Picture],
    gallery: Videos,
    queries: Videos,
    seconds: float,
) -> Outcome:
    sentences = findings.of_retrieval(rows) or [
        Finding(
            text=f"{gallery.source.name} has no labels: look at the neighbours in the picture",
            verdict="note",
        )
    ]
    report = Report(
        job="retrieve",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=[
            *sentences,
            *findings.seen_before(subject.learned.trained_on, queries.source),
            *findings.shared_recordings(gallery.source, queries.source),
        ],
        measurements=rows,
        pictures=pictures,
        data=common.describe_both(gallery, queries),
        weights=subject.weights,
        cost={"seconds": round(seconds, 1)},
        **reports.left_out([*gallery.left_out, *queries.left_out]),
    )
    run.write_report(report)
    run.finish()
    return Outcome(run.path, report)


def _rehearse(preset: Retrieve, subject: Subject, gallery: Videos, queries: Videos) -> Outcome:
    labelled = queries.source.labels is not None
    passes = 1 + (len(subject.networks()) - 1 + len(preset.neighbours.controls)) * labelled
    text = (
        f"from: {subject.run} ({subject.learned.arch})\n"
        f"data: {len(queries.source)} queries, {len(gallery.source)} videos in the gallery of "
        f"{gallery.source.name} ({queries.source.split_rule}), "
        f"{'labelled' if labelled else 'not labelled: a picture of neighbours is all'}\n"
        f"work: {preset.neighbours.clips} clips of each video, {passes} searches"
    )
    facts: dict[str, Any] = {
        "queries": len(queries.source),
        "gallery": len(gallery.source),
        "from": subject.run,
        "weights": subject.weights,
    }
    return Outcome(text=text, data=facts)
