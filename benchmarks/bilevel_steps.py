"""A step of `--optimizer bilevel` against plain SGD and TorchOpt, its memory, and its sampler."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import measure
import numpy as np
import torch
import torch.nn.functional as F
from peers import find
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import BatchSampler, RandomSampler

from selfsup_cli.data.matched import MatchedSampler
from selfsup_cli.engine.bilevel import BilevelSGD
from selfsup_cli.engine.devices import tune_allocator
from selfsup_cli.models import build
from selfsup_cli.models.classifier import Classifier, HeadSpec

IMAGES, ROUNDS, RATE = 64, 3, 0.01
COUNTS = (2, 8, 32)
# Architecture, side of the images, share of its channels, and its name in the rows.
NETWORKS = (
    ("cifarnet", 32, 1.0, "CifarNet"),
    ("preact_resnet18", 16, 0.5, "PreAct-ResNet-18 at half its width"),
)
BATCH = "one batch"
Build = Callable[[], nn.Module]
PEER = "TorchOpt, the same one step"
STEP = f"CPU time of a bilevel step, {IMAGES} images"
MEMORY = f"peak memory of a bilevel step, {IMAGES} images"
LIMITS = {
    f"{MEMORY}, {name}, k = {k}, {k} steps of SGD, weights more": "three flat gradients, whatever "
    "k: that which validates, the sum, and the one that is being computed; SGD has dropped its own "
    "where memory is at its peak, at the end of a forward pass"
    for *_, name in NETWORKS
    for k in COUNTS
}


def rows() -> list[measure.Row]:
    """Ratios of CPU times of steps that take turns in one process, and of peaks of memory."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.set_num_threads(1)
    tune_allocator()
    torchopt = find("torchopt")
    print("betty-ml is left out: it cannot be installed with Python 3.11", file=sys.stderr)
    found: list[measure.Row] = []
    for arch, side, width, name in NETWORKS:
        found += _of_network(name, partial(_network, arch, side, width), side, torchopt)
    return [*found, *_sampler()]


def _of_network(name: str, build_it: Build, side: int, torchopt: Any) -> list[measure.Row]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(IMAGES, 3, side, side, generator=g), torch.arange(IMAGES) % 10
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        BATCH: partial(_made, _plain, build_it, x, y, 1)
    }
    for k in COUNTS:
        makers[f"bilevel {k}"] = partial(_made, _bilevel, build_it, x, y, k)
        makers[f"plain {k}"] = partial(_made, _plain, build_it, x, y, k)
    if torchopt is not None:
        makers[PEER] = lambda: _torchopt(torchopt, build_it(), x, y, 8)
    contenders = {one: make() for one, make in makers.items()}
    spent = measure.interleaved(contenders, ROUNDS)
    peaks = {one: _peak(make()) for one, make in makers.items()}
    weights = 4 * sum(p.numel() for p in build_it().parameters())
    found: list[measure.Row] = []
    for k in COUNTS:
        ours = spent[f"bilevel {k}"]
        of = f"{STEP}, {name}, k = {k}"
        found += [
            (of, f"{k} steps of SGD, times", ours / spent[f"plain {k}"], "≤ 1.05"),
            (of, "one step of SGD, times", ours / spent[BATCH], ""),
        ]
    for k in COUNTS:
        extra = (peaks[f"bilevel {k}"] - peaks[f"plain {k}"]) / weights
        found.append(
            (f"{MEMORY}, {name}, k = {k}", f"{k} steps of SGD, weights more", extra, "≤ 2.1")
        )
    there = torchopt is not None
    time = spent[PEER] / spent["bilevel 8"] if there else measure.ABSENT
    room = peaks[PEER] / peaks["bilevel 8"] if there else measure.ABSENT
    return [
        *found,
        (f"{STEP}, {name}, k = 8", PEER, time, "≥ 1.5"),
        (f"{MEMORY}, {name}, k = 8", PEER, room, "≥ 2"),
    ]


def _made(
    of: Callable[[nn.Module, Tensor, Tensor, int], Callable[[], object]],
    build_it: Build,
    x: Tensor,
    y: Tensor,
    k: int,
) -> Callable[[], object]:
    return of(build_it(), x, y, k)


def _network(arch: str, side: int, width: float) -> nn.Module:
    backbone = build(arch, width=width, crop=side, resize=(side, side), seed=0)
    return Classifier(backbone, HeadSpec(kind="linear", hidden=[], outputs=10)).train()


def _parted(x: Tensor, y: Tensor, k: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.chunk(k), y.chunk(k), strict=True))


def _bilevel(network: nn.Module, x: Tensor, y: Tensor, k: int) -> Callable[[], object]:
    optimizer = BilevelSGD(network.parameters(), RATE)
    parts = _parted(x, y, k)

    def step() -> None:
        optimizer.step([lambda a=a, b=b: F.cross_entropy(network(a), b) for a, b in parts])  # type: ignore[misc]

    return step


def _plain(network: nn.Module, x: Tensor, y: Tensor, k: int) -> Callable[[], object]:
    """As many visits: k steps, of the same mini-batches."""
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9)
    parts = _parted(x, y, k)

    def step() -> None:
        for a, b in parts:
            optimizer.zero_grad()
            F.cross_entropy(network(a), b).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def _torchopt(
    torchopt: Any, network: nn.Module, x: Tensor, y: Tensor, k: int
) -> Callable[[], object]:
    """One differentiable step along the weighted losses, then the gradient of the validation loss
    for the weights, then the step with them."""
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9)
    (validation, truth), *parts = _parted(x, y, k)

    def step() -> None:
        losses = torch.stack([F.cross_entropy(network(a), b) for a, b in parts])
        weights = torch.zeros(len(parts), requires_grad=True)
        kept = torchopt.extract_state_dict(network, by="reference")
        torchopt.MetaSGD(network, lr=1.0).step((weights * losses).sum())
        outer = F.cross_entropy(network(validation), truth)
        (found,) = torch.autograd.grad(outer, weights, retain_graph=True)
        torchopt.recover_state_dict(network, kept)
        optimizer.zero_grad()
        (losses * -found / found.abs().sum()).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _peak(step: Callable[[], object]) -> float:
    """The most bytes that the first two steps have allocated at once, with what they keep."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
        step()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    return float(np.cumsum([nbytes for _, nbytes in sorted(changes)]).max(initial=0))


def _sampler() -> list[measure.Row]:
    """Keys of an epoch of 50,000 images of ten classes, against random batches of PyTorch."""
    labels = np.arange(50_000) % 10
    matched = MatchedSampler(labels, IMAGES, 8, seed=0)
    plain = BatchSampler(RandomSampler(labels), IMAGES, drop_last=True)

    def ours() -> None:
        matched.epoch += 1
        for _ in matched:
            pass

    def theirs() -> None:
        for _ in plain:
            pass

    spent = measure.interleaved({"ours": ours, "theirs": theirs}, ROUNDS)
    each = 1e6 * spent["ours"] / len(labels)
    name = "sampler of matched labels, 50,000 images, k = 8"
    return [
        (name, "µs an image", each, "≤ 5 µs"),
        (name, "RandomSampler, times", spent["ours"] / spent["theirs"], ""),
    ]


if __name__ == "__main__":
    measure.main(rows, LIMITS)
