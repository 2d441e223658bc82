"""Schedules and optimisers, built from a preset."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from selfsup_cli.config.blocks import Optim
from selfsup_cli.config.weighing import WeighedOptim, Weighing
from selfsup_cli.engine import processes
from selfsup_cli.engine.bilevel import BilevelSGD, layers_of
from selfsup_cli.engine.spread import SpreadStatistics


def factor(settings: Optim, total_steps: int, epoch: int = 1) -> Callable[[int], float]:
    """What multiplies the learning rate in step t = 0 … total_steps − 1.

    Cosine: (1 − α)·½(1 + cos πt/T) + α with α = `final_factor`, linear: (1 − α)(1 − t/T) + α, both
    constant after T, which is the share `falling` of all steps; staircase: `each_epoch` to the
    power of the epochs of `epoch` steps that are over. A warm-up rises linearly to them.
    """

    def at(step: int) -> float:
        value = 1.0
        if settings.schedule == "staircase":
            value = settings.each_epoch ** (step // epoch)
        elif settings.schedule != "constant":
            progress = min(step / max(total_steps * settings.falling, 1), 1.0)
            alpha = settings.final_factor
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            left = cosine if settings.schedule == "cosine" else 1 - progress
            value = (1 - alpha) * left + alpha
        if step < settings.warmup_steps:
            value *= (step + 1) / settings.warmup_steps
        return value

    return at


def within(settings: Optim, first: int, end: int, epoch: int = 1) -> Callable[[int], float]:
    """The same of a training that begins with step `first` and ends before step `end`."""
    whole = factor(settings, end - first, epoch)
    return lambda step: whole(max(step - first, 0))


def build_optimizer(module: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """The optimiser for `module`; weight decay acts on weights, not on biases, γ and β."""
    groups = _groups(module, settings)
    parameters = [p for group in groups for p in group["params"]]
    if settings.name != "sgd":
        fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
        # Adam's own decay is coupled, as that of SGD below.
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
    # SGD's own decay is coupled: it adds wd·w to the gradient, which the learning rate multiplies.
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True
    )


def build_weighed(module: nn.Module, settings: WeighedOptim, how: Weighing) -> BilevelSGD:
    """The optimiser for the mini-batches of `module`: weighted, or for "microbatches" all alike.

    In a group of processes they are spread over them.
    """
    groups = _groups(module, settings)
    layers = None
    if how.per_layer:
        trained = {id(p) for group in groups for p in group["params"]}
        own = [[p for p in layer if id(p) in trained] for layer in layers_of(module)]
        layers = [layer for layer in own if layer]
    spread = processes.members() > 1
    return BilevelSGD(
        groups,
        settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        lam=how.lam,
        mu=how.mu,
        solver="uniform" if settings.name == "microbatches" else how.solver,
        normalize=how.normalize,
        layers=layers,
        skip_disagreeing=how.skip_disagreeing,
        spread=spread,
        statistics=SpreadStatistics(module) if spread else None,
    )


def _groups(module: nn.Module, settings: Optim) -> list[dict[str, Any]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if settings.decay_all or p.ndim > 1]
    spared = [p for p in parameters if not settings.decay_all and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
