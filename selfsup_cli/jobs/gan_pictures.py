"""What tells about a generator: steps of its training, interpolations, neighbours, noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from selfsup_cli.config.generated import Judges
from selfsup_cli.data.source import Split
from selfsup_cli.engine.devices import loader_workers
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.gan_neighbours import Copies, Near, by_features, by_pixels
from selfsup_cli.evaluation.gan_pixels import Reals, rgb_bytes, some
from selfsup_cli.evaluation.judges import Judge
from selfsup_cli.jobs.gan_drawing import Drawing, note
from selfsup_cli.jobs.images import open_images
from selfsup_cli.jobs.judges import one_judge
from selfsup_cli.jobs.shortcuts import machine
from selfsup_cli.models.gan import Generator
from selfsup_cli.models.gan_files import Generators, Noise
from selfsup_cli.models.gan_noise import GaussianNoise
from selfsup_cli.models.gan_sampling import noise_of, slerp
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.visualization import gan_sheets
from selfsup_cli.visualization.gan_sheets import Row

PIXELS = "pixels"
_STRIP = 12
_FRAME = 36
_NOISY = 3


def _checkpoints(drawing: Drawing) -> None:
    """The first samples at every step that was kept, a row for each."""
    count = min(drawing.preset.samples.count, _STRIP)
    shown = [
        Row(f"step {step}", rgb_bytes(drawing.first(found, count)))
        for step, found in drawing.moments()
    ]
    gan_sheets.rows(
        drawing.path("checkpoints.png"),
        shown,
        title=f"{drawing.origin.name}: the same latents over the training",
        note=note(drawing, f"{len(shown)} of {len(drawing.origin.files)} steps that were kept."),
    )


def _animation(drawing: Drawing) -> None:
    """The same as a GIF."""
    count = min(drawing.preset.samples.count, _FRAME)
    frames = [
        (f"step {step}", rgb_bytes(drawing.first(drawing.origin.at(step)[1], count)))
        for step in sorted(drawing.origin.files)
    ]
    seconds = drawing.preset.show.frame_seconds
    gan_sheets.animation(drawing.path("checkpoints.gif"), frames, seconds=seconds)


def _interpolations(drawing: Drawing) -> None:
    """From one latent to another, on the sphere."""
    count, steps = drawing.preset.show.rows, drawing.preset.show.steps
    z = drawing.latents(drawing.found).rows(0, 2 * count)
    between = slerp(z[:count], z[count:], steps)
    images = drawing.sampler(drawing.found)(between.flatten(0, 1)).cpu()
    shown = [
        Row(f"{i + 1} to {count + i + 1}", rgb_bytes(part))
        for i, part in enumerate(torch.split(images, steps))
    ]
    gan_sheets.rows(
        drawing.path("interpolations.png"),
        shown,
        title=f"Between latents: {drawing.title}",
        note=note(
            drawing, "Ends are latents of samples by number; the way is an arc of a great circle."
        ),
    )


def _neighbours(drawing: Drawing) -> None:
    """The nearest training images of samples, and how near samples and held-out images come."""
    settings = drawing.preset.near
    side = drawing.first(drawing.found, 1).shape[3]
    reals = _reals(drawing, "train", side)
    heldout = _reals(drawing, "test", side)
    chosen = some(heldout.source, settings.checked, drawing.preset.samples.seed)
    theirs = torch.cat(list(Reals(chosen, side).read([(0, len(chosen))], 100)))
    rows = drawing.preset.show.rows
    ours = rgb_bytes(drawing.first(drawing.found, max(settings.checked, rows)))
    queries = torch.cat([ours, theirs])
    shown = []
    told = [f"{len(reals)} images of {reals.source.name} ({drawing.title})."]
    for reference in settings.by:
        near, unit, name = _near(drawing, reference, queries, reals)
        copies = Copies(near.distances[: len(ours), 0], near.distances[len(ours) :, 0], unit)
        drawing.said.append(f"{name}: {copies.told()}")
        told.append(f"By {drawing.said[-1]}.")
        drawing.facts.setdefault("nearest", {})[name] = {
            "samples_median": float(copies.samples.median()),
            "heldout_median": float(copies.heldout.median()),
            "limit": copies.limit,
            "nearer": copies.nearer,
            "samples": len(copies.samples),
        }
        shown += _beside(ours, near, reals, rows, settings.shown, name)
    if PIXELS in settings.by:
        told.append("In pixels, blurred images are near to all.")
    gan_sheets.rows(
        drawing.path("neighbours.png"),
        sorted(shown, key=lambda row: int(row.label.split()[0])),
        title="Samples (left) and the nearest training images",
        note=note(drawing, " ".join(told)),
    )


def _near(drawing: Drawing, reference: str, queries: Tensor, reals: Reals) -> tuple[Near, str, str]:
    """Nearest training images, the unit of their distance, and what it is called after."""
    k = drawing.preset.near.shown
    counter = drawing.progress.counting(f"nearest by {reference}: images")
    if reference == PIXELS:
        return by_pixels(queries, reals, k, counter), "grey levels (root mean square)", PIXELS
    judge: Judge = one_judge(reference, Judges(), drawing.device)
    found = by_features(queries, reals, k, judge, counter)
    return found, f"1 − cosine of {judge.name}'s embeddings", judge.name


def _beside(ours: Tensor, near: Near, reals: Reals, rows: int, most: int, name: str) -> list[Row]:
    """A row for each of the first samples."""
    out = []
    places = near.places[:rows, :most]
    found = torch.cat(list(reals.read([(p, p + 1) for p in places.flatten().tolist()], 1)))
    for i, images in enumerate(torch.split(found, places.shape[1])):
        far = [f"{value:.3g}" for value in near.distances[i, :most].tolist()]
        out.append(Row(f"{i + 1} {name}", torch.cat([ours[i : i + 1], images]), ["", *far], True))
    return out


def _noise(drawing: Drawing) -> None:
    """Noise patterns, and images with them; where several steps were kept, also by step."""
    source = _noise_of(drawing, drawing.found)
    count = drawing.preset.show.rows
    side = drawing.first(drawing.found, 1).shape[3]
    real = _some_reals(drawing, side, count)
    fake = drawing.first(drawing.found, count)
    noise = noise_of(source, count, drawing.preset.samples.seed, drawing.device).cpu()
    scale = _scale(source)
    told = (
        f"Noise has values within ±{noise.abs().max():.2g} and a mean square of "
        f"{noise.square().mean():.3g} (images are in ±1); alone it is shown from −{scale:.2g} to "
        f"{scale:.2g}, added it is cut off at ±1, which the discriminator does not do."
    )
    shown = [
        Row("noise", rgb_bytes(noise / max(scale, 1e-6))),
        Row("real", rgb_bytes(real)),
        Row("real + noise", rgb_bytes(real + noise)),
        Row("sample", rgb_bytes(fake)),
        Row("sample + noise", rgb_bytes(fake + noise)),
    ]
    title = f"The noise of {drawing.title}"
    gan_sheets.rows(drawing.path("noise.png"), shown, title=title, note=note(drawing, told))
    if len(drawing.origin.files) > 1:
        _noise_by_step(drawing, real[:_NOISY], scale)


def _noise_by_step(drawing: Drawing, real: Tensor, scale: float) -> None:
    """Figure 7.7: a column for each step, noise above, real images with it below."""
    patterns, steps = [], []
    for step, found in drawing.moments():
        source = _noise_of(drawing, found)
        seed = drawing.preset.samples.seed
        patterns.append(noise_of(source, 1, seed, drawing.device).cpu())
        steps.append(str(step))
    noise = torch.cat(patterns)
    shown = [Row("noise", rgb_bytes(noise / max(scale, 1e-6)), steps)]
    shown += [
        Row(f"real {i + 1} + noise", rgb_bytes(one[None] + noise)) for i, one in enumerate(real)
    ]
    gan_sheets.rows(
        drawing.path("noise-steps.png"),
        shown,
        title=f"Noise of {drawing.origin.name} over the training",
        note=f"The same pattern at each step, shown from −{scale:.2g} to {scale:.2g}, and "
        "real images with it (figure 7.7).",
    )


def _noise_of(drawing: Drawing, found: Generators) -> Noise:
    if found.noise is None:
        raise InputError(
            f"--show noise: {drawing.origin.name} was trained without noise", kind="no-noise"
        )
    return found.noise


def _scale(noise: Noise) -> float:
    """The value that is shown brightest."""
    if isinstance(noise, GaussianNoise):
        return 3 * float(noise.sigma)
    return float(cast(Generator, noise.network).reach)


def _reals(drawing: Drawing, part: Split, side: int) -> Reals:
    source = open_images(
        drawing.origin.data(drawing.preset.data),
        part,
        labels=False,
        machine=machine(drawing.preset.machine),
        progress=drawing.progress,
    ).source
    return Reals(source, side, workers=loader_workers(drawing.preset.machine.workers))


def _some_reals(drawing: Drawing, side: int, count: int) -> Tensor:
    """A few training images, float in [−1, 1], chosen by the seed."""
    reals = _reals(drawing, "train", side)
    chosen = some(reals.source, count, drawing.preset.samples.seed)
    images = torch.cat(list(Reals(chosen, side).read([(0, len(chosen))], count)))
    if len(images) < count:
        images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    return to_unit(images)


KINDS: dict[str, Callable[[Drawing], None]] = {
    "checkpoints": _checkpoints,
    "animation": _animation,
    "interpolations": _interpolations,
    "neighbours": _neighbours,
    "noise": _noise,
}
