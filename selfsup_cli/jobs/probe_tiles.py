"""`selfsup probe-tiles`: does a network know how images are put together? (figure 4.1)"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any

from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.config.tiles import ProbeTiles
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation import tampered
from selfsup_cli.evaluation.tampered import Paint
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.jobs import common, findings, images
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.compared import Compared, beside, load_compared
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.subject import LEARNED, RANDOM
from selfsup_cli.jobs.tile_work import SEAMS, Work, some
from selfsup_cli.models import Backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import (
    Finding,
    Measurement,
    Picture,
    Report,
    above,
)
from selfsup_cli.runs.run import Run
from selfsup_cli.transforms.images import center_crop
from selfsup_cli.visualization import bars
from selfsup_cli.visualization.tiles import tile_sheet


def probe_tiles(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    share: bool = False,
) -> Outcome:
    """Train a linear classifier on every layer to tell real images from shuffled ones.

    Features are kept in the cache, so a run that was stopped goes on where it was. With
    `machine.devices > 1` that many processes extract them, of which each calls this with `share`:
    extract features together with the others, and do no more. Raises InputError, MachineError and
    Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, ProbeTiles)  # noqa: S101 (the command and the preset belong together)
    compared = load_compared(preset.subject, "image")
    layers = _layers(preset, compared)
    _check_tiles(preset, compared)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        train, test = images.open_parts(preset.data, preset.machine, progress, labels=False)
        if dry_run:
            return _rehearse(preset, compared, layers, train, test)
        work = Work(
            preset,
            some(train.source, preset.tiles.images, preset.tiles.seed),
            some(test.source, preset.tiles.test_images, preset.tiles.seed),
            hardware,
            progress,
            stop,
        )
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                for name, network in compared.networks():
                    work.extract(name, network, layers[name])
        if share or processes.rank() > 0:
            return Outcome()
        record = common.started_run(
            resolved,
            run,
            arch=compared.subject.learned.arch,
            data=test.source.name,
            seed=preset.probe.seed,
            command=command,
            dataset=common.describe_both(train, test),
            parents=compared.parents,
        )
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, train, test)
            began = time.monotonic()
            if preset.machine.devices > 1 and not processes.launched():
                processes.launch(preset.machine.devices, _share, resolved)
            rows: list[Measurement] = []
            for name, network in compared.networks():
                rows += work.measure(name, network, layers[name])
            rows.append(work.measure_seams(compared.subject.learned))
            pictures = _pictures(record, work, compared.subject.learned, rows)
            seconds = time.monotonic() - began
            return _conclude(
                record, compared, preset.tiles.paint, rows, pictures, train, test, seconds
            )


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    probe_tiles(resolved, share=True)


def _layers(preset: ProbeTiles, compared: Compared) -> dict[str, list[str]]:
    """The layers of each network that are probed."""
    for _, network in compared.networks():
        for layer in preset.probe.layers:
            if layer not in network.layers:
                raise unknown("layer", layer, list(network.layers))
    return {
        name: list(preset.probe.layers or network.layers) for name, network in compared.networks()
    }


def _check_tiles(preset: ProbeTiles, compared: Compared) -> None:
    for _, network in compared.networks():
        side, tiles = network.input.crop, preset.tiles.grid
        if tampered.band_of(side, tiles, preset.tiles.band) >= side // tiles:
            raise InputError(
                f"{tiles}×{tiles} tiles of the {side} pixels that {network.arch} sees are "
                f"{side // tiles} pixels wide, and the bands between them leave nothing of them: "
                "take fewer (--tiles) or narrower bands (--set tiles.band)",
                kind="tiles",
            )


def _pictures(
    run: Run, work: Work, network: Backbone, rows: Sequence[Measurement]
) -> list[Picture]:
    found = []
    settings = work.preset.tiles
    pairs = work.pairs(work.test, network)
    source, tampering = pairs.source, pairs.tampering
    chosen = sorted(
        range(len(source)), key=lambda i: derive(settings.seed, source.ids[i], "sheet")
    )[: settings.sheet]
    if chosen:
        drawn = []
        for i in chosen:
            image = source.read(i, shorter_side(network.input))
            image = center_crop(image[None], pairs.side)[0]
            name = source.ids[i]
            pictures = [
                image,
                tampering(image, name, False),
                tampering.shuffled(image, name),
                tampering(image, name, True),
            ]
            drawn.append((name, pictures))
        columns = ["as it is", "real: painted", "tiles shuffled", "shuffled: painted"]
        caption = (
            "Test images, chosen by the seed. The second column is told from the fourth: the same "
            "pixels of both are painted over."
        )
        path, title = run.picture("tiles.png"), f"Real or shuffled: {source.name}"
        tile_sheet(path, drawn, columns, title=title, note=caption)
        found.append(Picture(file="pictures/tiles.png", caption=caption))
    layered = [row for row in rows if row.layer is not None]
    title = f"real or tile-shuffled, {source.name}"
    bars.layers(run.picture("layers.png"), layered, title=title)
    caption = (
        "Accuracy of linear classifiers by layer in telling real from tile-shuffled images, with "
        "95 % intervals; the dashed line is chance."
    )
    return [*found, Picture(file="pictures/layers.png", caption=caption)]


def said(rows: Sequence[Measurement], layer: str, paint: Paint = "laplace") -> list[Finding]:
    """Learned beside random weights, other networks and the seams, at `layer`, and beside chance.

    The layer is fixed beforehand, so that test images do not choose it.
    """
    learned = next(
        (row for row in rows if row.subject == LEARNED and row.layer == layer),
        [row for row in rows if row.subject == LEARNED][-1],
    )
    what = f"real or shuffled by {learned.layer}"
    out = list(filter(None, [findings.against_chance(what, learned)]))
    for name in dict.fromkeys(row.subject for row in rows):
        own = [row for row in rows if row.subject == name]
        if name == SEAMS:
            out.append(on_seams(learned, own[0], paint))
        elif name != LEARNED:
            other = next((row for row in own if row.layer == learned.layer), own[-1])
            told = findings.compare if name == RANDOM else beside
            out.append(told(what, learned, other))
    return out


def on_seams(learned: Measurement, seams: Measurement, paint: Paint = "laplace") -> Finding:
    """What the painted bands give away by themselves, and whether learned features know more."""
    text = f"seams alone tell real from shuffled with {findings.said(seams)}: "
    if above(learned, seams):
        text += f"{learned.layer} knows more than they give away"
        return Finding(text=text, verdict="good")
    text += f"{learned.layer} ({findings.said(learned)}) may know no more than they give away"
    if paint == "laplace":
        text += "; painted grey (--paint grey) they give next to nothing away"
    return Finding(text=text, verdict="unclear")


def _conclude(
    run: Run,
    compared: Compared,
    paint: Paint,
    rows: list[Measurement],
    pictures: list[Picture],
    train: Images,
    test: Images,
    seconds: float,
) -> Outcome:
    learned = compared.subject.learned
    report = Report(
        job="probe-tiles",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=[
            *said(rows, learned.embedding, paint),
            *findings.seen_before(learned.trained_on, test.source),
        ],
        measurements=rows,
        pictures=pictures,
        data=common.describe_both(train, test),
        weights=compared.subject.weights,
        cost={"seconds": round(seconds, 1)},
        **reports.left_out([*train.left_out, *test.left_out]),
    )
    run.write_report(report)
    run.finish()
    return Outcome(run.path, report)


def _rehearse(
    preset: ProbeTiles,
    compared: Compared,
    layers: dict[str, list[str]],
    train: Images,
    test: Images,
) -> Outcome:
    counts = [
        min(len(train.source), preset.tiles.images),
        min(len(test.source), preset.tiles.test_images),
    ]
    names = list(layers)
    passes = 2 * sum(counts) * len(names)
    subject = compared.subject
    text = (
        f"from: {subject.run} ({subject.learned.arch}), layers {', '.join(layers[LEARNED])}\n"
        f"data: {counts[0]} training and {counts[1]} test images of {train.source.name} "
        f"({test.source.split_rule}), each real and with {preset.tiles.grid}×{preset.tiles.grid} "
        "tiles shuffled\n"
        f"work: {passes} images through {len(names)} networks ({', '.join(names)})"
    )
    facts: dict[str, Any] = {
        "images": passes,
        "layers": layers[LEARNED],
        "networks": names,
        "from": subject.run,
        "weights": subject.weights,
    }
    return Outcome(text=text, data=facts)
