"""`selfsup retrieve` on images: whose neighbours share the class (figures 4.6 and 4.7)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any

from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.config.retrieval_images import RetrieveImages
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.image_retrieval import (
    copies,
)
from selfsup_cli.evaluation.retrieval import pick_queries
from selfsup_cli.evaluation.views import ImageViews
from selfsup_cli.jobs import common, findings, images
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.compared import Compared, beside, load_compared
from selfsup_cli.jobs.image_search import Found, Search, drawn
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.subject import RANDOM
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Curve, Finding, Measurement, Picture, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import curves
from selfsup_cli.visualization.neighbours_images import Query, neighbour_sheet

_TOLD_AT = 10
"""The number of neighbours at which findings are told, or the nearest to it there is."""


def retrieve_images(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    share: bool = False,
) -> Outcome:
    """Search the neighbours of every test image and report how often they share the class.

    Data without labels gives the picture of neighbours alone. With `machine.devices > 1` that many
    processes extract the features, of which each calls this with `share`: extract features together
    with the others, and do no more. Raises InputError, MachineError and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, RetrieveImages)  # noqa: S101 (the command and the preset belong together)
    compared = load_compared(preset.subject, "image")
    check_layer(preset.neighbours.layer, compared)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        gallery, queries = open_gallery(preset, progress)
        _check_ks(preset, gallery, queries)
        if dry_run:
            return _rehearse(preset, compared, gallery, queries)
        search = Search(preset, gallery, queries, hardware, progress, stop)
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                search.extract_all(compared)
        if share or processes.rank() > 0:
            return Outcome()
        record = common.started_run(
            resolved,
            run,
            arch=compared.subject.learned.arch,
            data=queries.source.name,
            seed=preset.neighbours.seed,
            command=command,
            dataset=described(gallery, queries),
            parents=compared.parents,
        )
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, *_parts(gallery, queries))
            began = time.monotonic()
            if preset.machine.devices > 1 and not processes.launched():
                processes.launch(preset.machine.devices, _share, resolved)
            found = [
                Found(name, network, search(network, name)) for name, network in compared.networks()
            ]
            rows = [row for one in found for row in search.rows(one)]
            pictures = [
                *_sheet(record, preset, compared, search, found),
                *_lines(record, rows, queries.source.name),
            ]
            seconds = time.monotonic() - began
            return _conclude(record, compared, found, rows, pictures, gallery, queries, seconds)


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    retrieve_images(resolved, share=True)


def open_gallery(preset: RetrieveImages, progress: Progress) -> tuple[Images | None, Images]:
    """Gallery and queries, with labels if the data has any; None for a gallery of the queries."""
    if preset.neighbours.gallery == "train":
        return images.open_both(preset.data, preset.machine, progress)
    try:
        queries = images.open_images(
            preset.data, "test", labels=True, machine=preset.machine, progress=progress
        )
    except InputError as error:
        if error.kind != "unlabelled":
            raise
        queries = images.open_images(
            preset.data, "test", labels=False, machine=preset.machine, progress=progress
        )
    if len(queries.source) < 2:
        raise InputError(
            f"{queries.source.name}: the test part has a single image, and no neighbour for it; "
            "search the training part (--gallery train), or hold out more (--test-share)",
            kind="too-few",
        )
    return None, queries


def _check_ks(preset: RetrieveImages, gallery: Images | None, queries: Images) -> None:
    """Raise InputError where labels could be counted, but no k has that many neighbours."""
    source = queries.source
    k = min(preset.neighbours.ks)
    # An image that is searched among its own is no neighbour of itself.
    has = len(source) - 1 if gallery is None else len(gallery.source)
    if source.labels is None or k <= has:
        return
    among = f"{has} others" if gallery is None else f"{has} training images"
    more = ", or search the training part (--gallery train)" if gallery is None else ""
    raise InputError(
        f"{source.name}: the least of neighbours.ks is {k}, but each of the {len(source)} test "
        f"images is compared with {among}; ask for fewer neighbours (--set neighbours.ks=[{has}]) "
        f"or take more images{more}",
        kind="too-few",
    )


def check_layer(layer: str | None, compared: Compared) -> None:
    """Raise InputError for a layer that one of the networks lacks."""
    if layer is None:
        return
    for _, network in compared.networks():
        if layer not in network.layers:
            raise unknown("layer", layer, list(network.layers))


def _sheet(
    run: Run, preset: RetrieveImages, compared: Compared, search: Search, found: Sequence[Found]
) -> list[Picture]:
    """Queries and their neighbours, one network below the other, as in figure 4.7."""
    settings = preset.neighbours
    source = search.queries.source
    # Images with several labels have no class to take turns by.
    classes = source.labels if source.classes is not None else None
    chosen = pick_queries(settings.sheet, settings.seed, source.ids, classes)
    if len(chosen) == 0:
        return []
    queries = [
        Query(drawn(source, query), [(one.name, search.shown(query, one)) for one in found])
        for query in chosen.tolist()
    ]
    among = "among them" if search.gallery is None else "in the training part"
    caption = (
        f"Images of the test part and their nearest neighbours {among}, by the cosine of features; "
        f"learned is the network {compared.subject.run}. The queries were chosen by seed "
        f"{settings.seed}, not by how well they do."
    )
    legend = ("same class", "other class") if classes is not None else ("a label shared", "none")
    title = f"Nearest neighbours: {source.name}"
    neighbour_sheet(
        run.picture("neighbours.png"), queries, title=title, note=caption, legend=legend
    )
    return [Picture(file="pictures/neighbours.png", caption=caption)]


def curves_of(rows: Sequence[Measurement]) -> list[Curve]:
    """Accuracy over the number of neighbours, as figure 4.6: a curve for each subject."""
    kinds = (("-NN accuracy", "k-NN accuracy (%)"), ("precision at ", "precision at k (%)"))
    out = []
    for part, label in kinds:
        own = [row for row in rows if part in row.metric]
        for subject in dict.fromkeys(row.subject for row in own):
            mine = [row for row in own if row.subject == subject]
            points = sorted((float(row.metric.replace(part, "")), row.value) for row in mine)
            if len(points) > 1:
                chance = mine[0].chance
                out.append(Curve(name=subject, x_label="k", y_label=label, points=points,
                                 chance=chance))  # fmt: skip
    return out


def _lines(run: Run, rows: Sequence[Measurement], name: str) -> list[Picture]:
    found = curves_of(rows)
    if not found:
        return []
    curves.draw(run.picture("k.png"), found, title=f"Nearest neighbours: {name}")
    voted = "share of test images whose class most of their k neighbours have; "
    caption = (
        f"Over k, {voted if any('k-NN' in curve.y_label for curve in found) else ''}share of the "
        "neighbours that have the class of the image or a label in common with it."
    )
    return [Picture(file="pictures/k.png", caption=caption)]


def said(rows: Sequence[Measurement]) -> list[Finding]:
    """Learned beside every other network, and beside chance, at ten neighbours or nearly so."""
    for part in ("-NN accuracy", "precision at ", "top-"):
        if own := [row for row in rows if part in row.metric]:
            break
    else:
        return []
    numbers = {row.metric: int(row.metric.replace(part, "")) for row in own}
    metric = min(numbers, key=lambda name: abs(numbers[name] - _TOLD_AT))
    learned, *others = (row for row in own if row.metric == metric)
    what = f"nearest neighbours in {learned.layer}, {metric}"
    out = []
    for row in others:
        told = findings.compare if row.subject == RANDOM else beside
        out.append(told(what, learned, row))
    return [*out, *filter(None, [findings.against_chance(what, learned)])]


def _parts(gallery: Images | None, queries: Images) -> list[Images]:
    return [queries] if gallery is None else [gallery, queries]


def described(gallery: Images | None, queries: Images) -> dict[str, Any]:
    """What provenance keeps of the data."""
    if gallery is None:
        return common.describe(queries.source)
    return common.describe_both(gallery, queries)


def _conclude(
    run: Run,
    compared: Compared,
    found: Sequence[Found],
    rows: list[Measurement],
    pictures: list[Picture],
    gallery: Images | None,
    queries: Images,
    seconds: float,
) -> Outcome:
    source = queries.source
    sentences = said(rows)
    if source.labels is None:
        text = f"{source.name} has no labels: look at the neighbours in the picture"
        sentences.append(Finding(text=text, verdict="note"))
    if count := copies(found[0].neighbours):
        text = (
            f"{count} of {len(source)} queries have a neighbour with the very same features, as "
            "copies of an image have: they make neighbours look better than they are"
        )
        sentences.append(Finding(text=text, verdict="note"))
    report = Report(
        job="retrieve-images",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=[
            *sentences,
            *findings.seen_before(compared.subject.learned.trained_on, source),
        ],
        measurements=rows,
        pictures=pictures,
        data=described(gallery, queries),
        weights=compared.subject.weights,
        cost={"seconds": round(seconds, 1)},
        **reports.left_out([out for part in _parts(gallery, queries) for out in part.left_out]),
    )
    run.write_report(report)
    run.finish()
    return Outcome(run.path, report)


def _rehearse(
    preset: RetrieveImages, compared: Compared, gallery: Images | None, queries: Images
) -> Outcome:
    source = queries.source
    labelled = source.labels is not None
    among = len(source) if gallery is None else len(gallery.source)
    where = "themselves, leave-one-out" if gallery is None else f"{among} training images"
    names = [name for name, _ in compared.networks()]
    subject = compared.subject
    text = (
        f"from: {subject.run} ({subject.learned.arch})\n"
        f"data: {len(source)} queries of {source.name} ({source.split_rule}), searched among "
        f"{where}, {'labelled' if labelled else 'not labelled: a picture of neighbours is all'}\n"
        f"work: {len(ImageViews(preset.neighbours.crops))} crops of each image, "
        f"{len(names)} searches ({', '.join(names)})"
    )
    facts: dict[str, Any] = {
        "queries": len(source),
        "gallery": among,
        "from": subject.run,
        "networks": names,
        "weights": subject.weights,
    }
    return Outcome(text=text, data=facts)
