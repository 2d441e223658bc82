"""The networks that images are compared by: of a run, of a file, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.generated import Judges
from selfsup_cli.config.registry import unfit_arch
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.inception import FILE, inception_judge
from selfsup_cli.evaluation.judges import Judge, backbone_judge
from selfsup_cli.jobs.subject import load_subject
from selfsup_cli.models import build
from selfsup_cli.randomness import derive

RANDOM = "random"


def load_judges(settings: Judges, device: torch.device) -> list[Judge]:
    """All that `--inception` and `--features` name, each under a name of its own.

    Raises InputError where none is named: there is no other network that would stand for it.
    """
    found = []
    if settings.inception is not None:
        found.append(inception_judge(Path(settings.inception), device))
    found += [one_judge(one, settings, device) for one in settings.features]
    if not found:
        raise InputError(
            f"no network is named to judge by: FID, KID and the Inception Score take the Inception "
            f"network of 2015, which does not come along: get {FILE} (torch-fidelity's release "
            "v0.2.0) and give it with --inception FILE, or compare features of your own network "
            "with --features RUN, or of random weights with --features random",
            kind="no-judge",
        )
    return _distinct(found)


def one_judge(reference: str, settings: Judges, device: torch.device) -> Judge:
    """The backbone that `reference` names: a run, a file, or random weights."""
    if reference == RANDOM:
        if problem := unfit_arch(settings.arch, "image"):
            raise InputError(f"--arch: {problem}", kind="unknown-arch")
        seed = derive(settings.seed, "random weights")
        return backbone_judge(build(settings.arch, seed=seed), f"random-{settings.arch}", device)
    subject = load_subject(Settings(run=reference, baseline="none"), "image")
    judge = backbone_judge(subject.learned, subject.learned.arch, device)
    return replace(judge, origin=subject.parents[0])


def _distinct(judges: Sequence[Judge]) -> list[Judge]:
    """The same without repetitions; those that share a name with another bear their weights'."""
    kept = list({judge.weights: judge for judge in judges}.values())
    names = [judge.name for judge in kept]
    return [
        replace(judge, name=f"{judge.name}-{judge.weights[:8]}")
        if names.count(judge.name) > 1
        else judge
        for judge in kept
    ]
