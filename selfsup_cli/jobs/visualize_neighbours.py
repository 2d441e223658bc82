"""`selfsup visualize neighbours`: what a network finds alike (figure 3.8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfsup_cli.config.looks import VisualizeNeighbours
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.retrieval_images import ImageNeighbours, RetrieveImages
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.image_retrieval import copies
from selfsup_cli.evaluation.retrieval import pick_queries
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.compared import load_compared
from selfsup_cli.jobs.image_search import Found, Search, drawn
from selfsup_cli.jobs.retrieve_images import check_layer, described, open_gallery
from selfsup_cli.jobs.visualize_page import chosen, page
from selfsup_cli.runs.report import Finding
from selfsup_cli.visualization.neighbours_images import Query, neighbour_sheet

_PICTURE = "neighbours.png"


def neighbours(
    resolved: Resolved,
    *,
    run: str | None = None,
    out: Path | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Draw test images and their nearest neighbours, one network below the other.

    Into a run with its report, or into the file `out`. Features are kept in the cache, so that a
    search that was stopped goes on. Raises InputError, MachineError and Stopped.
    """
    chosen(run, out)
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, VisualizeNeighbours)  # noqa: S101 (they belong together)
    settings = preset.neighbours
    as_retrieval = RetrieveImages(
        version=1,
        subject=preset.subject,
        data=preset.data,
        machine=preset.machine,
        neighbours=ImageNeighbours(
            layer=settings.layer,
            grid=settings.grid,
            crops=settings.crops,
            gallery=settings.gallery,
            standardize=settings.standardize,
            ks=[settings.neighbours],
            shown=settings.neighbours,
            sheet=settings.count,
            seed=settings.seed,
        ),
    )
    compared = load_compared(preset.subject, "image")
    check_layer(settings.layer, compared)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        gallery, queries = open_gallery(as_retrieval, progress)
        source = queries.source
        with page(
            resolved,
            run=run,
            out=out,
            command=command,
            arch=compared.subject.learned.arch,
            data=source.name,
            seed=settings.seed,
            dataset=described(gallery, queries),
            parents=compared.parents,
        ) as made:
            if (done := made.outcome) is not None:
                return done
            search = Search(as_retrieval, gallery, queries, hardware, progress, stop)
            found = [Found(name, one, search(one, name)) for name, one in compared.networks()]
            classes = source.labels if source.classes is not None else None
            shown = pick_queries(settings.count, settings.seed, source.ids, classes).tolist()
            rows = [
                Query(drawn(source, query), [(one.name, search.shown(query, one)) for one in found])
                for query in shown
            ]
            layer = settings.layer or compared.subject.learned.embedding
            among = "among the other test images" if gallery is None else "in the training part"
            caption = (
                f"Test images of {source.name} and their nearest neighbours {among}, by the cosine "
                f"of {layer}; learned is the network {compared.subject.run}. The queries were "
                f"chosen by seed {settings.seed}."
            )
            neighbour_sheet(
                made.picture(_PICTURE),
                rows,
                title=f"Nearest neighbours in {layer}: {source.name}",
                note=caption,
                legend=("same class", "other class")
                if classes is not None
                else ("a label shared", "none"),
            )
            facts = {
                "layer": layer,
                "queries": [
                    {
                        "image": source.ids[query],
                        "found": {
                            one.name: [
                                {"image": near.name, "cosine": near.score, "shares_class": near.hit}
                                for near in search.shown(query, one)
                            ]
                            for one in found
                        },
                    }
                    for query in shown
                ],
            }
            parts = [queries] if gallery is None else [gallery, queries]
            return made.conclude(
                _PICTURE,
                caption,
                _told(rows, found),
                facts=facts,
                left_out=[one for part in parts for one in part.left_out],
            )


def _told(rows: Sequence[Query], found: Sequence[Found]) -> list[Finding]:
    """What is drawn, counted; `selfsup retrieve` measures it on all images."""
    said = []
    for number, one in enumerate(found):
        hits = [near.hit for row in rows for near in row.found[number][1] if near.hit is not None]
        if hits:
            text = f"{one.name}: {sum(hits)} of {len(hits)} neighbours shown share the class"
            said.append(Finding(text=text, verdict="note"))
    if said:
        text = "these few say little: selfsup retrieve counts the neighbours of all images"
        said.append(Finding(text=text, verdict="note"))
    if count := copies(found[0].neighbours):
        text = f"{count} images have a neighbour with the very same features, as copies have"
        said.append(Finding(text=text, verdict="note"))
    return said
