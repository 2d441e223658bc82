"""Images for the loader: what happens to each is a function of (seed, epoch, index) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from selfsup_cli.data.framing import Plan, Region, Sizing
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.data.source import ImageSource
from selfsup_cli.randomness import generator


class ImageDataset(SourceDataset):
    """Images as `image` uint8 `[1, 3, H, W]`, with `index`, `id` and, of labelled sources, `label`.

    `size` says in which size they are wanted (see `ImageSource.read`), or `plan` draws for each
    image and epoch what is cut out of it. For batches, all must come out alike. `label` is int64
    `[1]`, or uint8 `[1, A]` where images have several.
    """

    MANY = "images"

    def __init__(
        self, source: ImageSource, seed: int, *, size: Sizing = None, plan: Plan | None = None
    ) -> None:
        if size is not None and plan is not None:
            raise ValueError("either a size or a plan")
        super().__init__(source)
        self.source = source
        self.seed = seed
        self.size = size
        self.plan = plan

    def randomness(self, epoch: int, index: int) -> torch.Generator:
        """From what the part of an image that is seen in an epoch is drawn."""
        return generator(self.seed, epoch, index, "framing")

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        size = self.size
        if self.plan is not None:
            plan, source = self.plan, self.randomness(epoch, index)

            def size(height: int, width: int) -> Region:
                return plan(height, width, source)

        image = self.source.read(index, size).contiguous()
        sample = {
            "image": image[None],
            "index": torch.tensor(index),
            "id": self.source.ids[index],
        }
        if self.source.labels is not None:
            sample["label"] = torch.from_numpy(np.array(self.source.labels[index : index + 1]))
        return sample
