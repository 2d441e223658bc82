"""Chapter 3 on two processes with images of their own. Run as a script, one of the two."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from test_artifacts import TURN, images, method, update_of
from torch import Tensor

from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import wrap_networks


def trained(rank: int, objective: str) -> dict[str, Tensor]:
    """All weights after two steps of each stage."""
    model = method(repair__objective=objective)
    update = update_of(model)
    update.rank = rank
    wrap_networks(model, choose("cpu"), distributed=True)
    model.train()
    for step in (0, 1, TURN, TURN + 1):
        update.begin(step)
        torch.default_generator.manual_seed(2 * step + rank)
        model.step({"image": images(seed=2 * step + rank)}, update)
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def join(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    join(1, sys.argv[1])
    found = {name: trained(1, name) for name in ("flipped", "as_released")}
    torch.save(found, f"{sys.argv[1]}/second.pt")
    dist.destroy_process_group()
