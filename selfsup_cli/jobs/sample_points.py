"""`selfsup sample dfgan` of a generator of points: where they fall, beside the modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from selfsup_cli.config.gan import RING, Ring
from selfsup_cli.data.ring import GOOD, centres, coverage
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation import gan_store
from selfsup_cli.jobs.gan_drawing import Drawing
from selfsup_cli.models.gan import PointGenerator
from selfsup_cli.models.gan_files import Generators
from selfsup_cli.models.gan_sampling import noise_of
from selfsup_cli.visualization import gan_sheets


def on_points(found: Generators) -> bool:
    """Whether points are drawn, not images."""
    return isinstance(found.raw, PointGenerator)


def _grid(drawing: Drawing) -> None:
    drawn = _samples(drawing, drawing.found)
    _scatter(drawing, "grid.png", drawing.title, [("samples", drawn)])
    if (ring := _ring(drawing)) is not None:
        found = coverage(torch.from_numpy(drawn), ring)
        drawing.facts |= {"modes_covered": found.covered, "good": found.good}
        drawing.said.append(
            f"modes covered: {found.covered} of {ring.modes}; samples within {GOOD:g} standard "
            f"deviations of one: {found.good} of {found.count}"
        )


def _checkpoints(drawing: Drawing) -> None:
    panels = [(f"step {step}", _samples(drawing, one)) for step, one in drawing.moments()]
    _scatter(drawing, "checkpoints.png", f"{drawing.origin.name}: samples by step", panels)


def _noise(drawing: Drawing) -> None:
    if drawing.found.noise is None:
        raise InputError(
            f"--show noise: {drawing.origin.name} was trained without noise", kind="no-noise"
        )
    settings = drawing.preset.samples
    noise = noise_of(drawing.found.noise, settings.count, settings.seed, drawing.device)
    drawn = _samples(drawing, drawing.found)
    added = noise.cpu().numpy()
    panels = [("samples", drawn), ("noise", added), ("samples + noise", drawn + added)]
    _scatter(drawing, "noise.png", f"The noise of {drawing.title}", panels)


def _images(drawing: Drawing) -> None:
    settings = drawing.preset.samples
    sampler, latents = drawing.sampler(drawing.found), drawing.latents(drawing.found)
    form = drawing.preset.show.format
    name = f"samples.{'npz' if form in ('auto', 'png') else form}"
    batches = sampler.batches(latents, 0, settings.count)
    dims = drawing.first(drawing.found, 1).shape[1]
    shape = (settings.count, dims)
    gan_store.write_array(drawing.path(name), batches, shape, drawing.facts)


def _samples(drawing: Drawing, found: Generators) -> np.ndarray:
    drawn: np.ndarray = drawing.first(found, drawing.preset.samples.count).numpy()
    return drawn


def _scatter(drawing: Drawing, name: str, title: str, panels: list[tuple[str, np.ndarray]]) -> None:
    ring = _ring(drawing)
    modes = None if ring is None else centres(ring).numpy()
    facts = drawing.facts
    note = f"{facts['samples']} samples, weights: {facts['weights']}, seed {facts['seed']}."
    more = " Crosses are the centres of the modes." if modes is not None else ""
    gan_sheets.points(drawing.path(name), panels, centres=modes, title=title, note=note + more)


def _ring(drawing: Drawing) -> Ring | None:
    """The modes that the run learned, where it is known which."""
    if drawing.origin.run is None:
        return None
    data = drawing.origin.preset().data
    return data.ring if data.source == RING else None


KINDS: dict[str, Callable[[Drawing], None]] = {
    "grid": _grid,
    "images": _images,
    "checkpoints": _checkpoints,
    "noise": _noise,
}
