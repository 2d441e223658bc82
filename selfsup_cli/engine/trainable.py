"""What the engine trains, and what it hands to it in every step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfsup_cli.engine.bilevel import BilevelSGD, Loss, Weighting
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError, TrainingError
from selfsup_cli.randomness import generator

log = logging.getLogger("selfsup")

Batch = dict[str, Tensor]


class NotFiniteError(TrainingError):
    """A loss is NaN or infinite. Raised before it moves anything; of several losses in a step,
    those before it have moved what is theirs."""


class Trainable(nn.Module):
    """Anything the engine can train: a pretext task, a GAN, a set of linear probes.

    `networks` names the sub-modules whose gradients must agree between processes; the engine wraps
    them in DistributedDataParallel. `step` computes losses, performs its own updates through
    `update(loss)` (several optimisers may alternate) and returns a flat dict of scalars.
    """

    networks: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    """Optimisers whose learning rate no schedule multiplies."""
    begins: Mapping[str, int] = MappingProxyType({})
    """Steps before which an optimiser does not move, and at which its schedule begins."""
    stage: str = ""
    """What the last step was part of, where training has several stages; for the progress."""

    def periods(self, epoch: int, total: int) -> Mapping[str, tuple[int, int]]:
        """The steps (first, end) of `total` in which an optimiser moves, `epoch` being those of an
        epoch; its schedule is as long. Of those that move all the time nothing is said.

        Raises InputError where so many steps leave no room for what is to be done.
        """
        return {name: (first, total) for name, first in self.begins.items()}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers, by the names that `step` passes to `update`."""
        raise NotImplementedError

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        """One pass over `batch`: losses, updates, and the scalars to log."""
        raise NotImplementedError

    def memory(self) -> dict[str, Tensor]:
        """What steps depend on besides weights and optimisers, for checkpoints: tensors."""
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Go on with what `memory` gave."""


@dataclass
class Update:
    """Performs the updates of one step: backward, clipping, schedule, optimiser.

    With `parts > 1` a batch passes through the network in parts; gradients are averaged and the
    optimiser moves at the last one. A loss moves only the parameters of the optimisers it is given
    for, even where it depends on others, so that networks can play against each other.
    """

    optimizers: Mapping[str, torch.optim.Optimizer]
    factor: Callable[[int], float]
    hardware: Hardware
    seed: int
    rank: int = 0
    clip_grad: float | None = None
    parts: int = 1
    step: int = 0
    part: int = 0
    scaler: torch.amp.GradScaler | None = None
    constant: Sequence[str] = ()
    later: Mapping[str, Callable[[int], float]] = field(default_factory=dict)
    periods: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lr: dict[str, float] = field(default_factory=dict)
    _base: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._base = {
            name: [float(group["lr"]) for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }

    @property
    def device(self) -> torch.device:
        """Where batches and networks live."""
        return self.hardware.device

    def generator(self, purpose: str) -> torch.Generator:
        """Randomness of this step, a function of (seed, step, part, rank, purpose) alone."""
        return generator(
            self.seed, self.step, self.part, self.rank, purpose, device=str(self.device)
        )

    def autocast(self) -> AbstractContextManager[object]:
        """The precision in which networks run their forward pass."""
        return self.hardware.autocast()

    def moves(self, name: str) -> bool:
        """Whether an optimiser is to move in this step."""
        first, end = self.periods.get(name, (0, self.step + 1))
        return first <= self.step < end

    def __call__(self, loss: Tensor, *names: str) -> None:
        """Back-propagate `loss` and, at the last part, move the optimisers `names` ("main").

        Raises NotFiniteError before anything is changed when the loss is NaN or infinite.
        """
        self.together((loss, names or ("main",)))

    def together(self, *losses: tuple[Tensor, tuple[str, ...]]) -> None:
        """Back-propagate each loss to its own optimisers, and only then move them all.

        For networks that play against each other on one forward pass: none of the losses sees what
        another one moved. Raises NotFiniteError before anything is changed when one of them is NaN
        or infinite.
        """
        for loss, names in losses:
            value = loss.item()
            if not math.isfinite(value):
                raise NotFiniteError(
                    f"the loss ({', '.join(names)}) became {value} in step {self.step + 1}",
                    kind="not-finite",
                    hint="lower the learning rate (--lr), or clip the gradient (--clip-grad 1)",
                )
        moving = [name for _, names in losses for name in names]
        if self.part == 0:
            for name in moving:
                self.optimizers[name].zero_grad(set_to_none=True)
        for number, (loss, names) in enumerate(losses, 1):
            scaled = loss / self.parts if self.parts > 1 else loss
            if self.scaler is not None:
                scaled = self.scaler.scale(scaled)
            # Naming the parameters costs a little, and where all are meant it is of no use.
            moved = None if len(names) == len(self.optimizers) else self._parameters(names)
            scaled.backward(  # type: ignore[no-untyped-call]
                inputs=moved, retain_graph=number < len(losses)
            )
        if self.part == self.parts - 1:
            for name in moving:
                self._move(name, self.optimizers[name])

    def weighed(self, losses: Sequence[Loss], name: str = "main") -> Weighting:
        """Weigh the mini-batches whose losses are given (the first validates), and move the
        optimiser `name`, a `BilevelSGD`, unless `Weighting.skipped` says why not.

        Raises NotFiniteError, before anything is changed, where none of them has a finite loss and
        gradient, InputError where losses are scaled (fp16).
        """
        if self.scaler is not None:
            raise InputError(
                "mini-batches are weighted by their gradients, which fp16 scales and may overflow; "
                "use --precision bf16 or 32",
                kind="precision",
            )
        optimizer = self.optimizers[name]
        assert isinstance(optimizer, BilevelSGD)  # noqa: S101 (its task has built it)
        try:
            found = optimizer.weigh(losses)
        except FloatingPointError as error:
            raise NotFiniteError(
                f"the losses or gradients of all mini-batches became infinite or no number in step "
                f"{self.step + 1}",
                kind="not-finite",
                hint="lower the learning rate (--lr), or clip the gradient (--clip-grad 1)",
            ) from error
        if found.left_out:
            which = ", ".join(str(number + 1) for number in found.left_out)
            log.warning(
                "step %d: the loss or gradient of mini-batch %s of %d is not finite; it does not "
                "count",
                self.step + 1,
                which,
                len(found.losses),
            )
        if found.skipped:
            self._schedule(name, optimizer)
        else:
            self._move(name, optimizer)
        return found

    def begin(self, step: int) -> None:
        """Begin a step: no optimiser has moved in it."""
        self.step = step
        self.lr.clear()

    def end(self) -> None:
        """End a step. What scaled its gradients changes only now, for all optimisers alike."""
        if self.scaler is not None and self.lr:
            self.scaler.update()

    def _parameters(self, names: Sequence[str]) -> list[Tensor]:
        groups = (group for name in names for group in self.optimizers[name].param_groups)
        return [parameter for group in groups for parameter in group["params"]]

    def _schedule(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        schedule = self.later.get(name, self.factor)
        factor = 1.0 if name in self.constant else schedule(self.step)
        for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
            group["lr"] = base * factor
        self.lr[name] = optimizer.param_groups[0]["lr"]

    def _move(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self._schedule(name, optimizer)
        if self.clip_grad is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_grad)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)


def wrap_networks(model: Trainable, hardware: Hardware, *, distributed: bool) -> None:
    """Wrap the model's networks for training on several processes. Checkpoints stay unwrapped."""
    if not distributed:
        return
    for name in model.networks:
        device_ids = [hardware.device.index] if hardware.device.type == "cuda" else None
        wrapped = DistributedDataParallel(getattr(model, name), device_ids=device_ids)
        setattr(model, name, wrapped)


def unwrapped_state(model: Trainable) -> dict[str, Tensor]:
    """The model's state under the names it has without DistributedDataParallel."""
    state = model.state_dict()
    for name in model.networks:
        if isinstance(getattr(model, name), DistributedDataParallel):
            prefix, plain = f"{name}.module.", f"{name}."
            state = {
                plain + key[len(prefix) :] if key.startswith(prefix) else key: value
                for key, value in state.items()
            }
    return state


def load_unwrapped(model: Trainable, state: Mapping[str, Tensor]) -> None:
    """Load what `unwrapped_state` gave, whether or not the networks are wrapped now."""
    for name in model.networks:
        if isinstance(getattr(model, name), DistributedDataParallel):
            prefix, plain = f"{name}.module.", f"{name}."
            state = {
                prefix + key[len(plain) :] if key.startswith(plain) else key: value
                for key, value in state.items()
            }
    model.load_state_dict(state, strict=True)


def without_sync(model: Trainable, networks: Sequence[str]) -> AbstractContextManager[object]:
    """Keep DistributedDataParallel from averaging gradients before the last part of a batch."""
    stack = ExitStack()
    wrapped = [getattr(model, name) for name in networks]
    for network in wrapped:
        if isinstance(network, DistributedDataParallel):
            stack.enter_context(network.no_sync())
    return stack if wrapped else nullcontext()
