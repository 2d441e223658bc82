"""Scales of layers with fresh weights that suit the data (Krähenbühl et al., "Data-dependent
initializations of convolutional neural networks", ICLR 2016).

The thesis uses them for the layers that it puts on transferred convolutions (sections 3.4.2 and
4.4.2). Within a layer, each channel is scaled and shifted so that its values on a batch have unit
variance. Between layers, scales are balanced so that all of them change at the same relative rate:
with gradients of a random linear function of the outputs, ‖∂ℓ/∂W‖ / ‖W‖ becomes equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfsup_cli.models.layers import Scalable

Affine = nn.Conv2d | nn.Conv3d | nn.Linear
Stage = nn.Module | tuple[nn.Module, ...]
"""A layer, or several that take the same input (the two outputs of a detector)."""

Run = Callable[[], Tensor | Sequence[Tensor]]
"""Computes the network on the batch, always the same one, and gives its outputs."""

BIAS = 0.1
_TINY = 1e-12
# Of fewer values a channel's variance says too little: all channels of the layer share one scale.
_FEW = 16


def rescale(
    layers: Sequence[Stage], run: Run, generator: torch.Generator, *, bias: float = BIAS
) -> None:
    """Give fresh `layers` unit variance on a batch, then balance how fast they change.

    `layers` are in the order in which they run, a chain that ends with the outputs of `run`. What
    lies between them must be positively homogeneous (ReLU, pooling, dropout that is off), or
    `Scalable` and stand in `layers` as well, so that the balance does not change what the network
    computes. `bias` is what the channels of all but
    the last get as their mean, so that most of them pass the next ReLU now and then. Weights are
    changed in place, as a function of them, the batch and `generator` (on the CPU). Networks of
    which `run` is a part are to be in evaluation mode.
    """
    within(affine(layers), run, bias=bias)
    between(layers, run, generator)


def affine(layers: Iterable[Stage]) -> list[Stage]:
    """Those that have weights, without the `Scalable` between them."""
    return [one for one in layers if not isinstance(one, Scalable)]


def within(layers: Sequence[Stage], run: Run, *, bias: float = BIAS) -> None:
    """Scale the rows of each layer so that its outputs on the batch have unit variance.

    They also get the mean `bias`, those of the last stage 0, where the layer has biases. With fewer
    than 16 values of each channel, the mean of the variances over the channels is 1. One pass
    through the network: a layer sees what the ones before it give after they were scaled. Outputs
    are `[B, C, …]` of convolutions, `[…, C]` of linear layers; a channel that does not vary keeps
    its weights. Raises ValueError for a layer that does not run.
    """
    stages = _stages(layers)
    ran: set[nn.Module] = set()

    def scaled(level: float) -> Any:
        def hook(module: Any, _inputs: Any, output: Tensor) -> Tensor:
            ran.add(module)
            return _unit(module, output, level)

        return hook

    handles = [
        module.register_forward_hook(scaled(0.0 if stage is stages[-1] else bias))
        for stage in stages
        for module in stage
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    if missing := [module for stage in stages for module in stage if module not in ran]:
        raise ValueError(f"{missing[0]} is no part of what was run")


def between(layers: Sequence[Stage], run: Run, generator: torch.Generator) -> None:
    """Scale the layers of a chain against each other so that all change at the same relative rate.

    A layer's rate is the root mean square of ∂ℓ/∂W as a share of that of W, where ℓ = Σ η·z with
    η ~ N(0, 1) drawn from `generator` for each of the outputs z. Scaling a layer by s and undoing
    it behind leaves z as it was and divides the layer's rate by s², so that s = √(rate / geometric
    mean of the rates) makes them equal at once. Biases, and any `Scalable` between the layers,
    are scaled with what lies before them.
    """
    rates = iter(found := _rates(_stages(affine(layers)), run, generator))
    middle = sum(math.log(rate) for rate in found) / len(found)
    before = 1.0
    with torch.no_grad():
        for one in layers:
            if isinstance(one, Scalable):
                one.scale.mul_(before)
                continue
            (stage,), rate = _stages([one]), next(rates)
            scale = math.exp(0.5 * (math.log(rate) - middle))
            before *= scale
            for module in stage:
                module.weight.mul_(scale)
                if module.bias is not None:
                    module.bias.mul_(before)


def rates(layers: Sequence[Stage], run: Run, generator: torch.Generator) -> list[float]:
    """How fast each layer changes, relative to its weights: see `between`."""
    return _rates(_stages(affine(layers)), run, generator)


def _stages(layers: Sequence[Stage]) -> list[tuple[Any, ...]]:
    stages = [one if isinstance(one, tuple) else (one,) for one in layers]
    for stage in stages:
        for module in stage:
            if not isinstance(module, Affine):
                raise TypeError(f"a {type(module).__name__} cannot be rescaled")
    return stages


def _rates(stages: Sequence[tuple[Any, ...]], run: Run, generator: torch.Generator) -> list[float]:
    weights = [module.weight for stage in stages for module in stage]
    with torch.enable_grad(), _asking(weights):
        outputs = run()
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        loss = sum(
            (torch.randn(z.shape, generator=generator).to(z.device) * z.float()).sum()
            for z in outputs
        )
        found = iter(torch.autograd.grad(loss, weights))  # type: ignore[arg-type]
    out = []
    for stage in stages:
        slope = sum(float(next(found).double().square().sum()) for _ in stage)
        size = sum(float(module.weight.detach().double().square().sum()) for module in stage)
        out.append(math.sqrt(max(slope, _TINY) / max(size, _TINY)))
    return out


@contextmanager
def _asking(weights: Sequence[Tensor]) -> Iterator[None]:
    """Ask for gradients of `weights`, whether or not they are trained."""
    asked = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, was in zip(weights, asked, strict=True):
            weight.requires_grad_(was)


def _unit(module: Any, output: Tensor, level: float) -> Tensor:
    """Scale the rows of a layer, and give what it would have given."""
    axis = output.ndim - 1 if isinstance(module, nn.Linear) else 1
    values = output.transpose(0, axis).flatten(1).double()
    mean, spread = values.mean(1), values.std(1, correction=0)
    if values.shape[1] < _FEW:
        spread = spread.square().mean().sqrt().expand_as(spread)
    dead = spread <= 1e-6 * values.abs().amax(1).clamp(min=_TINY)
    scale = torch.where(dead, 1.0, 1.0 / spread.clamp(min=_TINY))
    weight = module.weight
    weight.mul_(scale.to(weight.dtype).reshape(-1, *(1,) * (weight.ndim - 1)))
    shift = torch.zeros_like(mean)
    if module.bias is not None:
        shift = level - mean * scale
        module.bias.copy_(module.bias * scale + shift)
    shape = [1] * output.ndim
    shape[axis] = -1
    return (output * scale.reshape(shape) + shift.reshape(shape)).to(output.dtype)
