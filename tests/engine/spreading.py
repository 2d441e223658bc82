"""What processes do that share the mini-batches of a step. Run as a script, one of two of them."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.engine.bilevel import BilevelSGD, Loss, Solver, layers_of
from selfsup_cli.engine.minibatches import with_masks
from selfsup_cli.engine.spread import SpreadStatistics
from selfsup_cli.randomness import generator

COUNT, STEPS = 5, 3
CASES = {"diagonal": False, "layers": True, "exact": False, "uniform": False}


def network() -> nn.Sequential:
    out = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3), nn.Tanh(), nn.Dropout(0.2),
        nn.Linear(6, 3),
    ).double()  # fmt: skip
    for number, p in enumerate(out.parameters()):
        drawn = torch.randn(p.shape, generator=generator(number, "weights"), dtype=p.dtype)
        p.data = 0.5 * drawn
    return out


def batch(step: int, number: int) -> tuple[Tensor, Tensor]:
    g = generator(step, number, "batch")
    return torch.randn(6, 4, generator=g, dtype=torch.float64), torch.arange(6) % 3


def trained(case: str, *, spread: bool) -> dict[str, Tensor]:
    """The network after a few steps, and their weights."""
    module = network()
    optimizer = BilevelSGD(
        module.parameters(), lr=0.2, weight_decay=0.1,
        solver=cast("Solver", "diagonal" if case == "layers" else case),
        layers=layers_of(module) if CASES[case] else None,
        spread=spread, statistics=SpreadStatistics(module) if spread else None,
    )  # fmt: skip
    # Three mini-batches are for the first process, two for the second.
    rank = dist.get_rank() if spread else 0
    numbers = (range(3), range(3, COUNT))[rank] if spread else range(COUNT)

    def loss(step: int, number: int) -> Loss:
        x, y = batch(step, number)
        # The last one of step 1 has no finite gradient.
        bad = float("inf") if (step, number) == (1, COUNT - 1) else 1.0
        return lambda: bad * F.cross_entropy(module(x), y)

    for step in range(STEPS):
        losses = [loss(step, number) for number in numbers]
        weighting = optimizer.step(with_masks(losses, 7, step, first=numbers[0]))
        assert weighting is not None
    return {
        **module.state_dict(),
        "weights": weighting.weights,
        "agreement": weighting.agreement,
        "losses": weighting.losses,
    }


def join(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    join(1, sys.argv[1])
    torch.save({case: trained(case, spread=True) for case in CASES}, f"{sys.argv[1]}/second.pt")
    dist.destroy_process_group()
