"""How a task takes a step: on one batch, or on mini-batches that are weighted (chapter 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from selfsup_cli.config.weighing import Weighing
from selfsup_cli.engine import processes
from selfsup_cli.engine.bilevel import Weighting
from selfsup_cli.engine.minibatches import Averages, mini_batches, with_masks
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.evaluation.looking import Looking
from selfsup_cli.randomness import generator

_PARTS = 8


@dataclass(frozen=True)
class Passed:
    """What a pass in training gave: the mean `loss` over its samples, and `scalars` to log.

    Of a task that gives each sample one class also the `logits` `[B, C]` and `labels` int64 `[B]`,
    and `samples` int64 `[B]`, their places in the training part.
    """

    loss: Tensor
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    samples: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None


Pass = Callable[[Batch, Update, torch.Generator], Passed]


class Passing(Protocol):
    """What a step needs of a task: its pass, its network, and who looks at each sample, if any."""

    looking: Looking | None

    @property
    def plain(self) -> nn.Module:
        """The network itself, without what spreads it over processes."""
        ...

    def passed(self, batch: Batch, update: Update, g: torch.Generator) -> Passed:
        """The mean loss of `batch`, drawing from `g`, and what there is to log."""
        ...


def on_a_batch(task: Passing, batch: Batch, update: Update) -> dict[str, Tensor]:
    """An ordinary step on the mean loss of a batch."""
    passed = task.passed(batch, update, update.generator("augment"))
    seen = _kept(task, passed)
    update(passed.loss)
    if task.looking is not None and seen is not None:
        count = len(seen[0])
        parts = next(n for n in range(min(_PARTS, count), 0, -1) if count % n == 0)
        cut = [one.chunk(parts) for one in seen]
        task.looking.see(update.step, list(zip(*cut, strict=True)))
    return {"loss": passed.loss, **passed.scalars}


def on_mini_batches(
    task: Passing, batch: Batch, update: Update, how: Weighing
) -> dict[str, Tensor]:
    """A step that weighs mini-batches by their agreement with the first one.

    In a group of processes each is given its own of them. What is drawn for a mini-batch is a
    function of the step and of its number, wherever it is.
    """
    own = how.count // processes.members()
    first = own * processes.member()
    found: list[Passed] = []
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def loss_of(number: int, piece: Batch) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            device = str(update.device)
            g = generator(update.seed, update.step, number, "augment", device=device)
            passed = task.passed(piece, update, g)
            found.append(passed)
            if (kept := _kept(task, passed)) is not None:
                seen.append(kept)
            return passed.loss

        return loss

    pieces = mini_batches(batch, own)
    losses = [loss_of(first + i, piece) for i, piece in enumerate(pieces)]
    equal = how.masks == "equal"
    masked = with_masks(losses, update.seed, update.step, equal=equal, first=first)
    averages = Averages(task.plain)
    weighting = update.weighed(masked)
    if weighting.left_out:
        averages.mend()
    scalars = _numbers(weighting)
    if task.looking is not None and seen:
        scalars |= task.looking.see(update.step, seen, weighting)
    return {
        **{name: found[0].loss.new_tensor(value) for name, value in scalars.items()},
        **{
            name: torch.stack([one.scalars[name].detach().float() for one in found]).mean()
            for name in found[0].scalars
        },
    }


def _numbers(weighting: Weighting) -> dict[str, float]:
    """What is logged of how a step was weighted."""
    finite = weighting.losses[weighting.losses.isfinite()]
    # Of what seldom happens nothing is said where it does not; all processes agree on that.
    seldom = {
        "mini_batches_left_out": float(len(weighting.left_out)),
        "steps_skipped": float(bool(weighting.skipped)),
    }
    return {
        "loss": float(finite.mean()) if len(finite) else float("nan"),
        "omega_negative": weighting.negative,
        "agreement": float(weighting.agreement.mean()),
        **{name: value for name, value in seldom.items() if value},
    }


def _kept(task: Passing, passed: Passed) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Samples, features, logits and labels of a pass, where somebody looks at them."""
    if task.looking is None or passed.samples is None:
        return None
    assert passed.logits is not None  # noqa: S101 (they come together)
    assert passed.labels is not None  # noqa: S101
    return passed.samples, task.looking.fed(), passed.logits.detach(), passed.labels
