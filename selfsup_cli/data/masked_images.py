"""Images of which every pixel has a class, as segmentation is trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from selfsup_cli.data.framing import Region, Sizing, region_of
from selfsup_cli.data.image_files import FileStore
from selfsup_cli.data.image_store import Images, Known
from selfsup_cli.data.mask_classes import Named
from selfsup_cli.data.mask_layouts import Masked
from selfsup_cli.data.masks import VOID, MaskFacts, cut, read_mask
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import BadMediaError


@dataclass(frozen=True)
class Looked:
    """What the index knows of the images and masks of both parts."""

    sizes: np.ndarray
    digests: np.ndarray
    facts: list[MaskFacts]
    errors: dict[int, str]


class MaskedImages(Images):
    """Images of which every pixel has a class; an `ImageSource` without `labels`.

    `classes` are those that count, `label_of` the labels that stand for them in the files, and
    `palette` the colours that all 256 labels are shown in. `present` (bool `[N,K]`) says which
    classes each mask has.
    """

    def __init__(
        self,
        found: Masked,
        looked: Looked,
        named: Named,
        places: np.ndarray,
        split: str,
        left_out: Sequence[LeftOut],
    ) -> None:
        """The images at `places` (int64) of those that were `found`."""
        listing = replace(found.listing.take(places), classes=named.classes)
        known = Known(places, looked.sizes[places], looked.digests[places])
        super().__init__(listing, split, FileStore(listing.root), known, left_out)
        self.label_of = named.labels
        self.palette = named.palette
        self._coding = named.coding
        self._files = found.masks
        self._has = np.array([facts.present for facts in looked.facts])[:, list(named.labels)]
        self._class_of = np.full(256, VOID, np.uint8)
        self._class_of[list(named.labels)] = np.arange(len(named.labels))

    @property
    def present(self) -> np.ndarray:
        has: np.ndarray = self._has[self.rows]
        return has

    def read_both(self, i: int, size: Sizing = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Image `i`, uint8 `[3,H,W]` (see `ImageSource.read`), and what `mask` gives of it."""
        region = region_of(size, *(int(side) for side in self.sizes[i]))
        return self.read(i, lambda *_: region), self.mask(i, region)

    def mask(self, i: int, region: Region | None = None) -> torch.Tensor:
        """The classes of image `i`, or of a region of it: uint8 `[H,W]`, 255 for what does not
        count. Scaled, each pixel is its nearest one. Raises `BadMediaError`."""
        name = self._files[int(self.rows[i])]
        labels = read_mask(self.root / name, name, self._coding)
        if tuple(labels.shape) != tuple(self.sizes[i]):
            raise BadMediaError(name, "its size has changed since it was looked at")
        classes = self._class_of[labels]
        return cut(classes, region or region_of(None, *classes.shape))
