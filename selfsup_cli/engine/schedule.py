"""Schedules and optimisers, built from a preset."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from selfsup_cli.config.blocks import Optim


def factor(settings: Optim, total_steps: int) -> Callable[[int], float]:
    """What multiplies the learning rate in step t = 0 … total_steps − 1.

    Cosine: (1 − α)·½(1 + cos πt/T) + α with α = `final_factor`, linear: (1 − α)(1 − t/T) + α, both
    constant after T, which is the share `falling` of all steps; a warm-up rises linearly to them.
    """

    def at(step: int) -> float:
        value = 1.0
        if settings.schedule != "constant":
            progress = min(step / max(total_steps * settings.falling, 1), 1.0)
            alpha = settings.final_factor
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            left = cosine if settings.schedule == "cosine" else 1 - progress
            value = (1 - alpha) * left + alpha
        if step < settings.warmup_steps:
            value *= (step + 1) / settings.warmup_steps
        return value

    return at


def within(settings: Optim, first: int, end: int) -> Callable[[int], float]:
    """The same of a training that begins with step `first` and ends before step `end`."""
    whole = factor(settings, end - first)
    return lambda step: whole(max(step - first, 0))


def build_optimizer(module: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """The optimiser for `module`; weight decay acts on weights, not on biases, γ and β."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if settings.decay_all or p.ndim > 1]
    spared = [p for p in parameters if not settings.decay_all and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name != "sgd":
        fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
        # Adam's own decay is coupled, as that of SGD below.
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
    # SGD's own decay is coupled: it adds wd·w to the gradient, which the learning rate multiplies.
    nesterov = settings.momentum > 0
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True
    )
