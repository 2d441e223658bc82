"""Guided backpropagation: which pixels make units of a network active (thesis, section 5.3).

A gradient passes a ReLU only where the activation and the gradient itself are positive: of all that
a unit depends on, what speaks for it is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone

Unit = Literal["all", "strongest"] | int
"""A channel of a layer by its number, the most active one of a clip, or all."""

_IN_PLACE = (torch.relu_, torch.Tensor.relu_)
_RELUS = (F.relu, torch.relu, torch.Tensor.relu, *_IN_PLACE)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        active: Tensor = ctx.saved_tensors[0]
        return gradients[0].clamp(min=0) * active


class GuidedReLUs(TorchFunctionMode):
    """While it is active, every ReLU is one that backpropagates as above; no network is changed.

    It catches the functions, which modules call too, with their in-place forms. `count` says how
    many were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        self.count += 1
        x: Tensor = args[0] if args else kwargs["input"]
        out = _GuidedReLU.apply(x)
        return x.copy_(out) if func in _IN_PLACE or kwargs.get("inplace") else out


def guided_gradient(
    network: Backbone, clips: Tensor, *, layer: str | None = None, unit: Unit = "all"
) -> Tensor:
    """The guided gradient of units of `layer` with respect to `clips` float `[B, 3, T, H, W]`.

    By default the layer is the network's embedding. What is differentiated is half the sum of the
    squared activations `a` of the chosen units over time and space, so that each place counts as
    much as it is active there (∂ ½a² = a ∂a): those of all channels (`"all"`), of the channel where
    that sum is largest in the clip (`"strongest"`), or of one channel by its number. Batch norm
    uses its running statistics. The thesis does not say whose gradient it shows beyond "the model's
    final decision", which a network without its head does not make.

    Raises InputError for a layer or a channel that the network does not have.
    """
    layer = layer or network.embedding
    with _evaluating(network), torch.enable_grad():
        clips = clips.detach().requires_grad_()
        relus = GuidedReLUs()
        with relus:
            active = network.features(clips, [layer])[layer]
        if not relus.count:
            raise ValueError(f"{network.arch} calls no ReLU that could guide the gradient")
        (gradient,) = torch.autograd.grad(_energy(active, layer, unit), clips)
    return gradient


def active_pixels(gradient: Tensor) -> Tensor:
    """What is shown of a gradient `[..., 3, T, H, W]`: |gradient − median of its frame|.

    The median is that of all values of a frame, its three colours together (the mean of the two in
    the middle). The result has the same shape and is never negative.
    """
    frames = gradient.movedim(-4, -3).flatten(-3)
    median = frames.quantile(0.5, dim=-1)
    return (gradient - median[..., None, :, None, None]).abs()


def _energy(active: Tensor, layer: str, unit: Unit) -> Tensor:
    """½ Σ a² of the chosen channels of activations `[B, C, …]`, summed over the clips."""
    energy = active.flatten(2).square().sum(2) / 2 if active.ndim > 2 else active.square() / 2
    if unit == "all":
        return energy.sum()
    if unit == "strongest":
        return energy.amax(1).sum()
    channels = energy.shape[1]
    if not 0 <= unit < channels:
        raise InputError(
            f"--unit {unit}: {layer} has {channels} channels, counted from 0", kind="unit"
        )
    return energy[:, unit].sum()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
