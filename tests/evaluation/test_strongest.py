"""The most active patches against sorting all there are, and going on after a stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_toys import ToyImages
from torch import Tensor

from selfsup_cli.engine.devices import Hardware
from selfsup_cli.evaluation.strongest import Search, Top, search

CPU = Hardware(torch.device("cpu"), None)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    k=st.integers(1, 4),
    units=st.integers(1, 3),
    cells=st.sampled_from([(), (2, 3), (2, 1, 2)]),
    seed=st.integers(0, 1000),
)
def test_it_is_what_sorting_everything_gives(
    sizes: list[int], k: int, units: int, cells: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few different values, so that there are equals.
    every = rng.integers(-2, 4, (sum(sizes), units, *cells)).astype(np.float32)
    top = Top.empty(k, units, torch.device("cpu"))
    first = 0
    for size in sizes:
        active = torch.from_numpy(every[first : first + size])
        top.update(active, torch.arange(first, first + size))
        first += size
    for unit in range(units):
        flat = every[:, unit].reshape(len(every), -1)
        order = sorted(range(len(flat)), key=lambda i: (-flat[i].max(), i))[:k]
        have = len(order)
        assert top.images[:have, unit].tolist() == order
        assert top.values[:have, unit].tolist() == [flat[i].max() for i in order]
        assert top.places[:have, unit].tolist() == [int(flat[i].argmax()) for i in order]
        assert top.images[have:, unit].tolist() == [-1] * (k - have)


class Counting(torch.nn.Module):
    """A network whose maps are the image, in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.input = SimpleNamespace(crop=8, resize=(8, 8))
        self.seen = 0

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.seen += len(x)
        return {name: x if name == "plain" else -x[:, :2] for name in layers}


class Enough(Exception):  # noqa: N818
    pass


def found_by(source: Any, stop_after: int | None = None) -> tuple[Search, Counting]:
    network: Any = Counting()
    found = Search(3)

    def told(one: Search) -> None:
        if stop_after is not None and one.done >= stop_after:
            raise Enough

    images = list(range(1, len(source)))
    settings: dict[str, Any] = {"workers": 0, "batch_size": 4}
    layers = ["plain", "negative"]
    if stop_after is None:
        search(network, source, images, layers, found, CPU, **settings)
        return found, network
    with contextlib.suppress(Enough):
        search(network, source, images, layers, found, CPU, told=told, **settings)
    again = Search.of(3, found.done, found.state(), found.bad)
    search(network, source, images, layers, again, CPU, **settings)
    return again, network


def test_a_search_that_was_stopped_goes_on_and_finds_the_same() -> None:
    source = ToyImages([(8, 10)] * 23, broken=("toy/005.png",))
    whole, network = found_by(source)
    assert network.seen == 21
    assert whole.bad == {"toy/005.png": "no image"}
    assert whole.done == 22
    for stop in (4, 9, 20):
        parts, network = found_by(ToyImages([(8, 10)] * 23, broken=("toy/005.png",)), stop)
        assert network.seen == 21
        for layer, top in whole.found.items():
            for part, value in vars(top).items():
                assert torch.equal(value, getattr(parts.found[layer], part))


def test_what_is_kept_depends_on_the_units_alone() -> None:
    few, _ = found_by(ToyImages([(8, 8)] * 9))
    many, _ = found_by(ToyImages([(8, 8)] * 60))
    shapes = {name: tuple(one.shape) for name, one in few.state().items()}
    assert shapes == {name: tuple(one.shape) for name, one in many.state().items()}
    assert shapes["values.plain"] == (3, 3)
    assert shapes["places.negative"] == (3, 2)
