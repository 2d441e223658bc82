"""Corrupt images of earlier steps, shown to the discriminator again (thesis, section 3.4.1 f)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from selfsup_cli.transforms.images import to_bytes, to_unit


class History:
    """A buffer of `capacity` corrupt images, each with its mask Ω, on the CPU.

    Images are kept as bytes, a quarter of their size; they are at most half a grey level off. No
    gradient reaches what painted them. Neither the thesis nor the author's code says how large the
    buffer is.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a history of {capacity} images")
        self.capacity = capacity
        self._images: Tensor | None = None
        self._kept: Tensor | None = None
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def mix(self, images: Tensor, kept: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, int]:
        """A batch of which half comes from the buffer, into which as many of the new ones go.

        `images` are float `[B, 3, H, W]` in [-1, 1], `kept` bool `[B, 1, M, N]`; both come back in
        these shapes, new ones first, with the number of these. Until the buffer is full the batch
        comes back as it was, and its second half is added. After that the second half of the batch
        takes the places of ⌊B/2⌋ different images drawn from `g` (on the CPU), which take theirs in
        the batch (Shrivastava et al., 2017). Gradients reach the new ones.
        Raises ValueError for images or masks of another shape than before, or a batch of more than
        twice the capacity.
        """
        count = len(images) // 2
        fresh = len(images) - count
        if count > self.capacity:
            raise ValueError(f"half of {len(images)} images do not fit in {self.capacity} places")
        stored, masks = self._storage(images, kept)
        new = to_bytes(images[fresh:].detach().float()).cpu()
        new_kept = kept[fresh:].cpu()
        room = min(count, self.capacity - self._filled)
        if room or not count:
            free = slice(self._filled, self._filled + room)
            stored[free], masks[free] = new[:room], new_kept[:room]
            self._filled += room
            return images, kept, len(images)
        places = torch.randperm(self.capacity, generator=g)[:count]
        old = to_unit(stored[places]).to(images.device, images.dtype)
        old_kept = masks[places].to(kept.device)
        stored[places], masks[places] = new, new_kept
        return torch.cat([images[:fresh], old]), torch.cat([kept[:fresh], old_kept]), fresh

    def state_dict(self) -> dict[str, Tensor]:
        """What is in the buffer: `images` uint8 and `kept` bool, empty before the first batch."""
        if self._images is None or self._kept is None:
            return {}
        return {
            "images": self._images[: self._filled].clone(),
            "kept": self._kept[: self._filled].clone(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what `state_dict` gave. Raises ValueError for what does not fit."""
        self._images, self._kept, self._filled = None, None, 0
        if not state:
            return
        images, kept = state["images"], state["kept"]
        if len(images) != len(kept) or len(images) > self.capacity:
            raise ValueError(
                f"{len(images)} images and {len(kept)} masks for a history of {self.capacity}"
            )
        if images.dtype != torch.uint8 or kept.dtype != torch.bool:
            raise ValueError(f"a history of {images.dtype} and {kept.dtype}")
        stored, masks = self._storage(images, kept)
        self._filled = len(images)
        stored[: self._filled], masks[: self._filled] = images, kept

    def _storage(self, images: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        if self._images is None or self._kept is None:
            self._images = torch.zeros(self.capacity, *images.shape[1:], dtype=torch.uint8)
            self._kept = torch.zeros(self.capacity, *kept.shape[1:], dtype=torch.bool)
        found = images.shape[1:], kept.shape[1:]
        if found != (self._images.shape[1:], self._kept.shape[1:]) or len(images) != len(kept):
            raise ValueError(
                f"images {tuple(images.shape)} with masks {tuple(kept.shape)} in a history of "
                f"{tuple(self._images.shape)} with {tuple(self._kept.shape)}"
            )
        return self._images, self._kept
