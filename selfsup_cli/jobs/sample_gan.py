"""`selfsup sample dfgan`: what a generator draws, as pictures and as files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from selfsup_cli.config.generated import SampleDfgan
from selfsup_cli.config.presets import Resolved
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation import gan_store
from selfsup_cli.evaluation.gan_pixels import rgb_bytes
from selfsup_cli.jobs import gan_pictures, sample_points
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.gan_drawing import FACTS, Drawing, note
from selfsup_cli.jobs.generators import find_generators, weights_of
from selfsup_cli.runs import atomic
from selfsup_cli.visualization import gan_sheets

FOLDER = "dfgan-samples"
IMAGES = "images"

_GRID = 256
_SINGLE = 1000
_NUMBERED = re.compile(r"\d{6}\.png")


def dfgan(resolved: Resolved, *, out: Path | None, quiet: bool = False) -> Outcome:
    """Draw samples of a generator into the folder `out`, and what the preset asks for besides.

    Raises InputError for a run that is none of pretrain dfgan, a step that was not kept, a folder
    that holds something else; MachineError for more samples than there is memory for.
    """
    preset = resolved.preset
    assert isinstance(preset, SampleDfgan)  # noqa: S101 (command and preset belong together)
    folder = _checked(out or Path(FOLDER))
    origin = find_generators(preset.subject)
    step, found = origin.at(preset.subject.checkpoint)
    device = choose(preset.machine.device).device
    with Progress(quiet=quiet) as progress:
        drawing = Drawing(preset, origin, step, found, device, folder, progress)
        points = sample_points.on_points(found)
        made = sample_points.KINDS if points else {**_KINDS, **gan_pictures.KINDS}
        kinds = list(dict.fromkeys(preset.show.kinds))
        for kind in kinds:
            if kind not in made:
                raise InputError(
                    f"--show {kind}: {origin.name} draws points in a plane, of which there are "
                    f"{', '.join(made)}",
                    kind="points",
                )
        sampler = drawing.sampler(found)
        _prepare(folder)
        _, weights = weights_of(found, preset.subject.weights)
        settings = preset.samples
        drawing.facts = {
            "from": origin.name,
            "step": step,
            "weights": weights,
            "sha256": found.sha256,
            "samples": settings.count,
            "seed": settings.seed,
            "truncation": settings.truncation,
            "batch_norm": sampler.told,
        }
        drawing.said.append(
            f"{settings.count} samples of {origin.name}, step {step}, weights {weights}; batch "
            f"norm: {sampler.told}; seed {settings.seed}"
            + ("" if settings.truncation is None else f", truncated at {settings.truncation:g}")
        )
        for kind in kinds:
            made[kind](drawing)
    drawing.facts["complete"] = True
    drawing.tell()
    drawing.facts["files"] = drawing.files
    text = "\n".join([*drawing.said, *(str(folder / name) for name in drawing.files)])
    return Outcome(text=text, data={"folder": str(folder), **drawing.facts})


def _grid(drawing: Drawing) -> None:
    count = min(drawing.preset.samples.count, _GRID)
    images = drawing.first(drawing.found, count)
    total = drawing.preset.samples.count
    of = "" if count == total else f"The first {count} of {total}."
    gan_sheets.grid(
        drawing.path("grid.png"), rgb_bytes(images), title=drawing.title, note=note(drawing, of)
    )


def _images(drawing: Drawing) -> None:
    settings = drawing.preset.samples
    sampler, latents = drawing.sampler(drawing.found), drawing.latents(drawing.found)
    drawn = (rgb_bytes(part) for part in sampler.batches(latents, 0, settings.count))
    batches = gan_store.counting(drawn, settings.count, drawing.progress.counting("samples"))
    form = drawing.preset.show.format
    if form == "auto":
        form = "png" if settings.count <= _SINGLE else "h5"
    if form == "png":
        gan_store.write_pngs(drawing.path(IMAGES), batches)
        return
    side = int(drawing.first(drawing.found, 1).shape[3])
    shape = (settings.count, side, side, 3)
    gan_store.write_array(drawing.path(f"samples.{form}"), batches, shape, drawing.facts)


_KINDS: dict[str, Callable[[Drawing], None]] = {"grid": _grid, "images": _images}


def _checked(folder: Path) -> Path:
    """The folder to write into: a new one, an empty one, or one that was written here before."""
    if folder.suffix.lower() in (".png", ".gif", ".h5", ".npz"):
        raise InputError(
            f"--out {folder}: samples are several files; give the name of a folder", kind="out"
        )
    if not folder.absolute().parent.is_dir():
        raise InputError(
            f"--out {folder}: there is no folder {folder.absolute().parent}", kind="out"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: this is a file, and samples are several", kind="out")
    if folder.is_dir() and not (folder / FACTS).is_file() and any(folder.iterdir()):
        raise InputError(
            f"--out {folder}: this folder holds something else than samples; name another one",
            kind="out",
        )
    return folder


def _prepare(folder: Path) -> None:
    """Make the folder, without what an earlier call left in it."""
    try:
        folder.mkdir(exist_ok=True)
        if (folder / FACTS).is_file():
            _clear(folder)
    except OSError as error:
        raise atomic.cannot_write(folder, error) from error


def _clear(folder: Path) -> None:
    try:
        earlier = json.loads((folder / FACTS).read_bytes())["files"]
    except (ValueError, KeyError, TypeError):
        earlier = []
    for name in earlier if isinstance(earlier, list) else []:
        path = folder / Path(str(name)).name
        if path.is_file() and path.suffix in (".png", ".gif", ".h5", ".npz"):
            path.unlink()
    for path in (folder / IMAGES).glob("*.png"):
        if _NUMBERED.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):
        (folder / IMAGES).rmdir()
