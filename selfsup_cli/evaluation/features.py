"""Features of a frozen backbone: all layers in one pass over the videos, one row per clip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.cache import FeatureCache, Span, cache_root, key_of
from selfsup_cli.evaluation.clips import (
    ClipProtocol,
    Decoded,
    ProtocolPlan,
    in_batches,
    read_videos,
)
from selfsup_cli.models import Backbone
from selfsup_cli.transforms.clips import center
from selfsup_cli.version import __version__

EMBEDDING = "embedding"
"""Name under which the embedding (a layer's mean over time and space) is kept beside the layers."""

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


def pool(activation: Tensor, grid: int) -> Tensor:
    """Average [B, C, T, H, W] to at most `grid` cells along T, H and W and flatten: [B, C·cells].

    Vectors [B, C] (fully connected layers) stay as they are. Float32 out.
    """
    activation = activation.float()
    if activation.ndim == 2:
        return activation
    t, h, w = (min(grid, length) for length in activation.shape[2:])
    return F.adaptive_avg_pool3d(activation, (t, h, w)).flatten(1)


@dataclass(frozen=True)
class Frozen:
    """A backbone in evaluation mode, and what is taken from it."""

    backbone: Backbone
    layers: tuple[str, ...]
    grid: int
    hardware: Hardware

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        """Pooled features of uint8 clips [B, 3, T, H, W]: float32 [B, D] on the CPU, by layer."""
        wanted = list(dict.fromkeys([*self.layers, self.backbone.embedding]))
        with torch.no_grad(), self.hardware.autocast():
            found = self.backbone.features(center(clips, self.backbone.input.crop), wanted)
        out = {layer: pool(found[layer], self.grid) for layer in self.layers}
        out[EMBEDDING] = pool(found[self.backbone.embedding], 1)
        return {name: value.cpu() for name, value in out.items()}

    def dims(self) -> dict[str, int]:
        """Features per clip of each layer, in the order of `layers`, then of the embedding."""
        spec = self.backbone.input
        shape = (1, 3, spec.frames, spec.crop, spec.crop)
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
    """Features of the clips of a source: one row per clip, the clips of a video adjacent.

    `dims`: features per row of each layer, in the order of the network, then the embedding.
    `video`: int64 [R], the position in the source of each row's video. `about`: plain values that
    say what was extracted from what.
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
        """Mean over the clips of each video, float32 [videos, D]."""
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


@dataclass(frozen=True)
class Standard:
    """Subtracts `mean` and multiplies by `scale`, float32 [D] each: batch norm without affine."""

    mean: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[n, D] → [n, D], with mean 0 and variance 1 on what the statistics were taken from."""
        return (x - self.mean.to(x.device)) * self.scale.to(x.device)

    @classmethod
    def none(cls, features: int) -> Standard:
        """Statistics that leave features as they are."""
        return cls(torch.zeros(features), torch.ones(features))


def standard(blocks: Iterator[Tensor]) -> Standard:
    """Per-feature statistics of rows that come in blocks [n, D], in one pass.

    As in batch norm, a small constant is added to the variances, so that features that hardly vary
    do not drown the rest in noise; it is a thousandth of the mean variance (0.001 is what batch
    norm takes where the variances are about 1), so the result does not depend on the layer's scale.
    """
    count = 0
    mean = square = torch.zeros(())
    for block in blocks:
        block = block.double()
        n = len(block)
        if n == 0:
            continue
        own = block.mean(0)
        delta = own - mean
        deviation = (block - own).square().sum(0)
        square = square + deviation + delta.square() * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
    if count == 0:
        raise InputError("there are no features to take statistics of")
    variance = square / count
    scale = (variance + 1e-3 * variance.mean()).rsqrt()
    return Standard(mean.float(), torch.where(torch.isfinite(scale), scale, 0.0).float())


def extract(
    backbone: Backbone,
    source: ClipSource,
    clips: ClipProtocol,
    *,
    hardware: Hardware,
    layers: Sequence[str] | None = None,
    grid: int = 1,
    batch: int = 32,
    workers: int = 0,
    root: Path | None = None,
    progress: Progress | None = None,
) -> Features:
    """Features of every video of `source`, from the cache as far as they are there.

    All `layers` (default: all of the backbone's) come from one pass: averaged to at most `grid`
    cells along time, height and width, and flattened; the embedding comes besides. The network
    runs in evaluation mode and is left as it was. `progress(done, total)` counts videos and may
    raise to stop: shards that are written stay. The cache lies under `root` (default:
    `cache_root()`). Processes that have joined a group share the work, and must all call this with
    the same arguments. Raises InputError for an unknown layer, a video that cannot be read and
    values that are not finite, MachineError for a full disk.
    """
    layers = list(backbone.layers if layers is None else layers)
    for layer in layers:
        if layer not in backbone.layers:
            raise unknown("layer", layer, list(backbone.layers))
    about: dict[str, Any] = {
        "version": __version__,
        "weights": weights_sha256(backbone),
        "network": backbone.spec,
        "layers": layers,
        "pooling": f"mean over at most {grid} cells along time, height and width",
        "dataset": source.fingerprint,
        "protocol": clips.describe(),
        "resize": list(backbone.input.resize),
        "crop": backbone.input.crop,
        "precision": hardware.precision,
    }
    rows = clips.count_each(source.num_frames)
    video = np.repeat(np.arange(len(source), dtype=np.int64), rows)
    folder = (root or cache_root()) / "features" / key_of(about)
    waiting = None if progress is None else partial(progress, 0, len(source))
    with _evaluating(backbone, hardware):
        network = Frozen(backbone, tuple(layers), grid, hardware)
        cache = FeatureCache(folder, about, network.dims(), rows)
        with _held(cache, waiting):
            # Of several processes each makes every so-many-th shard.
            missing = cache.missing(
                range(processes.member(), len(cache.spans), processes.members())
            )
            if missing:
                cache.require_room(missing)
                spans = [cache.spans[shard] for shard in missing]
                videos = [video for span in spans for video in range(span.first, span.last)]
                plan = ProtocolPlan(source, clips)
                decoded = read_videos(source, videos, plan, backbone.input.resize, workers)
                done = 0
                for shard, span in zip(missing, spans, strict=True):
                    # A batch never crosses a shard: made again, a shard is the same to the bit.
                    own = islice(decoded, span.last - span.first)
                    told = _offset(progress, done - span.first, len(videos))
                    owner, arrays = _rows_of(network, own, span, cache.dims, batch, source, told)
                    cache.write(shard, owner, arrays)
                    done += span.last - span.first
    return Features(_OnDisk(cache), cache.dims, video, about)


def embed(
    backbone: Backbone,
    source: ClipSource,
    clips: ClipProtocol,
    *,
    hardware: Hardware,
    batch: int = 32,
    workers: int = 0,
    bad: Callable[[str, str], None] | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Embeddings of videos without the cache, for checks while training.

    Returns the mean over each video's clips, float32 [n, D], and the positions of the videos in the
    source, int64 [n]: all of them, but for those that cannot be read where `bad` is given (see
    `read_videos`).
    """
    plan = ProtocolPlan(source, clips)
    size = backbone.input.resize
    decoded = read_videos(source, range(len(source)), plan, size, workers, bad)
    rows: list[Tensor] = []
    videos: list[int] = []
    with _evaluating(backbone, hardware):
        network = Frozen(backbone, (), 1, hardware)
        for pixels, owners in in_batches(decoded, batch, hardware.device):
            found = network(pixels)
            check_finite(found, [source.ids[video] for video in owners])
            rows.append(found[EMBEDDING])
            videos += owners
    if not rows:
        raise InputError(f"no video of {source.name} could be read", kind="bad-media")
    features = Features.of({EMBEDDING: torch.cat(rows).numpy()}, np.array(videos))
    kept = np.unique(features.video)
    return features.video_means(EMBEDDING, len(source))[torch.from_numpy(kept)], kept


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
    """`progress` for a part of the videos: called with the last video that is done."""

    def tell(video: int) -> None:
        if progress is not None:
            progress(video + 1 + offset, total)

    return tell


def _rows_of(
    network: Frozen,
    decoded: Iterator[Decoded],
    span: Span,
    dims: Mapping[str, int],
    batch: int,
    source: ClipSource,
    tell: Callable[[int], None],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The content of one shard: the video of each row, and each layer's rows."""
    rows = span.stop - span.start
    owner = np.empty(rows, np.int64)
    arrays = {name: np.empty((rows, dim), np.float32) for name, dim in dims.items()}
    filled = 0
    for pixels, owners in in_batches(decoded, batch, network.hardware.device):
        found = network(pixels)
        check_finite(found, [source.ids[video] for video in owners])
        part = slice(filled, filled + len(owners))
        owner[part] = owners
        for name, value in found.items():
            arrays[name][part] = value.numpy()
        filled += len(owners)
        tell(owners[-1])
    return owner, arrays
