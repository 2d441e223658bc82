"""Features of a frozen backbone: all layers in one pass, one row for each clip or view."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ClipSource, ImageSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.cache import FeatureCache, Span, cache_root, key_of
from selfsup_cli.evaluation.clips import ClipProtocol, ProtocolPlan, read_videos
from selfsup_cli.evaluation.pooling import Cells, Pooling, pool
from selfsup_cli.evaluation.reading import Item, in_batches
from selfsup_cli.evaluation.standard import Standard, standard
from selfsup_cli.evaluation.views import ImageViews, read_images
from selfsup_cli.models import Backbone
from selfsup_cli.transforms.clips import center
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.version import __version__

__all__ = [
    "EMBEDDING",
    "Features",
    "Frozen",
    "Standard",
    "embed",
    "extract",
    "pool",
    "standard",
    "weights_sha256",
]

EMBEDDING = "embedding"
"""Name under which the embedding (a layer's mean over all places) is kept beside the layers."""

Progress = Callable[[int, int], None]

_GAP = 256


# The network


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Frozen:
    """A backbone in evaluation mode, and what is taken from it."""

    backbone: Backbone
    layers: tuple[str, ...]
    pooling: Pooling
    hardware: Hardware

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Pooled features of uint8 clips [B, 3, T, H, W] or of views of images [B, 3, S, S].

        Float32 [B, D] on the CPU, by layer.
        """
        spec = self.backbone.input
        wanted = list(dict.fromkeys([*self.layers, self.backbone.embedding]))
        with torch.no_grad(), self.hardware.autocast():
            x = to_unit(inputs) if spec.kind == "image" else center(inputs, spec.crop)
            found = self.backbone.features(x, wanted)
        out = {layer: self.pooling(layer, found[layer]) for layer in self.layers}
        out[EMBEDDING] = pool(found[self.backbone.embedding], 1)
        return {name: value.cpu() for name, value in out.items()}

    def dims(self) -> dict[str, int]:
        """Features per row of each layer, in the order of `layers`, then of the embedding."""
        shape = (1, *self.backbone.input.shape)
        blank = torch.zeros(shape, dtype=torch.uint8, device=self.hardware.device)
        return {name: value.shape[1] for name, value in self(blank).items()}


def check_finite(found: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for layer, value in found.items():
        bad = ~torch.isfinite(value).all(1)
        if bool(bad.any()):
            raise InputError(
                f"layer {layer} gives values that are not finite for {names[int(bad.nonzero()[0])]}"
                ": the weights are unusable, or the precision too low (try --precision 32)",
                kind="not-finite",
            )


# Features


class Rows(Protocol):
    """Stored rows of several layers, in parts that are read one at a time."""

    def bounds(self) -> list[tuple[int, int]]:
        """The rows [start, stop) of each part."""
        ...

    def read(self, part: int, layer: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), counted within the part, float32 [n, D]."""
        ...


class _OnDisk:
    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache

    def bounds(self) -> list[tuple[int, int]]:
        return [(span.start, span.stop) for span in self.cache.spans]

    def read(self, part: int, layer: str, start: int, stop: int) -> np.ndarray:
        return self.cache.read(part, layer, start, stop)


class _InMemory:
    def __init__(self, layers: Mapping[str, np.ndarray]) -> None:
        self.layers = layers

    def bounds(self) -> list[tuple[int, int]]:
        return [(0, len(next(iter(self.layers.values()))))]

    def read(self, part: int, layer: str, start: int, stop: int) -> np.ndarray:
        return self.layers[layer][start:stop]


class Features:
    """Features of a source: one row for each clip of a video or view of an image, adjacent.

    `dims`: features per row of each layer, in the order of the network, then the embedding.
    `video`: int64 [R], the position in the source of each row's video or image. `about`: plain
    values that say what was extracted from what.
    """

    def __init__(
        self, rows: Rows, dims: Mapping[str, int], video: np.ndarray, about: Mapping[str, Any]
    ) -> None:
        self._rows = rows
        self.dims = dict(dims)
        self.video = video
        self.about = dict(about)

    @classmethod
    def of(
        cls,
        layers: Mapping[str, np.ndarray],
        video: np.ndarray,
        about: Mapping[str, Any] | None = None,
    ) -> Features:
        """Features that lie in memory: float32 [R, D] for each layer."""
        dims = {layer: array.shape[1] for layer, array in layers.items()}
        return cls(_InMemory(layers), dims, video, about or {})

    def __len__(self) -> int:
        return len(self.video)

    def nbytes(self, layer: str) -> int:
        """Bytes that all rows of a layer take in memory."""
        return len(self) * self._dim(layer) * 4

    def blocks(self, layer: str, rows: int = 4096) -> Iterator[tuple[int, Tensor]]:
        """All rows of a layer in order, in pieces: the first row's number, and float32 [n, D]."""
        self._dim(layer)
        for part, (first, last) in enumerate(self._rows.bounds()):
            for start in range(0, last - first, rows):
                stop = min(start + rows, last - first)
                array = self._rows.read(part, layer, start, stop)
                yield first + start, torch.from_numpy(array)

    def read(self, layer: str) -> Tensor:
        """All rows of a layer, float32 [R, D]."""
        out = torch.empty(len(self), self._dim(layer))
        for first, block in self.blocks(layer):
            out[first : first + len(block)] = block
        return out

    def take(self, layer: str, rows: np.ndarray) -> Tensor:
        """The rows whose numbers int64 [n] are given, ascending: float32 [n, D]."""
        out = torch.empty(len(rows), self._dim(layer))
        for part, (first, last) in enumerate(self._rows.bounds()):
            low, high = np.searchsorted(rows, [first, last])
            inside = rows[low:high] - first
            # Rows near each other are one read: opening a shard costs more than a few rows.
            groups = np.split(inside, np.flatnonzero(np.diff(inside) > _GAP) + 1)
            for group in groups if len(inside) else []:
                start, stop = int(group[0]), int(group[-1]) + 1
                array = self._rows.read(part, layer, start, stop)
                out[low : low + len(group)] = torch.from_numpy(array[group - start])
                low += len(group)
        return out

    def video_means(self, layer: str, videos: int) -> Tensor:
        """Mean over the rows of each of so many videos or images, float32 [videos, D]."""
        total = torch.zeros(videos, self._dim(layer), dtype=torch.float64)
        for first, block in self.blocks(layer):
            owner = torch.from_numpy(self.video[first : first + len(block)])
            total.index_add_(0, owner, block.double())
        count = torch.from_numpy(np.bincount(self.video, minlength=videos))
        return (total / count.clamp(min=1)[:, None]).float()

    def _dim(self, layer: str) -> int:
        if layer not in self.dims:
            raise unknown("layer", layer, list(self.dims))
        return self.dims[layer]


Source = ClipSource | ImageSource
Views = ClipProtocol | ImageViews


def extract(
    backbone: Backbone,
    source: Source,
    views: Views,
    *,
    hardware: Hardware,
    layers: Sequence[str] | None = None,
    grid: int = 1,
    pooling: Pooling | None = None,
    batch: int = 32,
    workers: int = 0,
    root: Path | None = None,
    progress: Progress | None = None,
) -> Features:
    """Features of all videos or images of `source`, from the cache as far as they are there.

    `views` says what of each is looked at: a `ClipProtocol` for videos, `ImageViews` for images.
    All `layers` (default: all of the backbone's) come from one pass: averaged to at most `grid`
    cells along (time,) height and width, or by `pooling`, and flattened; the embedding comes
    besides. The network runs in evaluation mode and is left as it was. `progress(done, total)`
    counts videos or images and may raise to stop: shards that are written stay. The cache lies
    under `root` (default: `cache_root()`). Processes that have joined a group share the work, and
    must all call this with the same arguments. Raises InputError for an unknown layer, a file that
    cannot be read and values that are not finite, MachineError for a full disk.
    """
    layers = list(backbone.layers if layers is None else layers)
    for layer in layers:
        if layer not in backbone.layers:
            raise unknown("layer", layer, list(backbone.layers))
    if pooling is None:
        is_image = backbone.input.kind == "image"
        pooling = Cells(grid, "height and width") if is_image else Cells(grid)
    about: dict[str, Any] = {
        "version": __version__,
        "weights": weights_sha256(backbone),
        "network": backbone.spec,
        "layers": layers,
        "pooling": pooling.describe(),
        "dataset": source.fingerprint,
        "protocol": views.describe(),
        "resize": list(backbone.input.resize),
        "crop": backbone.input.crop,
        "precision": hardware.precision,
    }
    rows = _rows_each(source, views)
    video = np.repeat(np.arange(len(source), dtype=np.int64), rows)
    folder = (root or cache_root()) / "features" / key_of(about)
    waiting = None if progress is None else partial(progress, 0, len(source))
    with _evaluating(backbone, hardware):
        network = Frozen(backbone, tuple(layers), pooling, hardware)
        cache = FeatureCache(folder, about, network.dims(), rows)
        with _held(cache, waiting):
            # Of several processes each makes every so-many-th shard.
            missing = cache.missing(
                range(processes.member(), len(cache.spans), processes.members())
            )
            if missing:
                cache.require_room(missing)
                spans = [cache.spans[shard] for shard in missing]
                wanted = [item for span in spans for item in range(span.first, span.last)]
                decoded = _read(backbone, source, wanted, views, workers)
                done = 0
                for shard, span in zip(missing, spans, strict=True):
                    # A batch never crosses a shard: made again, a shard is the same to the bit.
                    own = islice(decoded, span.last - span.first)
                    told = _offset(progress, done - span.first, len(wanted))
                    owner, arrays = _rows_of(network, own, span, cache.dims, batch, source, told)
                    cache.write(shard, owner, arrays)
                    done += span.last - span.first
    return Features(_OnDisk(cache), cache.dims, video, about)


def embed(
    backbone: Backbone,
    source: Source,
    views: Views,
    *,
    hardware: Hardware,
    batch: int = 32,
    workers: int = 0,
    bad: Callable[[str, str], None] | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Embeddings of videos or images without the cache, for checks while training.

    Returns the mean over the clips or views of each, float32 [n, D], and their positions in the
    source, int64 [n]: all of them, but for those that cannot be read where `bad` is given (see
    `reading.read_items`).
    """
    decoded = _read(backbone, source, range(len(source)), views, workers, bad)
    rows: list[Tensor] = []
    positions: list[int] = []
    with _evaluating(backbone, hardware):
        network = Frozen(backbone, (), Cells(1), hardware)
        for pixels, owners in in_batches(decoded, batch, hardware.device):
            found = network(pixels)
            check_finite(found, [source.ids[owner] for owner in owners])
            rows.append(found[EMBEDDING])
            positions += owners
    if not rows:
        raise InputError(
            f"no {backbone.input.kind} of {source.name} could be read", kind="bad-media"
        )
    features = Features.of({EMBEDDING: torch.cat(rows).numpy()}, np.array(positions))
    kept = np.unique(features.video)
    return features.video_means(EMBEDDING, len(source))[torch.from_numpy(kept)], kept


def _rows_each(source: Source, views: Views) -> np.ndarray:
    if isinstance(views, ImageViews):
        return views.count_each(cast(ImageSource, source))
    return views.count_each(cast(ClipSource, source).num_frames)


def _read(
    backbone: Backbone,
    source: Source,
    positions: Sequence[int],
    views: Views,
    workers: int,
    bad: Callable[[str, str], None] | None = None,
) -> Iterator[Item]:
    """What the network is to see of the videos or images at `positions`."""
    spec = backbone.input
    if (spec.kind == "image") != isinstance(views, ImageViews):
        raise TypeError(f"{backbone.arch} takes {spec.kind}s")
    if isinstance(views, ImageViews):
        return read_images(cast(ImageSource, source), positions, views, spec, workers, bad)
    videos = cast(ClipSource, source)
    plan = ProtocolPlan(videos, views)
    return read_videos(videos, positions, plan, spec.resize, workers, bad)


@contextmanager
def _held(cache: FeatureCache, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold the cache against other jobs; of several processes of this one, the first does."""
    with cache.locked(waiting) if processes.member() == 0 else nullcontext():
        processes.wait_for_all()
        yield
        processes.wait_for_all()


@contextmanager
def _evaluating(backbone: Backbone, hardware: Hardware) -> Iterator[None]:
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.to(hardware.device).eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _offset(progress: Progress | None, offset: int, total: int) -> Callable[[int], None]:
    """`progress` for a part of the source: called with the last video or image that is done."""

    def tell(position: int) -> None:
        if progress is not None:
            progress(position + 1 + offset, total)

    return tell


def _rows_of(
    network: Frozen,
    decoded: Iterator[Item],
    span: Span,
    dims: Mapping[str, int],
    batch: int,
    source: Source,
    tell: Callable[[int], None],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The content of one shard: whose each row is, and each layer's rows."""
    rows = span.stop - span.start
    owner = np.empty(rows, np.int64)
    arrays = {name: np.empty((rows, dim), np.float32) for name, dim in dims.items()}
    filled = 0
    for pixels, owners in in_batches(decoded, batch, network.hardware.device):
        found = network(pixels)
        check_finite(found, [source.ids[owner] for owner in owners])
        part = slice(filled, filled + len(owners))
        owner[part] = owners
        for name, value in found.items():
            arrays[name][part] = value.numpy()
        filled += len(owners)
        tell(owners[-1])
    return owner, arrays
