"""Images to compare, all of one size: what a generator draws, and real ones brought to it.

Both are 8 bits deep, as image files are, whatever made them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.data.framing import Crop, Region
from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.judges import Span
from selfsup_cli.evaluation.reading import Unreadable, in_batches, read_items
from selfsup_cli.models.gan import Generator
from selfsup_cli.models.gan_files import AnyGenerator
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.randomness import derive
from selfsup_cli.transforms.images import to_bytes

Plan = Callable[[int, int, torch.Generator], Region]


@dataclass(frozen=True)
class Samples:
    """The first `count` samples of a generator; `weights` (SHA-256) and the rest say which."""

    sampler: Sampler
    latents: Latents
    count: int
    weights: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the pixels."""
        facts = {
            "weights": self.weights,
            "batch_norm": self.sampler.told,
            "batch": self.sampler.batch,
            "seed": self.latents.seed,
            "truncation": self.latents.truncation,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return self.count

    def read(self, spans: Sequence[Span], batch: int) -> Iterator[Tensor]:
        """See `judges.Pixels.read`."""
        for first, last in spans:
            for images in self.sampler.batches(self.latents, first, last):
                yield from torch.split(rgb_bytes(images), batch)


def rgb_bytes(images: Tensor) -> Tensor:
    """Float `[B, C, H, W]` in [−1, 1] of one or three channels → uint8 `[B, 3, H, W]`."""
    found = to_bytes(images.float())
    return found.expand(-1, 3, -1, -1) if found.shape[1] == 1 else found


def image_generator(network: AnyGenerator, what: str) -> Generator:
    """The same, of images. Raises InputError for one of points."""
    if not isinstance(network, Generator):
        raise InputError(f"{what} draws points in a plane, not images", kind="points")
    return network


class Reals:
    """Images of a source, brought to `side` pixels by `plan`: by default the middle square."""

    def __init__(
        self, source: ImageSource, side: int, *, workers: int = 0, plan: Plan | None = None
    ) -> None:
        self.source = source
        self.side = side
        self.workers = workers
        self.plan = plan or Crop((side, side), side)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the source's and how its images are framed."""
        return hashlib.sha256(
            f"{self.source.fingerprint}/{self.side}/{self.plan}".encode()
        ).hexdigest()

    @property
    def told(self) -> str:
        """How images are framed, in a phrase."""
        heights = np.asarray(self.source.sizes)
        if len(heights) and bool((heights == self.side).all()):
            return f"{self.side}×{self.side} as they are"
        return f"middle square, scaled to {self.side}×{self.side}"

    def __len__(self) -> int:
        return len(self.source)

    def read(self, spans: Sequence[Span], batch: int) -> Iterator[Tensor]:
        """See `judges.Pixels.read`. A file that cannot be read raises InputError."""
        wanted = [i for first, last in spans for i in range(first, last)]
        files = _Framed(self.source, self.plan)
        decoded = read_items(files, self.source, wanted, self.workers)
        for first, last in spans:
            own = islice(decoded, last - first)
            for images, _ in in_batches(own, batch, torch.device("cpu")):
                yield images


def some(source: ImageSource, most: int | None, seed: int) -> ImageSource:
    """At most `most` images of a source, chosen by a seeded hash of their ids, in their order."""
    if most is None or len(source) <= most:
        return source
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "scored"))
    return source.subset(np.sort(np.array(order[:most], dtype=np.int64)))


def one_side(source: ImageSource) -> int:
    """The side of images that are all square and equal. Raises InputError for others."""
    sizes = np.unique(np.asarray(source.sizes), axis=0)
    if len(sizes) != 1 or sizes[0][0] != sizes[0][1]:
        several = ", ".join(f"{w}×{h}" for h, w in sizes[:3].tolist())
        raise InputError(
            f"--images {source.name}: generated images are all of one size and square, these are "
            f"{several}{' …' if len(sizes) > 3 else ''}",
            kind="size",
        )
    return int(sizes[0][0])


@dataclass(frozen=True)
class _One:
    position: int
    image: Tensor

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        yield self.image.to(device)


class _Framed(Dataset[_One | Unreadable]):
    def __init__(self, source: ImageSource, plan: Plan) -> None:
        self.source = source
        self.plan = plan

    def __getitem__(self, position: int) -> _One | Unreadable:
        nothing = torch.Generator()
        try:
            image = self.source.read(position, lambda h, w: self.plan(h, w, nothing))
        except BadMediaError as error:
            return Unreadable(position, error.reason)
        return _One(position, image)
