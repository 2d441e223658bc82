"""What `selfsup score` looks at: generators of a run or of several, or images of any origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from selfsup_cli.config.generated import Score
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import Resolved
from selfsup_cli.engine.devices import loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.gan_pixels import Reals, Samples, image_generator, one_side, some
from selfsup_cli.evaluation.judges import Pixels
from selfsup_cli.jobs.generators import Origin, find_trainings, weights_of
from selfsup_cli.jobs.images import open_images
from selfsup_cli.jobs.shortcuts import machine
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.runs.report import ProtocolValue

# What is said of generators only, by field and option.
_OF_GENERATORS = {
    "subject.weights": "--weights",
    "subject.checkpoints": "--checkpoints",
    "samples.truncation": "--truncation",
    "samples.batch_norm": "--batch-norm",
    "samples.batch": "--batch-size",
}


@dataclass(frozen=True)
class Candidate:
    """Images that are scored: those of the generator of `run` at `step`, which took `seconds` to
    train as far as that is known; or of no generator (`step` None)."""

    step: int | None
    pixels: Pixels
    run: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Subject:
    """What is scored: its name, the candidates in order of their steps, and what is said of it."""

    name: str
    arch: str
    side: int
    candidates: list[Candidate]
    protocol: dict[str, ProtocolValue]
    parents: list[dict[str, Any]]
    data: ImageData


def check(resolved: Resolved, preset: Score) -> None:
    """Raise InputError for what is meant for generators where images are scored."""
    if preset.subject.images is None:
        return
    given = [
        option
        for path, option in _OF_GENERATORS.items()
        if resolved.origin.get(path, "default") != "default"
    ]
    if given:
        raise InputError(
            f"--images: these are drawn already; {', '.join(given)} "
            f"{'is' if len(given) == 1 else 'are'} for generators, and must be left out",
            kind="usage",
        )


def open_subject(preset: Score, device: torch.device, progress: Progress) -> Subject:
    """What a preset asks to score. Raises InputError where there is no such thing."""
    if preset.subject.images is not None:
        return _images(preset, progress)
    name, origins = find_trainings(preset.subject)
    settings = preset.samples
    candidates: list[Candidate] = []
    parents: list[dict[str, Any]] = []
    for origin in origins:
        for step in sorted(origin.files)[-preset.subject.checkpoints :]:
            _, found = origin.at(step)
            network, weights = weights_of(found, preset.subject.weights)
            side = image_generator(network, origin.name).size
            sampler = Sampler(
                network, batch_norm=settings.batch_norm, batch=settings.batch, device=device
            )
            latents = Latents(settings.seed, network.latent, settings.truncation)
            pixels = Samples(sampler, latents, settings.count, f"{found.sha256}/{weights}")
            candidates.append(Candidate(step, pixels, origin.name, origin.seconds(step)))
        parents.append({"run": origin.name, "arch": "dfgan", "sha256": found.sha256})
    protocol: dict[str, ProtocolValue] = {
        "weights": weights,
        "batch_norm": sampler.told,
        "truncation": "none" if settings.truncation is None else settings.truncation,
        "seed": settings.seed,
    }
    data = _data(origins[0], preset)
    return Subject(name, "dfgan", side, candidates, protocol, parents, data)


def _data(origin: Origin, preset: Score) -> ImageData:
    data = origin.data(preset.data)
    if data.source is None:
        raise InputError("say which real images to compare with: --data", kind="no-data")
    return data


def _images(preset: Score, progress: Progress) -> Subject:
    name = str(preset.subject.images)
    if preset.subject.run is not None:
        raise InputError("either --from or --images is scored, not both", kind="usage")
    if preset.data.source is None:
        raise InputError(
            "--images: images of no run have no data of their own to be compared with; say which "
            "with --data",
            kind="no-data",
        )
    asked = ImageData(source=name, max_bad=preset.data.max_bad)
    source = open_images(
        asked, "all", labels=False, machine=machine(preset.machine), progress=progress
    ).source
    chosen = some(source, preset.samples.count, preset.samples.seed)
    side = one_side(source)
    pixels = Reals(chosen, side, workers=loader_workers(preset.machine.workers))
    protocol: dict[str, ProtocolValue] = {"weights": "images as given", "seed": preset.samples.seed}
    parents = [{"images": name, "sha256": source.fingerprint}]
    return Subject(
        source.name, "images", side, [Candidate(None, pixels)], protocol, parents, preset.data
    )
