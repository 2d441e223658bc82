"""`selfsup sample artifacts`: damage, repair, and whether it is found (figures 3.3 and 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.spotting import SampleArtifacts
from selfsup_cli.data.framing import Crop, Plan
from selfsup_cli.data.images import ImageSource
from selfsup_cli.data.source import Split
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation import located
from selfsup_cli.evaluation.located import Located
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.method_weights import FILE, load_method
from selfsup_cli.jobs.shortcuts import data_of, machine
from selfsup_cli.jobs.visualize_page import chosen, page
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.artifacts_quality import Damaged
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.report import Finding, Measurement, at_chance
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir
from selfsup_cli.transforms.damage import damage, draw_kept
from selfsup_cli.visualization import artifact_sheet as drawing

_PICTURE = "artifacts.png"
_MARKED = 0.5


@dataclass(frozen=True)
class Damager:
    """A method and the run that it is of."""

    run: Run
    method: Artifacts

    @property
    def side(self) -> int:
        """Side of the images that it takes, in pixels."""
        return self.method.preset.framing.sides()[0]

    @property
    def shorter(self) -> int:
        """What the shorter side of an image is scaled to before that is cut out of its centre."""
        return self.method.preset.framing.sides()[1]

    @property
    def framing(self) -> Plan:
        """The centre of an image, as the network is tested."""
        return Crop((self.side, self.side), self.shorter)

    def kept(self, images: Tensor, rate: float, seed: int) -> Tensor:
        """What is kept of the codes of images `[B, 3, S, S]`, bool `[B, 1, S/16, S/16]`: at a
        higher rate the same are dropped that are at a lower one, and more."""
        cells = (images.shape[2] // 16, images.shape[3] // 16)
        return draw_kept(len(images), cells, rate, generator(seed, "sample artifacts"))

    def made(self, images: Tensor, kept: Tensor) -> Damaged:
        """Images uint8 `[B, 3, S, S]`, damaged but for what is `kept`, and repaired."""
        device = next(self.method.parameters()).device
        g = generator(0, "unused", device=str(device))
        with torch.no_grad():
            return self.method.examples(images.to(device), g, kept.to(device))

    def drawn(self, images: Tensor, rate: float, seed: int) -> Damaged:
        """The same, what is kept being drawn from the `seed`."""
        return self.made(images, self.kept(images, rate, seed))


def artifacts(
    resolved: Resolved,
    *,
    run: str | None = None,
    out: Path | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Draw images as they are damaged and repaired, and measure how well the damage is found.

    Into a run with its report, or the picture alone into the file `out`. Raises InputError.
    """
    chosen(run, out)
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, SampleArtifacts)  # noqa: S101 (command and preset belong together)
    damagers = [load_damager(reference) for reference in dict.fromkeys(preset.subject.runs)]
    first = damagers[0]
    for other in damagers[1:]:
        if other.side != first.side:
            raise InputError(
                f"{first.run.name} takes images of {first.side} pixels and {other.run.name} of "
                f"{other.side}: they cannot be shown side by side",
                kind="run-unfit",
            )
    device = choose(preset.machine.device).device
    for one in damagers:
        one.method.to(device).eval()
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        images = _open(preset, first, progress)
        source, seed = images.source, preset.shown.seed
        with page(
            resolved,
            run=run,
            out=out,
            command=command,
            arch=first.method.backbone.arch,
            data=source.name,
            seed=seed,
            dataset=common.describe(source),
            parents=[_parent(one) for one in damagers],
        ) as made:
            if (done := made.outcome) is not None:
                return done
            names, shown = some(source, first.framing, preset.shown.count, seed)
            caption = _draw(made.picture(_PICTURE), preset, damagers, names, shown, source)
            rows, said = _score(preset, damagers, source, progress, stop)
            facts = {
                "images": names,
                "drop_rates": {one.run.name: _rates(preset, one) for one in damagers},
            }
            return made.conclude(
                _PICTURE,
                caption,
                said,
                measurements=rows,
                facts=facts,
                left_out=images.left_out,
            )


def load_damager(reference: str) -> Damager:
    """The method of a finished run of pretrain artifacts. Raises InputError for any other."""
    run = find_run(reference, runs_dir(), needs=unfit)
    method = load_method(run)
    if not isinstance(method, Artifacts):
        raise InputError(f"{run.name} damages no images", kind="run-unfit")
    return Damager(run, method)


def unfit(summary: RunSummary) -> str | None:
    """Why a run damages nothing."""
    if summary.job != "pretrain/artifacts":
        return f"it is no run of pretrain artifacts but of {summary.job}"
    return None if (summary.path / FILE).is_file() else f"it has no {FILE}"


def some(source: ImageSource, framing: Plan, count: int, seed: int) -> tuple[list[str], Tensor]:
    """Names of up to `count` images, chosen by `seed`, and what is cut out of them: uint8
    `[n, 3, S, S]`. Those that cannot be read are passed over; InputError where none can."""
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "sheet"))
    names: list[str] = []
    found: list[Tensor] = []
    unused = torch.Generator()
    for index in order:
        if len(found) == count:
            break
        try:
            found.append(source.read(index, lambda h, w: framing(h, w, unused)))
        except BadMediaError:
            continue
        names.append(source.ids[index])
    if not found:
        raise InputError(f"no image of {source.name} could be read", kind="bad-media")
    return names, torch.stack(found)


def _parent(one: Damager) -> dict[str, str]:
    weights = one.run.path / "backbone.safetensors"
    return {
        "run": one.run.name,
        "arch": one.method.backbone.arch,
        "sha256": file_sha256(weights),
    }


def _open(preset: SampleArtifacts, first: Damager, progress: Progress) -> Images:
    own: ImageData = first.method.preset.data
    data = data_of(preset.data, first.method.preset)
    split: Split = "all"
    if preset.damage.over != "auto":
        split = preset.damage.over
    elif data.source == own.source:
        split = "test"
    return open_images(
        data, split, labels=False, machine=machine(preset.machine), progress=progress
    )


def _rates(preset: SampleArtifacts, one: Damager) -> list[float]:
    return list(dict.fromkeys(preset.damage.drop_rates)) or [one.method.preset.drop_rate]


# Pictures


def _draw(
    path: Path,
    preset: SampleArtifacts,
    damagers: Sequence[Damager],
    names: Sequence[str],
    images: Tensor,
    source: ImageSource,
) -> str:
    """Draw the sheet; gives what is said of it."""
    seed = preset.shown.seed
    first, rates = damagers[0], _rates(preset, damagers[0])
    which = f"Images of {source.name} and what is dropped of them were chosen by seed {seed}."
    if len(damagers) == 1 and len(rates) == 1:
        columns = cells(first.method, first.drawn(images, rates[0], seed))
        rows = [
            drawing.Row(name, [(head, column[i]) for head, column in columns])
            for i, name in enumerate(names)
        ]
        located_ = first.method.preset.locate
        caption = (
            f"{rates[0]:.0%} of the entries of a code are dropped, each of which stands for 16 "
            "pixels along each side: grey in the mask. Without repair is what the decoder makes of "
            "the rest; without gating the repair may change everything, as it was not trained to. "
            f"{'Red is where the discriminator suspects damage. ' if located_ else ''}{which}"
        )
        title = f"Artifacts of {first.run.name}: {source.name}"
    else:
        rows = _side_by_side(preset, damagers, names, images)
        what = "drop rates" if len(damagers) == 1 else "runs"
        caption = (
            f"Images as several {what} leave them, with repair and without; in the corner what was "
            f"dropped, grey. {_learned(damagers, rates)}{which}"
        )
        title = f"Artifacts: {source.name}"
        if len(damagers) == 1:
            title = f"Artifacts of {first.run.name}: {source.name}"
    drawing.sheet(path, rows, title=title, note=caption)
    return caption


def _learned(damagers: Sequence[Damager], rates: Sequence[float]) -> str:
    if len(damagers) > 1:
        return ""
    return f"The networks learned at a drop rate of {damagers[0].method.preset.drop_rate:g}. "


@torch.no_grad()
def cells(method: Artifacts, made: Damaged) -> list[tuple[str, Tensor]]:
    """Columns of a sheet: headings, and images float `[n, 3, S, S]` in [-1, 1] on the CPU."""
    decoder = method.replicator.decoder
    hurt = damage(method.replicator.encoder(made.canvases), made.kept)
    ungated = method.mender(hurt, made.kept, decoder, gated=False)
    masks = [drawing.covered(x, k) for x, k in zip(made.canvases, made.kept, strict=True)]
    columns = [
        ("original", made.canvases),
        ("mask", torch.stack(masks)),
        ("autoencoded", made.replicas),
        ("without repair", made.unrepaired),
        ("repaired", made.repaired),
        ("without gating", ungated),
    ]
    likely = suspected(method, made.repaired)
    if likely is not None:
        hot = [drawing.heated(x, p) for x, p in zip(made.repaired, likely, strict=True)]
        columns.append(("suspected", torch.stack(hot)))
    return [(head, column.float().cpu()) for head, column in columns]


@torch.no_grad()
def suspected(method: Artifacts, images: Tensor) -> Tensor | None:
    """How likely each cell of images float `[n, 3, S, S]` is damaged, 0 … 1 `[n, 1, M, N]`; None
    of a discriminator that does not locate."""
    masks = method.plain(images).masks
    return None if masks is None else (-masks.float()).sigmoid()


def _side_by_side(
    preset: SampleArtifacts, damagers: Sequence[Damager], names: Sequence[str], images: Tensor
) -> list[drawing.Row]:
    """Two rows for each image, with repair and without, and a column for each rate or run."""
    seed = preset.shown.seed
    heads = _heads([one.run.name for one in damagers])
    shown = [
        (f"θ = {rate:g}" if len(damagers) == 1 else head, one.drawn(images, rate, seed))
        for head, one in zip(heads, damagers, strict=True)
        for rate in _rates(preset, one)
    ]
    rows = []
    for i, name in enumerate(names):
        original = shown[0][1].canvases[i].float().cpu()
        for said in ("repaired", "unrepaired"):
            columns = [("original", original)]
            for head, made in shown:
                image = getattr(made, said)[i].float().cpu()
                columns.append((head, drawing.inset(image, made.kept[i].cpu())))
            told = "repaired" if said == "repaired" else "without repair"
            rows.append(drawing.Row(f"{told} · {name}", columns))
    return rows


def _heads(names: Sequence[str]) -> list[str]:
    """Names of runs without the parts, up to a dot, in which all of them begin alike: the runs of
    an experiment bear its name."""
    parts = [name.split(".") for name in names]
    same = 0
    while all(len(one) > same + 1 and one[same] == parts[0][same] for one in parts):
        same += 1
    return [".".join(one[same:]) for one in parts]


# Localisation


def _score(
    preset: SampleArtifacts,
    damagers: Sequence[Damager],
    source: ImageSource,
    progress: Progress,
    stop: StopFlag,
) -> tuple[list[Measurement], list[Finding]]:
    """How well each run finds what was damaged, at each drop rate."""
    settings, seed = preset.scored, preset.shown.seed
    rows: list[Measurement] = []
    said: list[Finding] = []
    if not settings.images:
        return rows, said
    for one in damagers:
        if not one.method.preset.locate:
            text = f"{one.run.name} was trained without locating the damage: nothing to measure"
            said.append(Finding(text=text, verdict="note"))
            continue
        _, images = some(source, one.framing, settings.images, derive(seed, "scored"))
        for rate in _rates(preset, one):
            counter = progress.counting(f"{one.run.name}, θ = {rate:g}: images")
            scores: list[np.ndarray] = []
            damaged: list[np.ndarray] = []
            marked: list[np.ndarray] = []
            # All at once: how many go through the networks together must not matter.
            kept = one.kept(images, rate, derive(seed, "scored"))
            for start in range(0, len(images), settings.batch_size):
                if stop:
                    raise stop.stopped("nothing")
                part = slice(start, start + settings.batch_size)
                made = one.made(images[part], kept[part])
                for found, where in (
                    (suspected(one.method, made.repaired), scores),
                    (suspected(one.method, made.replicas), marked),
                ):
                    assert found is not None  # noqa: S101 (it locates)
                    where.append(found.flatten(1).double().cpu().numpy())
                damaged.append((~made.kept).flatten(1).cpu().numpy())
                counter(min(part.stop, len(images)), len(images))
            found_ = Located(np.concatenate(scores), np.concatenate(damaged))
            if found_.damaged.all() or not found_.damaged.any():
                text = f"θ = {rate:g}: too few images to measure how well the damage is found"
                said.append(Finding(text=text, verdict="note"))
                continue
            several = len(damagers) > 1 or len(preset.damage.drop_rates) > 1
            what = f"θ = {rate:g}" if len(damagers) == 1 else one.run.name
            side = one.side // 16
            own = located.measurements(
                found_,
                name=f"localisation, {what}" if several else "localisation",
                subject="learned" if len(damagers) == 1 else one.run.name,
                dataset=source.name,
                split=source.split_rule,
                protocol={
                    "drop_rate": rate,
                    "trained_at": one.method.preset.drop_rate,
                    "images": f"centre {one.side} pixels, repaired",
                    "cells": f"{side}×{side} of 16 pixels",
                    "seed": seed,
                },
            )
            rows += own
            intact = float((np.concatenate(marked) >= _MARKED).mean())
            said.append(_told(what if several else "", own[0], intact))
    return rows, said


def _told(what: str, row: Measurement, intact: float) -> Finding:
    text = f"{what}: " if what else ""
    assert row.chance is not None  # noqa: S101 (see located)
    text += (
        f"damaged cells are found with an average precision of {row.value:.1f} %, chance "
        f"{row.chance:.1f} %; of the cells of undamaged images {100 * intact:.1f} % are marked "
        "as well"
    )
    if at_chance(row) or row.value < row.chance:
        return Finding(text=f"{text}: it is not known where the damage is", verdict="unclear")
    return Finding(text=text, verdict="good")
