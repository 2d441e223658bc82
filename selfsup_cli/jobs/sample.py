"""`selfsup sample transformations`: what inpainting and warping do to images, as a picture."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from selfsup_cli.config.image_pictures import SampleTransformations
from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.config.registry import TRANSFORMS
from selfsup_cli.config.transformations import PretrainTransformations
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import open_images
from selfsup_cli.jobs.method_weights import load_method
from selfsup_cli.jobs.shortcuts import data_of, machine, unfit
from selfsup_cli.jobs.visualize_images import checked, some_canvases
from selfsup_cli.methods import create
from selfsup_cli.methods.image_pretext import Examples
from selfsup_cli.methods.transformations import Transformations
from selfsup_cli.randomness import generator
from selfsup_cli.runs.run import find_run, runs_dir
from selfsup_cli.transforms.pretext import TRANSFORMS as FUNCTIONS
from selfsup_cli.transforms.pretext import Means
from selfsup_cli.visualization import transformed

log = logging.getLogger("selfsup")

_TOGETHER = 16
"""Images that are inpainted together: F normalises by the batch that it sees."""
_SHOWN_APART = ("identity", "warp", "lci", "autoencode")


def transformations(resolved: Resolved, *, out: Path | None, quiet: bool = False) -> Outcome:
    """Draw what the transformations of a run do to images into `out`.

    Where no run is named and there is none, those that need no inpainter are shown. Raises
    InputError.
    """
    preset = resolved.preset
    assert isinstance(preset, SampleTransformations)  # noqa: S101 (they belong together)
    path = checked(out or Path("transformations.png"))
    method, run = _method(preset)
    device = choose(preset.machine.device).device
    data = data_of(preset.data, method.preset)
    with Progress(quiet=quiet) as progress:
        source = open_images(
            data, "test", labels=False, machine=machine(preset.machine), progress=progress
        ).source
    seed, count = preset.shown.seed, preset.shown.count
    names, canvases = some_canvases(method, source, max(count, _TOGETHER), seed)
    method.to(device)
    samples = _samples(method, names, canvases.to(device), seed)[:count]
    framing, lci = method.preset.framing, method.preset.lci
    said = [f"Canvases of {framing.canvas} pixels, images and what is done to them chosen by seed "
            f"{seed}."]  # fmt: skip
    if method.inpainter is not None:
        said.append(
            f"The inpainter sees {lci.border} pixels along the sides of a patch of {lci.patch}, "
            f"and noise; autoencoded patches it sees whole."
        )
    if method.warp is not None:
        said.append("Arrows lead from each control point to where it arrives.")
    if run is None:
        said.append("Nothing is inpainted: there is no finished run to take an inpainter from.")
    transformed.sheet(
        path,
        samples,
        title=f"Transformations{'' if run is None else f' of {run}'}: {source.name}",
        note=" ".join(said),
    )
    facts = {"picture": str(path), "run": run, "kinds": list(method.kinds), "images": names[:count]}
    return Outcome(text=str(path), data=facts)


def _method(preset: SampleTransformations) -> tuple[Transformations, str | None]:
    """The method, and the run that it is from; untrained where there is none."""
    try:
        run = find_run(preset.subject.run or "latest", runs_dir(), needs=unfit)
    except InputError as error:
        if preset.subject.run is not None or error.kind != "no-run":
            raise
        log.warning(
            "there is no finished run of pretrain transformations to take an inpainter from: what "
            "is inpainted is not shown"
        )
        return _untrained(preset), None
    method = load_method(run)
    if not isinstance(method, Transformations):
        raise InputError(f"{run.name} does not transform images", kind="run-unfit")
    return method, run.name


def _untrained(preset: SampleTransformations) -> Transformations:
    """The transformations of the preset that fits the data, but those that are inpainted."""
    options = {"data.source": preset.data.source}
    own = resolve("pretrain/transformations", options=options).preset
    assert isinstance(own, PretrainTransformations)  # noqa: S101 (asked for by name)
    kinds = [kind for kind in own.kinds if not TRANSFORMS[kind].inpaints]
    settings = {"kinds": kinds, "network.width": 0.05}
    method = create(resolve("pretrain/transformations", options=options | settings).preset)  # type: ignore[call-overload]
    assert isinstance(method, Transformations)  # noqa: S101
    return method.eval()


@torch.no_grad()
def _samples(
    method: Transformations, names: list[str], canvases: torch.Tensor, seed: int
) -> list[transformed.Sample]:
    g = generator(seed, "sample transformations", device=str(canvases.device))
    examples = method.examples(canvases, g)
    images = examples.canvases.float()
    warps = None
    if method.warp is not None:
        warps = method.warp.draw(len(images), g)
    means = Means(g, method.warp, method.preset.tiles, examples.inpainted)
    others = {
        kind: FUNCTIONS[kind](images, means).cpu()
        for kind in method.kinds
        if kind not in _SHOWN_APART
    }
    found = []
    for i, name in enumerate(names):
        warped = None
        if method.warp is not None and warps is not None:
            image = method.warp(images, warps)[i].cpu()
            points = warps.points[i if len(warps.points) > 1 else 0].cpu()
            warped = transformed.Warped(image, points, warps.offsets[i].cpu())
        found.append(
            transformed.Sample(
                name,
                images[i].cpu(),
                _painted(examples, i),
                warped,
                [(kind, others[kind][i]) for kind in others],
            )
        )
    return found


def _painted(examples: Examples, i: int) -> transformed.Painted | None:
    found = examples.inpainted
    if found is None:
        return None
    row, column = found.corners[i].tolist()
    return transformed.Painted(
        erased=found.erased[i].float().cpu(),
        inpainted=found.inpainted_patches[i].float().cpu(),
        autoencoded=found.autoencoded_patches[i].float().cpu(),
        pasted=found.inpainted[i].float().cpu(),
        corner=(row, column),
    )
