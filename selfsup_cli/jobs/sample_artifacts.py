"""`selfsup sample artifacts`: damage, repair, and whether it is found (figures 3.3 and 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.spotting import SampleArtifacts
from selfsup_cli.data.source import ImageSource, Split
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common
from selfsup_cli.jobs.artifact_scores import score
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.damager import Damager, load_damager, some, suspected
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.shortcuts import data_of, machine
from selfsup_cli.jobs.visualize_page import chosen, page
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.artifacts_quality import Damaged
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.transforms.damage import damage
from selfsup_cli.visualization import artifact_sheet as drawing

_PICTURE = "artifacts.png"
_MARKED = 0.5


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
            rows, said = score(preset, damagers, source, progress, stop)
            facts = {
                "images": names,
                "drop_rates": {
                    one.run.name: one.rates(preset.damage.drop_rates) for one in damagers
                },
            }
            return made.conclude(
                _PICTURE,
                caption,
                said,
                measurements=rows,
                facts=facts,
                left_out=images.left_out,
            )


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
    first, rates = damagers[0], damagers[0].rates(preset.damage.drop_rates)
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


def _side_by_side(
    preset: SampleArtifacts, damagers: Sequence[Damager], names: Sequence[str], images: Tensor
) -> list[drawing.Row]:
    """Two rows for each image, with repair and without, and a column for each rate or run."""
    seed = preset.shown.seed
    heads = _heads([one.run.name for one in damagers])
    shown = [
        (f"θ = {rate:g}" if len(damagers) == 1 else head, one.drawn(images, rate, seed))
        for head, one in zip(heads, damagers, strict=True)
        for rate in one.rates(preset.damage.drop_rates)
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
