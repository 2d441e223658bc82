"""Gradient descent that weights mini-batches by their agreement with another one (chapter 8).

This file needs nothing but PyTorch, so that it can be lifted out of here as it is. In every step k
mini-batches each give the gradient of their mean loss. The first one validates: its gradient g_v is
not followed, but weights the others' gradients g_i by ω_i = ⟨g_v, g_i⟩ / (|g_i|² / λ̂ + μ̂), divided
by Σ|ω_i| (equation 8.10). The parameters follow Σ ω̂_i g_i (equation 8.11).

Gradients are computed one after the other. Because a weight depends on no other one, three flat
buffers of the size of the parameters are enough, however many mini-batches there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

Loss = Callable[[], Tensor]
"""Runs the network on one mini-batch and returns its mean loss."""

Solver = Literal["diagonal", "exact", "uniform"]

_ALIGNED = 16


class Statistics(Protocol):
    """Running statistics that several processes keep in agreement (`spread.SpreadStatistics`)."""

    def begin(self) -> None:
        """Before the mini-batches of a step."""

    def merge(self, earlier: int, own: int, later: int) -> None:
        """After this process' `own` mini-batches; there are as many before and after them."""


@dataclass(frozen=True)
class Weighting:
    """How the mini-batches of a step were weighted; tensors are float64 on the CPU.

    `weights` ω̂ as they were applied, and `agreement`, the cosine between a gradient and that of the
    validation mini-batch, are `[k − 1]`, or `[k − 1, layers]` with weights per layer; `losses`
    `[k]` begin with the validation mini-batch. `left_out` are the mini-batches (from 0, which
    validates) whose loss or gradient was not finite; their weights are 0. `skipped` says why
    nothing may move, and is empty where the step is to be taken.
    """

    weights: Tensor
    agreement: Tensor
    losses: Tensor
    left_out: tuple[int, ...] = ()
    skipped: str = ""

    @property
    def negative(self) -> float:
        """Share of the weights that are below zero."""
        return float((self.weights < 0).double().mean())


class BilevelGradient:
    """Puts Σ ω̂_i g_i into `.grad` of `parameters`, for an optimiser of any kind to follow.

    `solver` "diagonal" is equation 8.10; "exact" solves the linear system 8.8, for which it keeps
    all k gradients; "uniform" gives every mini-batch but the first 1 / (k − 1): plain SGD whose
    batch norm sees the same mini-batches, at the same cost. Without `normalize` weights are not
    divided by Σ|ω_i| (table 8.1 a). With `layers`, groups of parameters that together are all of
    them (see `layers_of`), each has weights of its own (table 8.1 b). With `skip_disagreeing`
    nothing moves where no weight is positive; otherwise that is a step of full size uphill.

    Rules for what goes wrong: a mini-batch whose loss or gradient is not finite gets the weight 0.
    Where that is the validation mini-batch, or all weights are 0, nothing is to move: gradients are
    zero and `Weighting.skipped` says why. If no mini-batch is left, FloatingPointError is raised.

    With `spread` the mini-batches of a step are shared out among the processes of the default
    group, the first ones to the first: each passes its own, the very first one validates, and all
    get the gradient that one process with all of them would get. Parameters have to begin equal on
    all, without DistributedDataParallel around them; `statistics` keeps those of batch norm equal.

    Raises ValueError for settings that cannot be.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lam: float = 1.0,
        mu: float = 0.01,
        solver: Solver = "diagonal",
        normalize: bool = True,
        layers: Iterable[Iterable[Tensor]] | None = None,
        skip_disagreeing: bool = False,
        spread: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        if not (lam > 0 and mu >= 0):
            raise ValueError(f"λ̂ has to be above 0 and μ̂ at least 0, not {lam:g} and {mu:g}")
        if solver not in ("diagonal", "exact", "uniform"):
            raise ValueError(f"there is no solver '{solver}'")
        parameters = list(parameters)
        groups = [parameters] if layers is None else [list(layer) for layer in layers]
        self._parameters = [p for group in groups for p in group]
        if sorted(map(id, self._parameters)) != sorted(map(id, parameters)):
            raise ValueError("the layers have to contain every parameter once")
        kinds = {(p.device, p.dtype) for p in parameters}
        if len(kinds) != 1 or not parameters[0].is_floating_point():
            raise ValueError("the parameters have to be real numbers of one type on one device")
        ends = list(accumulate(sum(map(_room, group)) for group in groups))
        self._layers = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
        self._per_layer = layers is not None
        self._lam, self._mu, self._solver = lam, mu, solver
        self._normalize = normalize or solver == "uniform"
        self._skip_disagreeing = skip_disagreeing
        self._spread = spread
        self._statistics = statistics
        self._buffers: Tensor | None = None
        self._flats: list[_Flat] = []

    @torch.no_grad()
    def __call__(self, losses: Sequence[Loss]) -> Weighting:
        """Compute the gradients of `losses`, of which the first validates, and combine them.

        Each is called once, in order. Raises ValueError for fewer than two (over all processes),
        FloatingPointError where none has a finite loss and gradient.
        """
        if self._statistics is not None:
            self._statistics.begin()
        rows, total, kept = self._stream(losses)
        table, first = self._collect(rows)
        if len(table) < 2:
            raise ValueError("it takes one mini-batch that validates and at least one to follow")
        if self._statistics is not None:
            self._statistics.merge(first, len(rows), len(table) - first - len(rows))
        count = len(self._layers)
        squares, dots = table[:, 1 : 1 + count], table[1:, 1 + count :]
        finite = table[:, : 1 + count].isfinite().all(1)
        if not finite.any():
            raise FloatingPointError("no mini-batch has a finite loss and gradient")
        if self._solver == "exact":
            kept = self._all_kept(kept, max(first - 1, 0), len(dots))
            kept[~finite[1:].to(kept.device)] = 0
            weights = self._solved(kept, dots)
        else:
            weights = self._weights(dots, squares[1:])
        weights[~finite[1:]] = 0
        if not finite[0]:
            weights.zero_()
        skipped = self._reason(weights, bool(finite[0]))
        if self._normalize:
            sums = weights.abs().sum(0)
            shares = torch.where(sums > 0, 1 / sums, 0.0)
        else:
            shares = torch.ones(count).double()
        self._follow(total, kept, weights, shares, skipped)
        weights *= shares
        cosines = (dots / (squares[1:] * squares[0]).sqrt()).nan_to_num(0, 0, 0)
        return Weighting(
            weights if self._per_layer else weights[:, 0],
            cosines if self._per_layer else cosines[:, 0],
            table[:, 0],
            tuple((~finite).nonzero()[:, 0].tolist()),
            skipped,
        )

    def _stream(self, losses: Sequence[Loss]) -> tuple[Tensor, _Flat, Tensor]:
        """The gradients of this process' mini-batches, one after the other.

        Gives a row for each, float64 on the CPU: its loss, then for each layer |g_i|² and
        ⟨g_v, g_i⟩; Σ ω_i g_i, not normalised yet; and the gradients themselves where they are
        needed again, `[N, values]`.
        """
        validates = int(not self._spread or dist.get_rank() == 0)
        exact = self._solver == "exact"
        buffers = self._allocated(max(len(losses) - validates, 0) if exact else 1)
        validation, total = self._flats[:2]
        total.values.zero_()
        rows = []
        received = not self._spread
        for number, loss in enumerate(losses):
            place = 2 + (number - validates) * exact
            flat = validation if number < validates else self._flats[place]
            value = flat.backward(loss, self._parameters)
            if not received:
                # Only now, so that a process need not wait for what validates to begin.
                dist.broadcast(validation.values, 0)
                received = True
            g, v = flat.values, validation.values
            products = [torch.dot(g[layer], g[layer]) for layer in self._layers]
            products += [torch.dot(v[layer], g[layer]) for layer in self._layers]
            rows.append(torch.stack([value.to(g), *products]).cpu().double())
            if number < validates or exact:
                continue
            squares, dots = rows[-1][1:].chunk(2)
            if not (rows[-1][0].isfinite() and squares.isfinite().all()):
                continue
            weights = self._weights(dots, squares).tolist()
            for layer, weight in zip(self._layers, weights, strict=True):
                if math.isfinite(weight):
                    total.values[layer].add_(g[layer], alpha=weight)
        if not received:
            dist.broadcast(validation.values, 0)
        width = 1 + 2 * len(self._layers)
        table = torch.stack(rows) if rows else torch.empty(0, width, dtype=torch.float64)
        return table, total, buffers[2:]

    def _weights(self, dots: Tensor, squares: Tensor) -> Tensor:
        """Equation 8.10 before normalisation."""
        if self._solver == "uniform":
            return torch.ones_like(dots)
        below = squares / self._lam + self._mu
        return torch.where(below > 0, dots / below, 0.0)

    def _solved(self, gradients: Tensor, dots: Tensor) -> Tensor:
        """The solution of equation 8.8, of least norm where there are several."""
        solutions = []
        for number, layer in enumerate(self._layers):
            g = gradients[:, layer]
            gram = (g @ g.T).cpu().double()
            system = gram / self._lam + self._mu * torch.eye(len(gram), dtype=gram.dtype)
            inverse = torch.linalg.pinv(system, hermitian=True)
            solutions.append(inverse @ dots[:, number].nan_to_num(0, 0, 0))
        return torch.stack(solutions, 1)

    def _reason(self, weights: Tensor, finite: bool) -> str:
        """Why the step is not to be taken; empty where it is."""
        if not finite:
            return "the loss or gradient of the validation mini-batch is not finite"
        if not weights.any():
            return "all weights are zero"
        if self._skip_disagreeing and not (weights > 0).any():
            return "all mini-batches disagree with the one that validates"
        return ""

    def _follow(
        self, total: _Flat, kept: Tensor, weights: Tensor, shares: Tensor, skipped: str
    ) -> None:
        """Leave the combined gradient in `.grad`."""
        if skipped:
            total.values.zero_()
        elif self._solver == "exact":
            for number, layer in enumerate(self._layers):
                applied = (weights[:, number] * shares[number]).to(kept)
                torch.mv(kept[:, layer].T, applied, out=total.values[layer])
        else:
            if self._spread:
                dist.all_reduce(total.values)
            for layer, share in zip(self._layers, shares.tolist(), strict=True):
                total.values[layer].mul_(share)
        total.lend(self._parameters)

    def _allocated(self, gradients: int) -> Tensor:
        """Flat buffers: the validation gradient, the sum, and `gradients` others; kept for later.

        Parameters may have been moved to another device since.
        """
        like = self._parameters[0]
        size = self._layers[-1].stop
        found = self._buffers
        if found is None or len(found) < 2 + gradients or found.device != like.device:
            found = torch.zeros(2 + gradients, size, dtype=like.dtype, device=like.device)
            self._buffers = found
            self._flats = [_Flat(values, self._parameters) for values in found]
        return found[: 2 + gradients]

    def _collect(self, rows: Tensor) -> tuple[Tensor, int]:
        """The rows of all processes in order, and how many are those of processes before."""
        if not self._spread:
            return rows, 0
        rank, device = dist.get_rank(), self._parameters[0].device
        counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
        counts[rank] = len(rows)
        dist.all_reduce(counts)
        several = counts.tolist()
        if not several[0]:
            raise ValueError("the first process has no mini-batch, and has to validate")
        mine = torch.zeros(max(several), rows.shape[1], dtype=rows.dtype, device=device)
        mine[: len(rows)] = rows
        theirs = [torch.empty_like(mine) for _ in several]
        dist.all_gather(theirs, mine)
        found = [one[:n] for one, n in zip(theirs, several, strict=True)]
        return torch.cat(found).cpu(), sum(several[:rank])

    def _all_kept(self, own: Tensor, first: int, count: int) -> Tensor:
        """The training gradients of all processes, of which those from `first` on are here."""
        if not self._spread:
            return own
        everybody = own.new_zeros(count, self._layers[-1].stop)
        everybody[first : first + len(own)] = own
        dist.all_reduce(everybody)
        return everybody


class BilevelSGD(torch.optim.SGD):
    """SGD with momentum whose gradient is that of `BilevelGradient`, which see for the rest.

    `weight_decay` is coupled, and acts on the weights of convolutions and linear layers alone
    (parameters of two dimensions and more), unless `params` are groups with settings of their own.

        optimizer = BilevelSGD(network.parameters(), lr=0.01, weight_decay=5e-4)
        optimizer.step([lambda x=x, y=y: F.cross_entropy(network(x), y) for x, y in mini_batches])
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.01,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        lam: float = 1.0,
        mu: float = 0.01,
        solver: Solver = "diagonal",
        normalize: bool = True,
        layers: Iterable[Iterable[Tensor]] | None = None,
        skip_disagreeing: bool = False,
        spread: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        groups: list[Any] = list(params)
        if all(isinstance(one, Tensor) for one in groups):
            groups = [
                {"params": [p for p in groups if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in groups if p.ndim <= 1], "weight_decay": 0.0},
            ]
            groups = [group for group in groups if group["params"]]
        super().__init__(
            groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
        self._gradient = BilevelGradient(
            [p for group in self.param_groups for p in group["params"]],
            lam=lam,
            mu=mu,
            solver=solver,
            normalize=normalize,
            layers=layers,
            skip_disagreeing=skip_disagreeing,
            spread=spread,
            statistics=statistics,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises ValueError: all parameters are given when the optimiser is made."""
        if hasattr(self, "_gradient"):
            raise ValueError("parameters cannot be added to a BilevelSGD later")
        super().add_param_group(param_group)

    def weigh(self, losses: Sequence[Loss]) -> Weighting:
        """Put the combined gradient into `.grad` and move nothing.

        `step()` without losses then follows it, for instance after it was clipped. It is not to be
        called where `Weighting.skipped` says so: momentum and weight decay would still move.
        """
        return self._gradient(losses)

    @torch.no_grad()
    def step(self, losses: Sequence[Loss] | None = None) -> Weighting | None:  # type: ignore[override]
        """Weigh the mini-batches whose losses are given (the first validates) and take the step.

        A step that is skipped moves neither parameters nor momentum.
        """
        weighting = None if losses is None else self.weigh(losses)
        if weighting is None or not weighting.skipped:
            super().step()
        return weighting


def layers_of(module: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a network by layer, for weights per layer.

    A layer is a module that has a weight of two dimensions or more, with its bias, and with what
    follows it up to the next one: scales and shifts of batch norm.
    """
    layers: list[list[nn.Parameter]] = []
    vectors: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for part in module.modules():
        own = [p for p in part.parameters(recurse=False) if p not in seen]
        seen.update(own)
        if any(p.ndim > 1 for p in own):
            layers.append([*vectors, *own])
            vectors = []
        elif layers:
            layers[-1].extend(own)
        else:
            vectors.extend(own)
    return layers or [vectors]


class _Flat:
    """A gradient in one piece of memory, and views of it in the shapes of the parameters."""

    def __init__(self, values: Tensor, parameters: Sequence[Tensor]) -> None:
        self.values = values
        start = values.storage_offset()
        self._views = []
        for p in parameters:
            stride = torch.empty_like(p, device="meta").stride()
            self._views.append(values.as_strided(p.shape, stride, start))
            start += _room(p)

    def lend(self, parameters: Sequence[Tensor]) -> None:
        """Make this the gradient of all parameters that want one."""
        for p, view in zip(parameters, self._views, strict=True):
            p.grad = view if p.requires_grad else None

    def backward(self, loss: Loss, parameters: Sequence[Tensor]) -> Tensor:
        """Fill with the gradient of `loss`; gives its value."""
        self.values.zero_()
        self.lend(parameters)
        with torch.enable_grad():
            value = loss()
        torch.autograd.backward(value)
        for p, view in zip(parameters, self._views, strict=True):
            # Whoever sets gradients to None in between, and gradients that are sparse.
            if p.grad is not view and p.grad is not None:
                view.copy_(p.grad.to_dense() if p.grad.is_sparse else p.grad)
        return value.detach()


def _room(p: Tensor) -> int:
    """How many values a parameter takes in a buffer, so that each begins where reading is quick."""
    return -(-p.numel() // _ALIGNED) * _ALIGNED
