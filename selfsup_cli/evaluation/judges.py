"""The networks by whose features images are compared, and those features of images on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.cache import FeatureCache, cache_root, key_of
from selfsup_cli.evaluation.features import weights_sha256
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.models import Backbone
from selfsup_cli.transforms.images import center_crop, to_unit
from selfsup_cli.version import __version__

FEATURES, LOGITS = "features", "logits"

_SHARD_IMAGES = 1024
Progress = Callable[[int, int], None]
Span = tuple[int, int]


@dataclass(frozen=True)
class Judge:
    """A network as the metrics see it.

    `look` maps uint8 images `[B, 3, H, W]` to float32 `FEATURES` `[B, D]` and, where the network
    has classes, to `LOGITS` `[B, C]`; `dims` says D and C. `name` is what its numbers are called
    after, `weights` the SHA-256 of its weights, `resize` how images are brought to its size, `said`
    what a reader has to be told of it, `origin` where it came from, for a run's parents.
    """

    name: str
    look: Callable[[Tensor], Mapping[str, Tensor]]
    dims: Mapping[str, int]
    weights: str
    resize: str
    said: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)


class Pixels(Protocol):
    """Images that are all of one size, and can be had again: the same bytes for one fingerprint."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, spans: Sequence[Span], batch: int) -> Iterator[Tensor]:
        """The images [first, last) of each of `spans`, uint8 `[b, 3, H, W]` with b ≤ `batch`, in
        order; no batch reaches from one span into the next."""
        ...


@dataclass(frozen=True)
class Seen:
    """What a judge makes of images: float32 `[N, D]`, and `[N, C]` where it has classes."""

    features: Tensor
    logits: Tensor | None


def backbone_judge(backbone: Backbone, name: str, device: torch.device) -> Judge:
    """A backbone of ours, in evaluation mode, by its embedding.

    Images come to its size as in every evaluation: the shorter side scaled, the centre cut out.
    """
    spec = backbone.input
    shorter = shorter_side(spec)
    network = backbone.to(device).eval()

    @torch.no_grad()
    def look(images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        least = min(height, width)
        size = (height * shorter // least, width * shorter // least)
        scaled = images.to(device)
        if size != (height, width):
            # Bytes are scaled by processors only, and by those with other roundings.
            found = interpolate(scaled.float(), size, mode="bilinear", antialias=True)
            scaled = found.round_().clamp_(0, 255).to(torch.uint8)
        return {FEATURES: network.embed(to_unit(center_crop(scaled, spec.crop))).float()}

    blank = torch.zeros(1, 3, shorter, shorter, dtype=torch.uint8)
    return Judge(
        name,
        look,
        {FEATURES: look(blank)[FEATURES].shape[1]},
        weights_sha256(backbone),
        f"shorter side to {shorter} pixels, bilinear with antialiasing; centre {spec.crop}",
    )


def see(
    judge: Judge,
    pixels: Pixels,
    *,
    batch: int = 100,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Seen:
    """What `judge` makes of all of `pixels`, from the cache as far as it is there.

    The cache lies in `folder`, by default among the features of `cache_root()`, and is written a
    thousand images at a time, so that work goes on after a kill: `progress(done, total)` may raise
    to stop. Raises InputError for features that are not finite, MachineError for a full disk.
    """
    about: dict[str, Any] = {
        "version": __version__,
        "weights": judge.weights,
        "network": judge.name,
        "dims": dict(judge.dims),
        "resize": judge.resize,
        "dataset": pixels.fingerprint,
        "images": len(pixels),
        "batch": batch,
    }
    if folder is None:
        folder = cache_root() / "features" / key_of(about)
    row = 4 * sum(judge.dims.values()) + 8
    rows = np.ones(len(pixels), dtype=np.int64)
    cache = FeatureCache(folder, about, dict(judge.dims), rows, shard_bytes=_SHARD_IMAGES * row)
    waiting = None if progress is None else partial(progress, 0, len(pixels))
    with cache.locked(waiting):
        _extract(judge, pixels, cache, batch, progress)
        found = {
            name: torch.from_numpy(
                np.concatenate([cache.read(shard, name) for shard in range(len(cache.spans))])
            )
            for name in judge.dims
        }
    return Seen(found[FEATURES], found.get(LOGITS))


def _extract(
    judge: Judge, pixels: Pixels, cache: FeatureCache, batch: int, progress: Progress | None
) -> None:
    missing = cache.missing()
    if not missing:
        return
    cache.require_room(missing)
    spans = [(cache.spans[shard].first, cache.spans[shard].last) for shard in missing]
    total, done = sum(last - first for first, last in spans), 0
    images = pixels.read(spans, batch)
    for shard, (first, last) in zip(missing, spans, strict=True):
        parts: dict[str, list[np.ndarray]] = {name: [] for name in judge.dims}
        kept = 0
        while kept < last - first:
            some = next(images)
            for name, value in judge.look(some).items():
                if not bool(torch.isfinite(value).all()):
                    raise InputError(
                        f"{judge.name} gives {name} that are not finite: the images or the "
                        "weights are unusable",
                        kind="not-finite",
                    )
                parts[name].append(value.cpu().numpy())
            kept += len(some)
            if progress is not None:
                progress(done + kept, total)
        owner = np.arange(first, last, dtype=np.int64)
        cache.write(shard, owner, {name: np.concatenate(parts[name]) for name in judge.dims})
        done += last - first


@contextmanager
def exact() -> Iterator[None]:
    """CUDA multiplies in float32 here: tf32 would move an FID in its digits."""
    flags: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = False
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value
