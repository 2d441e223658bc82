"""The built-in images as sources: rendered when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.data import facelike, scenes
from selfsup_cli.data.framing import framed, region_of
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Images, Known, digests_of, opened_whole
from selfsup_cli.data.listing import Listing, only_split
from selfsup_cli.data.source import Split

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from selfsup_cli.data.framing import Sizing

Render = Callable[[int, str, int, int], "NDArray[np.uint8]"]


@dataclass(frozen=True)
class RenderedStore:
    """Images that `render` makes of (seed, part, index, side): training, then test; a `Store`."""

    render: Render
    settings: Rendered

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        import torch

        settings = self.settings
        image = self.render(settings.seed, *address(settings, row), settings.side)
        region = region_of(size, settings.side, settings.side)
        return framed(torch.from_numpy(image), region)


def address(settings: Rendered, row: int) -> tuple[str, int]:
    """Part and number in it of the image at place `row` of all."""
    return ("train", row) if row < settings.images else ("test", row - settings.images)


def open_rendered(name: str, data: ImageData, split: Split, *, labels: bool) -> Images:
    """The built-in images `name` (scenes or facelike)."""
    only_split(Path(name), data)
    settings: Rendered = getattr(data, name)
    both = settings.images + settings.test_images
    rows = np.arange(
        settings.images if split == "test" else 0, settings.images if split == "train" else both
    )
    addresses = [address(settings, row) for row in rows.tolist()]
    ids = PackedIds(f"{part}/{index:06d}" for part, index in addresses)
    listing = Listing(name, Path(name), ids, f"test images rendered apart (seed {settings.seed})")
    if labels:
        listing = _LABELLED[name](listing, settings.seed, addresses)
    sizes = np.full((len(ids), 2), settings.side, np.int64)
    module = _MODULES[name]
    text = f"{name}/{module.VERSION}/{settings.seed}/{settings.side}".encode()
    content = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint8)
    digests = digests_of(ids, sizes, np.tile(content, (len(ids), 1)))
    store = RenderedStore(module.render, settings)
    return opened_whole(listing, data, split, store, Known(rows, sizes, digests))


def _scenes(listing: Listing, seed: int, addresses: list[tuple[str, int]]) -> Listing:
    codes = [scenes.class_of(seed, part, index) for part, index in addresses]
    return replace(listing, labels=np.array(codes, np.int64), classes=scenes.CLASSES)


def _facelike(listing: Listing, seed: int, addresses: list[tuple[str, int]]) -> Listing:
    has = [facelike.attributes_of(seed, part, index) for part, index in addresses]
    return replace(listing, labels=np.stack(has), attributes=facelike.ATTRIBUTES)


MASK_CLASSES = ("background", *scenes.CLASSES)
"""What the values of `mask` stand for."""


def mask(settings: Rendered, row: int) -> NDArray[np.uint8]:
    """What each pixel of an image of `scenes` is of, uint8 `[side, side]`: see `MASK_CLASSES`."""
    part, index = address(settings, row)
    there = scenes.outline(settings.seed, part, index, settings.side)
    return np.where(there, 1 + scenes.class_of(settings.seed, part, index), 0).astype(np.uint8)


def box(settings: Rendered, row: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of the object in an image of `scenes`, in pixels, right and
    bottom beyond the last one; its class is that of the image."""
    part, index = address(settings, row)
    there = scenes.outline(settings.seed, part, index, settings.side)
    ys, xs = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


_MODULES = {"scenes": scenes, "facelike": facelike}
_LABELLED = {"scenes": _scenes, "facelike": _facelike}
