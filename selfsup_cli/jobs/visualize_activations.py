"""`selfsup visualize activations`: the patches that make units most active (figure 3.7)."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.looks import VisualizeActivations
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ImageSource, LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.strongest import Search, Top, search
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.shortcuts import machine
from selfsup_cli.jobs.subject import load_subject
from selfsup_cli.jobs.visualize_page import Page, chosen, page
from selfsup_cli.models import Backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Finding
from selfsup_cli.transforms.images import center_crop
from selfsup_cli.visualization import patches as drawing
from selfsup_cli.visualization.receptive import ReceptiveField, receptive_field, shapes

log = logging.getLogger("selfsup")

_PICTURE, _TABLE, _STATE = "activations.png", "activations.csv", "search.safetensors"
_SAVED_EVERY_S = 60.0
_HELD = 256


def activations(
    resolved: Resolved,
    *,
    run: str | None = None,
    out: Path | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Find and draw the patches that make units of a network most active.

    Into a run with its report and a table of all units, or into the file `out`. A run that was
    stopped goes on where it was. Raises InputError, MachineError and Stopped.
    """
    chosen(run, out)
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, VisualizeActivations)  # noqa: S101 (they belong together)
    subject = load_subject(Settings(run=preset.subject.run, baseline="none"), "image")
    network = sized(subject.learned, preset.search.crop)
    layers = _layers(network, preset.shown.layers, preset.shown.units)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        opened = open_images(
            preset.data,
            preset.search.over,
            labels=False,
            machine=machine(preset.machine),
            progress=progress,
        )
        source = opened.source
        images = some(source, preset.search.images, preset.shown.seed)
        with page(
            resolved,
            run=run,
            out=out,
            command=command,
            arch=network.arch,
            data=source.name,
            seed=preset.shown.seed,
            dataset=common.describe(source),
            parents=subject.parents,
        ) as made:
            if (done := made.outcome) is not None:
                return done
            found = _begun(made, preset.shown.patches)
            search(
                network,
                source,
                images,
                layers,
                found,
                hardware,
                workers=loader_workers(preset.machine.workers),
                batch_size=preset.search.batch_size,
                told=_saving(made, progress, stop, len(images)),
            )
            if not found.found:
                raise InputError(
                    f"none of the {len(images)} images of {source.name} could be read",
                    kind="bad-media",
                )
            return _conclude(made, preset, subject.run, network, opened, found)


def sized(network: Backbone, crop: int | None) -> Backbone:
    """The network, fed squares of `crop` pixels. Raises InputError where it does not take them."""
    if crop is None or crop == network.input.crop:
        return network
    shorter = max(shorter_side(network.input), crop)
    network.input = dataclasses.replace(network.input, crop=crop, resize=(shorter, shorter))
    return network


def some(source: ImageSource, count: int | None, seed: int) -> list[int]:
    """Which images are looked at, in the order of the source."""
    if count is None or count >= len(source):
        return list(range(len(source)))
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "search"))
    return sorted(order[:count])


def _layers(network: Backbone, asked: Sequence[str], units: Sequence[int]) -> list[str]:
    """The layers that are searched; by default the maps up to the embedding.

    Raises InputError for a layer or one of `units` that there is not.
    """
    for name in asked:
        if name not in network.layers:
            raise unknown("layer", name, list(network.layers))
    # Those above the embedding fix the size of what they see.
    upto = network.layers.index(network.embedding) + 1
    side = network.input.crop
    try:
        found = shapes(network, list(dict.fromkeys(asked)) or network.layers[:upto])
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--crop {side}: {network.arch} takes no squares of {side} pixels there ({reason})",
            kind="network",
        ) from error
    for layer, (channels, *_) in found.items():
        if units and max(units) >= channels:
            raise InputError(
                f"--units {max(units)}: {layer} has {channels} units, counted from 0", kind="unit"
            )
    return list(found) if asked else [layer for layer, shape in found.items() if len(shape) > 1]


# Being stopped, and going on


def _begun(made: Page, k: int) -> Search:
    """What a run had found when it was stopped, or nothing yet."""
    place = made.file(_STATE)
    if place is None or not place.is_file():
        return Search(k)
    try:
        with safetensors.safe_open(place, "pt") as file:
            told = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Search.of(k, int(told["done"]), state, json.loads(told["bad"]))
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        log.warning("%s is damaged (%s): the search begins anew", place, error)
        return Search(k)


def _saving(made: Page, progress: Progress, stop: StopFlag, total: int) -> Callable[[Search], None]:
    place = made.file(_STATE)
    counter = progress.counting("images searched")
    last = time.monotonic()

    def told(found: Search) -> None:
        nonlocal last
        due = time.monotonic() - last > _SAVED_EVERY_S
        if place is not None and (stop or due):
            about = {"done": str(found.done), "bad": json.dumps(found.bad)}
            atomic.write_bytes(place, safetensors.torch.save(found.state(), about))
            last = time.monotonic()
        if stop:
            raise stop.stopped("what was found so far" if place is not None else "nothing")
        counter(found.done, total)

    return told


# What is shown


def _conclude(
    made: Page,
    preset: VisualizeActivations,
    name: str,
    network: Backbone,
    opened: Images,
    found: Search,
) -> Outcome:
    source = opened.source
    for identifier, reason in found.bad.items():
        log.warning("%s cannot be read and is left out: %s", identifier, reason)
        if made.run is not None:
            made.run.record_bad(identifier, reason)
    tops = {layer: top.cpu() for layer, top in found.found.items()}
    fields = {layer: receptive_field(network, layer) for layer in tops}
    units = {layer: _units(preset, layer, top) for layer, top in tops.items()}
    shorter, side = shorter_side(network.input), network.input.crop

    @lru_cache(maxsize=_HELD)
    def crop(image: int) -> Tensor:
        return center_crop(source.read(image, shorter)[None], side)[0]

    layers = [
        drawing.Layer(
            layer,
            _about(fields[layer], top),
            [_unit(crop, fields[layer], top, unit) for unit in units[layer]],
        )
        for layer, top in tops.items()
    ]
    count = found.done - len(found.bad)
    caption = (
        f"Patches of {count} images of {source.name} that make units of {name} most active, the "
        "strongest at the left; an image counts once for each unit. A patch is all that a unit "
        "sees, enlarged; grey is outside of the image, outlined where a unit lies that sees all "
        f"of it. Below each unit its largest value. {_choice(preset)}"
    )
    drawing.sheet(
        made.picture(_PICTURE), layers, title=f"Most active patches: {name}", note=caption
    )
    if (table := made.file(_TABLE)) is not None:
        atomic.write_text(table, _table(tops, fields, source))
    if (state := made.file(_STATE)) is not None:
        state.unlink(missing_ok=True)
    said = [Finding(text=_told(layer, top, fields[layer], count), verdict="note")
            for layer, top in tops.items()]  # fmt: skip
    facts: dict[str, Any] = {
        "images": count,
        "layers": [
            {
                "name": layer,
                "units": top.values.shape[1],
                "never_active": _silent(top),
                "sees": list(fields[layer].size),
                "measured": fields[layer].measured,
                "shown": {str(unit): _described(top, fields[layer], source, unit)
                          for unit in units[layer]},
            }
            for layer, top in tops.items()
        ],
    }  # fmt: skip
    left_out = [*opened.left_out, *(LeftOut(one, why) for one, why in found.bad.items())]
    return made.conclude(_PICTURE, caption, said, facts=facts, left_out=left_out)


def _choice(preset: VisualizeActivations) -> str:
    if preset.shown.units:
        return "The units are those that were asked for."
    return f"The units were chosen by seed {preset.shown.seed} from those that are ever active."


def _units(preset: VisualizeActivations, layer: str, top: Top) -> list[int]:
    """Which units of a layer are shown."""
    if preset.shown.units:
        return list(dict.fromkeys(preset.shown.units))
    active = (top.values[0] > 0).nonzero().flatten().tolist() or range(top.values.shape[1])
    order = sorted(active, key=lambda unit: derive(preset.shown.seed, layer, unit, "units"))
    return sorted(order[: preset.shown.count])


def _unit(
    crop: Callable[[int], Tensor], field: ReceptiveField, top: Top, unit: int
) -> drawing.Unit:
    shown = []
    for image, place in zip(
        top.images[:, unit].tolist(), top.places[:, unit].tolist(), strict=True
    ):
        if image < 0:
            break
        seen = field.box(place)
        (top_row, bottom), (left, right) = seen
        whole = all(box == (0, length) for box, length in zip(seen, field.length, strict=True))
        shown.append(
            drawing.Patch(
                crop(image)[:, top_row:bottom, left:right],
                field.window(place),
                seen,
                _cell(field, place) if whole else None,
            )
        )
    return drawing.Unit(unit, float(top.values[0, unit]), shown)


def _cell(field: ReceptiveField, place: int) -> tuple[tuple[int, int], ...] | None:
    """The part of the input that a cell stands for, where the layer has more than one."""
    if not field.cells or int(np.prod(field.cells)) == 1:
        return None
    where = np.unravel_index(place, field.cells)
    return tuple(
        (int(i) * length // count, (int(i) + 1) * length // count)
        for i, count, length in zip(where, field.cells, field.length, strict=True)
    )


def _about(field: ReceptiveField, top: Top) -> str:
    """`384 units, each sees 51×51 of 96×96 pixels`."""
    inside = "×".join(map(str, field.length))
    seen = f"{'×'.join(map(str, field.size))} of {inside} pixels"
    if field.size == field.length:
        cells = range(int(np.prod(field.cells)) if field.cells else 1)
        every = all(field.box(cell) == tuple((0, one) for one in field.length) for cell in cells)
        seen = f"{'all' if every else 'most'} of {inside} pixels"
    return f"{top.values.shape[1]} units, each sees {seen}"


def _silent(top: Top) -> int:
    return int((top.values[0] <= 0).sum())


def _told(layer: str, top: Top, field: ReceptiveField, count: int) -> str:
    text = f"{layer}: {_about(field, top)}"
    if field.measured:
        text += " (measured by gradients)"
    silent = _silent(top)
    if silent:
        text += f"; {silent} are never above zero in {count} images"
    return text


def _described(
    top: Top, field: ReceptiveField, source: ImageSource, unit: int
) -> list[dict[str, Any]]:
    out = []
    for value, image, place in zip(
        top.values[:, unit].tolist(),
        top.images[:, unit].tolist(),
        top.places[:, unit].tolist(),
        strict=True,
    ):
        if image >= 0:
            out.append({"image": source.ids[image], "value": value, "sees": field.box(place)})
    return out


def _table(tops: dict[str, Top], fields: dict[str, ReceptiveField], source: ImageSource) -> str:
    """All units as CSV; what is seen in pixels of the central square."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "unit", "rank", "value", "image", "top", "bottom", "left", "right"])
    for layer, top in tops.items():
        for unit in range(top.values.shape[1]):
            for rank, one in enumerate(_described(top, fields[layer], source, unit), 1):
                (first, last), (begin, end) = one["sees"]
                writer.writerow(
                    [layer, unit, rank, f"{one['value']:.6g}", one["image"], first, last, begin,
                     end]
                )  # fmt: skip
    return text.getvalue()
