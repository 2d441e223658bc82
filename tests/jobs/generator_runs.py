"""Runs of `pretrain dfgan` as it leaves them, without the training."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from selfsup_cli.config.presets import dump, identity, resolve
from selfsup_cli.models.gan import Generator, PointGenerator, noise_network
from selfsup_cli.models.gan_files import AnyGenerator, Noise, save_generator
from selfsup_cli.models.gan_noise import LearnedNoise
from selfsup_cli.randomness import generator
from selfsup_cli.runs.run import Run, runs_dir

STEPS = (10, 20, 30)


def image_run(name: str = "gan", *, noise: bool = True, average: bool = True) -> Path:
    """A run on a few scenes that kept three generators of 32 pixels."""
    settings = ["data.scenes.images=24", "data.scenes.test_images=16", "data.scenes.side=32"]
    sources = {"data.source": "scenes"}
    made: list[tuple[AnyGenerator, Noise | None]] = []
    for step in STEPS:
        network = Generator(generator(step, "test"), base=2, latent=8)
        learned = LearnedNoise(noise_network(generator(step, "noise"), base=1, latent=8), latent=8)
        made.append((network, learned if noise else None))
    return _run(name, sources, settings, made, average)


def several_runs(name: str, trainings: list[str]) -> Path:
    """A run that reports several trainings together, and those trainings."""
    parents = [{"run": image_run(one).name} for one in trainings]
    run = Run.create_or_continue(
        runs_dir(), name, preset={"version": 1}, identity={}, command=["selfsup"],
        job="pretrain/dfgan", seed=0, dataset={}, parents=parents,
    )  # fmt: skip
    run.finish()
    run.close()
    return run.path


def ring_run(name: str = "ring") -> Path:
    """A run on the ring that kept three generators of points."""
    made: list[tuple[AnyGenerator, Noise | None]] = []
    for step in STEPS:
        network = PointGenerator(generator(step, "test"), latent=4, hidden=8)
        source = PointGenerator(generator(step, "noise"), latent=4, hidden=8, reach=2.0)
        made.append((network, LearnedNoise(source, latent=4)))
    return _run(name, {"data.source": "ring", "network.arch": "mlp"}, [], made, True)


def other_run(name: str = "other") -> Path:
    """A finished run of another job."""
    run = Run.create_or_continue(
        runs_dir(), name, preset={"version": 1}, identity={}, command=["selfsup"],
        job="pretrain/temporal", seed=0, dataset={}, parents=[],
    )  # fmt: skip
    run.finish()
    run.close()
    return run.path


def _run(
    name: str,
    options: dict[str, str],
    settings: list[str],
    made: list[tuple[AnyGenerator, Noise | None]],
    average: bool,
) -> Path:
    preset = resolve("pretrain/dfgan", options=options, sets=settings).preset
    run = Run.create_or_continue(
        runs_dir(), name, preset=dump(preset), identity=identity(preset), command=["selfsup"],
        job="pretrain/dfgan", seed=0, dataset={"name": options["data.source"]}, parents=[],
    )  # fmt: skip
    (run.path / "generators").mkdir()
    for step, (network, noise) in zip(STEPS, made, strict=True):
        kept = copy.deepcopy(network) if average else None
        if isinstance(kept, Generator):
            with torch.no_grad():
                kept.last.weight.mul_(0.5)
        facts = {"run": name, "step": step}
        files = [run.path / "generators" / f"step-{step:08d}.safetensors"]
        if step == STEPS[-1]:
            files.append(run.path / "generator.safetensors")
        for path in files:
            save_generator(path, network, facts, average=kept, noise=noise)
    run.finish(step=STEPS[-1])
    run.close()
    return run.path
