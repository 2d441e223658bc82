"""`selfsup export embeddings`: features of all videos or images of a dataset, as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.export import ExportEmbeddings
from selfsup_cli.config.export_images import ExportImageEmbeddings
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import EMBEDDING, Features, extract
from selfsup_cli.evaluation.views import ImageViews
from selfsup_cli.jobs import common, images
from selfsup_cli.jobs.common import Outcome, Part
from selfsup_cli.jobs.export import SCHEMA, check_target, describe, load, require, source_lines
from selfsup_cli.jobs.export_tables import WRITERS, Table, write
from selfsup_cli.jobs.subject import Subject
from selfsup_cli.models import Backbone, sidecar_path
from selfsup_cli.runs import atomic

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

log = logging.getLogger("selfsup")

PIECE_BYTES = 16 << 20
"""Features that are in memory at a time while the table is written."""

SHOWN = 3
"""Files that were left out, named in the text; the sidecar has all."""

Wanted = ExportEmbeddings | ExportImageEmbeddings


def embeddings(
    resolved: Resolved,
    *,
    out: Path | None = None,
    force: bool = False,
    quiet: bool = False,
    share: bool = False,
) -> Outcome:
    """Write one row for each video or image: id, class or attributes, the mean of clips or crops.

    Features come from the cache as far as they are there, so the same command goes on after a stop.
    Files that turn out unreadable while they are indexed are left out and counted; one that does
    so later is an error. With `machine.devices > 1` that many processes extract, of which each
    calls this with `share`. Raises InputError, MachineError, TrainingError (too many unreadable
    files) and Stopped.
    """
    preset = resolved.preset
    assert isinstance(preset, Wanted)  # noqa: S101 (the command and the preset agree)
    if out is not None and not share:
        _check(out, force)
    kind: Kind = "image" if isinstance(preset, ExportImageEmbeddings) else "video"
    subject = load(preset.subject.run, lambda arch: None, kind)
    path = out or Path(f"{subject.run}-embeddings.h5")
    if out is None and not share:
        _check(path, force)
    layer = preset.table.layer
    if layer is not None and layer not in subject.learned.layers:
        raise unknown("layer", layer, list(subject.learned.layers))
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        part = _open(preset, progress)
        work = _Work(preset, subject.learned, part, hardware, progress, stop)
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                work.extract()
        if share or processes.rank() > 0:
            return Outcome()
        for one in part.left_out:
            log.warning("left out: %s: %s", one.id, one.reason)
        if preset.machine.devices > 1 and not processes.launched():
            processes.launch(preset.machine.devices, _share, resolved)
        features = work.extract()
    name = layer or EMBEDDING
    about = _about(work, subject, features, part.left_out)
    named = ("left_out", "classes", "attributes")
    table = Table(
        part.source.ids,
        part.source.labels,
        part.source.classes,
        features.dims[name],
        video_means(features, name),
        {key: value for key, value in about.items() if key not in named},
        getattr(part.source, "attributes", None),
    )
    digest = write(path, table)
    document = {
        "schema": SCHEMA,
        "format": "embeddings",
        "file": {"name": path.name, "sha256": digest, "bytes": path.stat().st_size},
        **about,
    }
    atomic.write_json(sidecar_path(path), document)
    data = {**document, "path": str(path), "sidecar": str(sidecar_path(path))}
    return Outcome(text=_told(work, subject, about, path), data=data)


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    embeddings(resolved, share=True)


def _check(path: Path, force: bool) -> None:
    check_target(path, tuple(WRITERS), force)
    if path.suffix.lower() == ".parquet":
        require(["pyarrow"], "parquet")


def _open(preset: Wanted, progress: Progress) -> Part:
    """The videos or images, with labels if the data has any."""

    def opened(*, labels: bool) -> Part:
        asked: dict[str, Any] = {
            "labels": labels,
            "machine": preset.machine,
            "progress": progress,
        }
        if isinstance(preset, ExportImageEmbeddings):
            return images.open_images(preset.data, preset.table.part, **asked)
        return common.open_videos(preset.data, preset.table.part, **asked)

    try:
        return opened(labels=True)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
    return opened(labels=False)


@dataclass(frozen=True)
class _Work:
    """What is extracted from what, and who is told of it."""

    preset: Wanted
    network: Backbone
    part: Part
    hardware: Hardware
    progress: Progress
    stop: StopFlag

    @property
    def many(self) -> str:
        return "images" if isinstance(self.preset, ExportImageEmbeddings) else "videos"

    def extract(self) -> Features:
        counter = self.progress.counting("features")

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        layer = self.preset.table.layer
        source: Any = self.part.source
        looks: Any = self.looks()
        return extract(
            self.network,
            source,
            looks,
            hardware=self.hardware,
            layers=[] if layer is None else [layer],
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=told,
        )

    def looks(self) -> ClipProtocol | ImageViews:
        """Which clips of a video, or crops of an image, are averaged."""
        if isinstance(self.preset, ExportImageEmbeddings):
            return ImageViews(self.preset.table.crops)
        table = self.preset.table
        return ClipProtocol(self.network.input.frames, table.max_skip, table.clips)


def video_means(features: Features, layer: str, rows: int | None = None) -> Iterator[np.ndarray]:
    """The mean over the rows of each video or image, in order, in pieces float32 [n, D].

    Reads `rows` rows at a time (default: some megabytes), and keeps no more than these.
    """
    rows = rows or max(1, PIECE_BYTES // (4 * features.dims[layer]))
    sums, counts = np.empty((0, features.dims[layer])), np.empty(0, np.int64)
    owner = -1
    for first, block in features.blocks(layer, rows):
        videos = features.video[first : first + len(block)]
        starts = np.flatnonzero(np.diff(videos, prepend=-1))
        here = np.add.reduceat(block.numpy().astype(np.float64), starts)
        number = np.diff(starts, append=len(videos))
        if videos[0] == owner:
            here[0] += sums[-1]
            number[0] += counts[-1]
            sums, counts = sums[:-1], counts[:-1]
        sums, counts = np.concatenate([sums, here]), np.concatenate([counts, number])
        owner = int(videos[-1])
        # The last video may go on in the next block.
        if len(sums) > 1:
            yield (sums[:-1] / counts[:-1, None]).astype(np.float32)
        sums, counts = sums[-1:], counts[-1:]
    if len(sums):
        yield (sums / counts[:, None]).astype(np.float32)


def _about(
    work: _Work, subject: Subject, features: Features, left_out: Sequence[LeftOut]
) -> dict[str, Any]:
    layer, source, looks = work.preset.table.layer, work.part.source, work.looks()
    names = getattr(source, "attributes", None)
    images = isinstance(looks, ImageViews)
    return {
        **describe(subject),
        "layer": layer or work.network.embedding,
        "features": features.dims[layer or EMBEDDING],
        "averaged": "over height and width, then over crops"
        if images
        else "over time, height and width, then over clips",
        "views" if images else "clips": looks.describe(),
        "precision": work.hardware.precision,
        "data": common.describe(source),
        "classes": None if source.classes is None else list(source.classes),
        **({} if names is None else {"attributes": list(names)}),
        "left_out": [asdict(one) for one in left_out],
    }


def _told(work: _Work, subject: Subject, about: dict[str, Any], path: Path) -> str:
    source, left_out = work.part.source, work.part.left_out
    each = about["clips"]["clips"] if "clips" in about else about["views"]["views"]
    names = about.get("attributes")
    if names is not None:
        labels = f"{len(names)} attributes"
    else:
        labels = f"{len(source.classes)} classes" if source.classes else "none"
    lines = [
        *source_lines(subject),
        f"data      {source.name} ({source.split}): {len(source)} {work.many}; {source.split_rule}",
        f"features  {about['features']} for each {work.many[:-1]}: {about['layer']} averaged "
        f"{about['averaged']} ({each} each)",
        f"labels    {labels}",
    ]
    if left_out:
        named = [f"{one.id} ({one.reason})" for one in left_out]
        more = f", and {len(named) - SHOWN} more (in the sidecar)" if len(named) > SHOWN else ""
        lines.append(
            f"left out  {len(named)} of {len(source) + len(named)} {work.many}: "
            f"{', '.join(named[:SHOWN])}{more}"
        )
    return "\n".join([*lines, f"sidecar   {sidecar_path(path)}", str(path)])
