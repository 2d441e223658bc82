"""The search for the most active patches: images a second against a bare loop, and its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import measure
import numpy as np
import torch

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.data.images import open_images
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.evaluation.reading import in_batches
from selfsup_cli.evaluation.strongest import Search, search
from selfsup_cli.evaluation.views import ImageViews, read_images
from selfsup_cli.models import Backbone, build
from selfsup_cli.transforms.images import to_unit

IMAGES, BATCH, K, CROP, ROUNDS = 256, 64, 9, 96, 3
NETWORKS = ("alexnet", "resnet18")
SPEED, MEMORY = "≥ 0.9", "≤ 64 MB"
NAME = "activation search, all units of all layers, {}, crop {}"
GROWTH = "memory that a search adds to the same loop, {}"
LIMITS = {
    NAME.format(name, CROP): "the largest value of every map is read once more than by the network"
    for name in NETWORKS
}


def rows() -> list[measure.Row]:
    """Images a second of the search over those of the same network in a loop; peak memory."""
    torch.set_num_threads(1)
    tune_allocator()
    source = _source()
    found: list[measure.Row] = []
    for name in NETWORKS:
        network = _network(name)
        layers = _layers(network)
        spent = measure.interleaved(
            {
                "search": partial(_search, network, source, layers),
                "bare": partial(_bare, network, source, layers),
            },
            ROUNDS,
        )
        ratio = spent["bare"] / spent["search"]
        found.append((NAME.format(name, CROP), "a forward loop that reads the same", ratio, SPEED))
        # Both are peaks, so that what they have in common goes out.
        more = _peak(name, "search") - _peak(name, "bare")
        found.append((GROWTH.format(name), f"{IMAGES} images", more, MEMORY))
    return found


def _source() -> ImageSource:
    data = ImageData(source="scenes", scenes=Rendered(test_images=IMAGES, side=CROP))
    source = open_images(data, "test", labels=False, workers=0)
    # Rendered once: it is not the drawing of images that is measured.
    return _Held(source)  # type: ignore[return-value]


class _Held:
    """Images that are in memory already."""

    def __init__(self, source: ImageSource) -> None:
        self.ids, self.name, self.sizes = source.ids, source.name, source.sizes
        self.images = [source.read(i) for i in range(len(source))]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int, size: object = None) -> torch.Tensor:
        return self.images[i]


def _network(name: str) -> Backbone:
    return build(name, crop=CROP, seed=0).eval()


def _layers(network: Backbone) -> list[str]:
    return list(network.layers[: network.layers.index(network.embedding) + 1])


def _search(network: Backbone, source: ImageSource, layers: Sequence[str]) -> Search:
    found = Search(K)
    every = np.arange(len(source)).tolist()
    search(network, source, every, layers, found, choose("cpu"), workers=0, batch_size=BATCH)
    return found


@torch.no_grad()
def _bare(network: Backbone, source: ImageSource, layers: Sequence[str]) -> None:
    items = read_images(source, range(len(source)), ImageViews(), network.input, 0)
    for crops, _ in in_batches(items, BATCH, torch.device("cpu")):
        network.features(to_unit(crops), layers)


def _peak(name: str, what: str) -> float:
    """Peak memory in MB of a process that does one of the two."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", name, what],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def _measured(name: str, what: str) -> float:
    torch.set_num_threads(1)
    network, source = _network(name), _source()
    run = _search if what == "search" else _bare
    run(network, source, _layers(network))
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3


if __name__ == "__main__":
    if "--peak" in sys.argv:
        print(_measured(*sys.argv[-2:]))
    else:
        measure.main(rows, LIMITS)
