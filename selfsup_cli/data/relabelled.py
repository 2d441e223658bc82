"""Images whose labels, or the order of whose pixels, are not their own (thesis, section 8.4)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.data.framing import framed, region_of
from selfsup_cli.data.label_noise import NoisyLabels, permute_pixels

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing
    from selfsup_cli.data.source import ImageSource


class Relabelled:
    """An `ImageSource` with the `noisy` labels in place of its own, if there are any.

    With `permuted`, a seed, the pixels of each image are in an order of its own (see
    `permute_pixels`). `noisy.true` keeps the labels that the source has.
    """

    def __init__(
        self, source: ImageSource, noisy: NoisyLabels | None, permuted: int | None = None
    ) -> None:
        self.source = source
        self.noisy = noisy
        self.permuted = permuted
        self.name = source.name
        self.ids = source.ids
        self.sizes = source.sizes
        self.labels = source.labels if noisy is None else noisy.given
        self.classes = source.classes
        self.attributes = source.attributes
        self.split = source.split
        self.split_rule = source.split_rule
        self.left_out = source.left_out
        pixels = "" if permuted is None else "pixels of each image in an order of its own"
        phrases = (noisy.about if noisy is not None else "", pixels)
        self.changes = tuple(phrase for phrase in phrases if phrase)
        self.notes = source.notes
        self.fingerprint = self._fingerprint()

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int, size: Sizing = None) -> torch.Tensor:
        """See `ImageSource.read`."""
        if self.permuted is None:
            return self.source.read(i, size)
        image = permute_pixels(self.source.read(i), self.permuted, self.ids[i])
        return framed(image, region_of(size, *image.shape[1:]))

    def subset(self, indices: np.ndarray) -> Relabelled:
        """The images `indices` (int64, in that order) as a source of its own."""
        noisy = self.noisy
        if noisy is not None:
            noisy = NoisyLabels(noisy.true[indices], noisy.given[indices], noisy.about)
        return Relabelled(self.source.subset(indices), noisy, self.permuted)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint.encode())
        if self.noisy is not None:
            digest.update(np.ascontiguousarray(self.noisy.given, np.int64).tobytes())
        digest.update(str(self.permuted).encode())
        return digest.hexdigest()
