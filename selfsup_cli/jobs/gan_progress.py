"""How a GAN came to what it draws: the same latents, and its noise, at every step that was kept."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.generated import Weights
from selfsup_cli.jobs.generators import find_generators
from selfsup_cli.models.gan_files import Generators
from selfsup_cli.models.gan_noise import LearnedNoise
from selfsup_cli.models.gan_sampling import Latents, Sampler, noise_of
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import gan_sheets
from selfsup_cli.visualization.gan_sheets import Row
from selfsup_cli.visualization.ring import Moment, densities

_GRID, _STRIP, _REALS, _POINTS = 64, 10, 3, 1500
_MOST = 10


def progress_pictures(run: Run, preset: PretrainGan, real: Tensor) -> list[Picture]:
    """Draw samples of the end of a run, and what led there.

    `real` are training images float `[n, 3, S, S]` in [−1, 1], or points `[n, 2]`.
    """
    origin = find_generators(Weights(run=str(run.path)))
    steps = sorted(origin.files)
    if len(steps) > _MOST:
        steps = [steps[round(k * (len(steps) - 1) / (_MOST - 1))] for k in range(_MOST)]
    found = [(step, origin.at(step)[1]) for step in steps]
    if preset.on_points:
        return [_densities(run, preset, real, found)]
    pictures = [_grid(run, preset, found[-1]), _strip(run, preset, found)]
    if preset.filtering.noise != "none":
        pictures.append(_noise(run, preset, real[:_REALS], found))
    return pictures


Moments = list[tuple[int, Generators]]


def _samples(found: Generators, preset: PretrainGan, count: int) -> Tensor:
    """The first samples, float, of the weights that are looked at; the same latents always."""
    network = found.network(preset.monitor.weights)
    sampler = Sampler(network, batch=preset.monitor.batch)
    latents = Latents(preset.train.seed, network.latent)
    return torch.cat(list(sampler.batches(latents, 0, count)))


def _told(preset: PretrainGan) -> str:
    weights = "moving average of the weights" if preset.monitor.weights == "average" else "weights"
    return f"Generator: {weights}, normalised by each batch of {preset.monitor.batch}."


def _grid(run: Run, preset: PretrainGan, last: tuple[int, Generators]) -> Picture:
    step, found = last
    images = _samples(found, preset, _GRID)
    title = f"Samples at step {step}"
    gan_sheets.grid(run.picture("samples.png"), images, title=title, note=_told(preset))
    return Picture(file="pictures/samples.png", caption=f"{title}, as they come.")


def _strip(run: Run, preset: PretrainGan, found: Moments) -> Picture:
    rows = [Row(f"step {step}", _samples(one, preset, _STRIP)) for step, one in found]
    gan_sheets.rows(
        run.picture("strip.png"),
        rows,
        title="The same latents over the training",
        note=_told(preset),
    )
    return Picture(file="pictures/strip.png", caption="The same latents at the steps kept.")


def _noise(run: Run, preset: PretrainGan, real: Tensor, found: Moments) -> Picture:
    """Figure 7.7: a column for each step, noise above, real images with it below."""
    seed, drawn = preset.train.seed, []
    for _, one in found:
        assert one.noise is not None  # noqa: S101 (the preset has some)
        drawn.append(noise_of(one.noise, 1, seed, "cpu"))
    noise = torch.cat(drawn)
    learned = isinstance(found[-1][1].noise, LearnedNoise)
    scale = preset.filtering.reach if learned else 3 * preset.filtering.sigma
    rows = [Row("noise", noise / scale, [str(step) for step, _ in found])]
    rows += [Row("real + noise", image[None] + noise) for image in real]
    gan_sheets.rows(
        run.picture("noise.png"),
        rows,
        title="Noise over the training",
        note=f"Noise alone is shown from −{scale:g} to {scale:g}; added to images it is cut off at "
        "±1 here, but not for the discriminator.",
    )
    return Picture(file="pictures/noise.png", caption="Noise, and images with it (figure 7.7).")


def _densities(run: Run, preset: PretrainGan, real: Tensor, found: Moments) -> Picture:
    """Figures 7.1 and 7.4 in the plane."""
    moments = []
    for step, one in found:
        noise = None
        if one.noise is not None:
            noise = noise_of(one.noise, _POINTS, preset.train.seed, "cpu").numpy()
        moments.append(Moment(step, _samples(one, preset, _POINTS).numpy(), noise))
    densities(
        run.picture("densities.png"),
        real[:_POINTS].numpy(),
        moments,
        radius=preset.data.ring.radius,
        title="Real (orange) and generated (blue) points over the training",
        note="Below, both with the noise that the discriminator sees them with."
        if preset.filtering.noise != "none"
        else "The discriminator sees them as they are.",
    )
    caption = "Both densities over the training (figures 7.1 and 7.4)."
    return Picture(file="pictures/densities.png", caption=caption)
