"""Receptive fields: which part of the input a cell of a layer sees.

Computed from the kernels, strides and paddings that the input goes through, where the network
consists of nothing but convolutions, poolings and what is done to each cell by itself; measured by
gradients where it does not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from selfsup_cli.models import Backbone
from selfsup_cli.models.backbone import Spec
from selfsup_cli.models.building import construct

Box = tuple[tuple[int, int], ...]
"""For each axis the first pixel and the one after the last."""

# What each cell of a map goes through by itself, or with those of other channels and images.
_CELLWISE = {
    "relu", "relu_", "relu6", "relu6_", "hardtanh", "leaky_relu", "silu", "gelu", "hardswish",
    "sigmoid", "tanh", "batch_norm", "local_response_norm", "dropout", "add", "add_", "sub",
    "mul", "mul_", "float", "to", "contiguous", "__add__", "__iadd__", "__mul__", "__radd__",
    "__rmul__", "identity",
}  # fmt: skip
_CONVOLUTIONS = {"conv2d", "conv3d"}
_POOLS = {"max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d"}
# What takes a tensor's type and device, and none of its values.
_MADE = {"new_full", "new_zeros", "new_ones", "new_empty", "zeros_like", "ones_like"}


@dataclass(frozen=True)
class Axis:
    """Along one axis, cell i sees `size` pixels from `start` + i · `jump` on, where they exist."""

    start: float
    jump: float
    size: float

    def __call__(self, cell: int, length: int) -> tuple[int, int]:
        """What it sees of an input of `length` pixels."""
        first = self.start + cell * self.jump
        low, high = max(0.0, first), min(float(length), first + self.size)
        return math.floor(low), math.ceil(high)


@dataclass(frozen=True)
class ReceptiveField:
    """What cells of a layer see of inputs of `length` pixels (and frames): an axis for each.

    `cells` are the layer's along each of them; there are none in layers that have no place in the
    input. `measured` says that it was found by gradients.
    """

    axes: tuple[Axis, ...]
    length: tuple[int, ...]
    cells: tuple[int, ...]
    measured: bool = False

    def box(self, place: int) -> Box:
        """What a cell sees, by its number in the flattened map; the whole input without cells."""
        if not self.cells:
            return tuple((0, length) for length in self.length)
        where = []
        for count in reversed(self.cells):
            place, one = divmod(place, count)
            where.append(one)
        return tuple(
            axis(cell, length)
            for axis, cell, length in zip(self.axes, reversed(where), self.length, strict=True)
        )

    @property
    def size(self) -> tuple[int, ...]:
        """How much a cell sees along each axis, at most all of the input."""
        if not self.cells:
            return self.length
        return tuple(
            min(math.ceil(axis.size), length)
            for axis, length in zip(self.axes, self.length, strict=True)
        )

    def window(self, place: int) -> Box:
        """The same as `box`, of `size` where the border of the input does not cut it off."""
        if not self.cells:
            return self.box(place)
        where = []
        for count in reversed(self.cells):
            place, one = divmod(place, count)
            where.append(one)
        found = []
        for axis, cell, length in zip(self.axes, reversed(where), self.length, strict=True):
            if axis.size >= length:
                found.append((0, length))
            else:
                first = math.floor(axis.start + cell * axis.jump)
                found.append((first, first + math.ceil(axis.size)))
        return tuple(found)


class UnknownOperationError(Exception):
    """Something whose receptive field is not known stands between the input and a layer."""


def receptive_field(network: Backbone, layer: str) -> ReceptiveField:
    """Of what `network` is built for: computed if that can be, measured otherwise."""
    try:
        return computed(network, layer)
    except UnknownOperationError:
        return measured(network, layer)


# Computed


def computed(network: Backbone, layer: str) -> ReceptiveField:
    """From kernels, strides and paddings. Raises UnknownOperationError where these do not tell."""
    # A twin without values runs in no time.
    twin = construct(Spec.model_validate(network.spec, strict=False)).eval()
    shape = network.input.shape
    x = torch.zeros(2, *shape, device="meta")
    trace = _Trace(x)
    with torch.no_grad(), trace:
        found = twin.features(x, [layer])[layer]
    if found.ndim != x.ndim:
        return ReceptiveField((), shape[1:], ())
    axes = trace.axes(found) or tuple(Axis(0, 0, length) for length in shape[1:])
    return ReceptiveField(axes, shape[1:], tuple(found.shape[2:]))


class _Trace(TorchFunctionMode):
    """Follows an input through convolutions and poolings; `axes` gives what a tensor's cells see.

    None stands for all of the input.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        start = tuple(Axis(0, 1, 1) for _ in x.shape[2:])
        # The tensors are kept, so that no other gets the number of one that is gone.
        self.seen: dict[int, tuple[Tensor, tuple[Axis, ...] | None]] = {id(x): (x, start)}

    def axes(self, x: Tensor) -> tuple[Axis, ...] | None:
        return self.seen[id(x)][1]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [one for one in _tensors((*args, *kwargs.values())) if id(one) in self.seen]
        # What happens in place would find its input changed.
        before = [self.seen[id(one)][1] for one in given]
        dims = [one.ndim for one in given]
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if given and isinstance(result, Tensor) and name not in _MADE:
            self.seen[id(result)] = (result, self._after(name, args, kwargs, before, dims, result))
        return result

    def _after(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        before: list[tuple[Axis, ...] | None],
        dims: list[int],
        result: Tensor,
    ) -> tuple[Axis, ...] | None:
        known = [one for one in before if one is not None]
        if not known:
            return None
        if name in _CONVOLUTIONS:
            told = _named(
                ("input", "weight", "bias", "stride", "padding", "dilation"), args, kwargs
            )
            return _slid(known[0], told["weight"].shape[2:], told.get("stride", 1),
                         told.get("padding", 0), told.get("dilation", 1))  # fmt: skip
        if name in _POOLS:
            # The fifth is something else of means, which have no dilation.
            told = _named(("input", "kernel_size", "stride", "padding"), args, kwargs)
            told |= _named(("dilation",), args[4:], {}) if name.startswith("max") else {}
            kernel = told["kernel_size"]
            return _slid(known[0], kernel, told.get("stride") or kernel, told.get("padding", 0),
                         told.get("dilation", 1))  # fmt: skip
        if name == "pad":
            told = _named(("input", "pad", "mode", "value"), args, kwargs)
            return _padded(known[0], told["pad"])
        if name in ("flatten", "linear", "mean"):
            return None
        alike = result.ndim == max(dims) and len(known) == len(before)
        if name in _CELLWISE and alike:
            return _joined(known)
        if name == "cat" and alike and (kwargs.get("dim", 0) or (*args, 0)[1]) == 1:
            return _joined(known)
        raise UnknownOperationError(name)


def _named(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names."""
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    flat = []
    for value in values:
        if isinstance(value, Tensor):
            flat.append(value)
        elif isinstance(value, list | tuple):
            flat += _tensors(value)
    return flat


def _slid(
    axes: tuple[Axis, ...], kernel: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Axis, ...]:
    """After a window slid over it."""
    if isinstance(padding, str):
        raise UnknownOperationError(f"padding {padding}")
    count = len(axes)
    each = [
        (one,) * count if isinstance(one, int) else tuple(one) * (count // len(tuple(one)))
        for one in (kernel, stride, padding, dilation)
    ]
    return tuple(
        Axis(axis.start - p * axis.jump, axis.jump * s, axis.size + (k - 1) * d * axis.jump)
        for axis, k, s, p, d in zip(axes, *each, strict=True)
    )


def _padded(axes: tuple[Axis, ...], pad: Sequence[int]) -> tuple[Axis, ...]:
    """After `pad` zeros, given as to `F.pad`: the last axis first, before and after it."""
    before = [*pad[::2], *[0] * (len(axes) - len(pad) // 2)][::-1]
    return tuple(
        Axis(axis.start - zeros * axis.jump, axis.jump, axis.size)
        for axis, zeros in zip(axes, before[-len(axes) :], strict=True)
    )


def _joined(found: Sequence[tuple[Axis, ...]]) -> tuple[Axis, ...]:
    """What the sum of maps sees."""
    for one, other in pairwise(found):
        if any(a.jump != b.jump for a, b in zip(one, other, strict=True)):
            raise UnknownOperationError("maps of different strides")
    return tuple(
        Axis(
            low := min(axis.start for axis in axes),
            axes[0].jump,
            max(axis.start + axis.size for axis in axes) - low,
        )
        for axes in zip(*found, strict=True)
    )


# Measured


def measured(network: Backbone, layer: str) -> ReceptiveField:
    """By the gradient of cells in the first, second, last but one and last row and column.

    So that none is missed, ReLUs pass everything and maxima are means. Where a cell in the middle
    does not see what these four say (windows that are no grid, attention), it is all of the input.
    """
    twin = copy.deepcopy(network).double().cpu().eval().requires_grad_(False)
    for weight in twin.parameters():
        if not weight.any():  # as of a residual block that is to begin as the identity
            weight.fill_(1)
    shape = network.input.shape
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=g, dtype=torch.float64).requires_grad_()
    with torch.enable_grad(), _Smooth():
        found = twin.features(x, [layer])[layer]
    cells = tuple(found.shape[2:])
    if found.ndim != x.ndim:
        return ReceptiveField((), shape[1:], (), measured=True)
    # A sum over channels would be constant behind a norm over them.
    weights = torch.randn(found.shape[:2], generator=g, dtype=torch.float64)

    def seen(places: Sequence[int]) -> Box:
        cell = found
        for place in places:
            cell = cell[:, :, place]
        (gradient,) = torch.autograd.grad((cell * weights).sum(), x, retain_graph=True)
        strength = gradient.abs().sum((0, 1))
        return tuple(_extent(strength, axis) for axis in range(len(cells)))

    last = [count - 1 for count in cells]
    first, second = seen([0] * len(cells)), seen([min(1, end) for end in last])
    final, before = seen(last), seen([max(0, end - 1) for end in last])
    axes = []
    for k, length in enumerate(shape[1:]):
        low, high = final[k][0], first[k][1]
        if second[k][1] < length and last[k]:
            jump = second[k][1] - high
        elif before[k][0] > 0 and last[k]:
            jump = low - before[k][0]
        else:
            jump = length
        start = low - last[k] * jump
        axes.append(Axis(start, jump, high - start))
    one = ReceptiveField(tuple(axes), shape[1:], cells, measured=True)
    middle = [count // 2 for count in cells]
    number = sum(m * math.prod(cells[k + 1 :]) for k, m in enumerate(middle))
    if one.box(number) != seen(middle):
        whole = tuple(Axis(0, 0, length) for length in shape[1:])
        return ReceptiveField(whole, shape[1:], cells, measured=True)
    return one


def _extent(strength: Tensor, axis: int) -> tuple[int, int]:
    others = [k for k in range(strength.ndim) if k != axis]
    along = strength.sum(others) if others else strength
    hit = along.nonzero().flatten()
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, len(along))


class _Smooth(TorchFunctionMode):
    """ReLUs that pass everything, and means in place of maxima: every path has a gradient."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_"):
            return args[0] if args else kwargs["input"]
        if name in ("max_pool2d", "max_pool3d"):
            names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
            told = _named(names, args, kwargs)
            mean = F.avg_pool2d if name == "max_pool2d" else F.avg_pool3d
            if told.get("dilation", 1) in (1, (1, 1), (1, 1, 1)):
                return mean(
                    told["input"],
                    told["kernel_size"],
                    told.get("stride"),
                    tuple(told["padding"])
                    if isinstance(told.get("padding"), list)
                    else told.get("padding", 0),
                    bool(told.get("ceil_mode", False)),
                )
        return func(*args, **kwargs)


def shapes(network: Backbone, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shape of an input's activations in `layers`: channels, then cells where there are any."""
    twin = construct(Spec.model_validate(network.spec, strict=False)).eval()
    x = torch.zeros(2, *network.input.shape, device="meta")
    with torch.no_grad():
        found = twin.features(x, list(layers))
    return {name: tuple(one.shape[1:]) for name, one in found.items()}
