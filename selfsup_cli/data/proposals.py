"""Regions of images that may hold an object: made by selective search, or read from a file.

What selective search makes is kept under `$SELFSUP_CACHE/proposals/KEY/`, where the key stands for
its settings and the fingerprint of the images' part. Shards are HDF5 files that are called by the
SHA-256 of their content and are written whole, so that a killed search goes on after its last one,
and a damaged one is not read. It is a cache: deleting it costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from selfsup_cli.data import hdf5
from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.framing import framed, region_of
from selfsup_cli.data.index import cache_root
from selfsup_cli.data.loader import killed_worker, quiet_worker
from selfsup_cli.errors import BadMediaError, InputError, MachineError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import parsed

_LOG = logging.getLogger("selfsup")
_SCHEMA = "selfsup.proposals/1"
_SHARD, _SHARD_SECONDS = 512, 60.0
# Smaller boxes than this, in pixels of what is searched, hold nothing that could be recognised.
_SMALLEST = 8
_FORM: dict[str, hdf5.Form] = {
    "image": (np.dtype("u1"), (None, 16)),
    "offsets": (np.dtype("<i8"), (None,)),
    "boxes": (np.dtype("<f4"), (None, 4)),
}

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class SelectiveSearch:
    """How regions are searched (Uijlings et al., 2013): `mode` of OpenCV's implementation, on
    images whose longer side is scaled to `side`; the `most` largest are kept."""

    mode: Literal["fast", "quality"] = "fast"
    side: int = 500
    most: int = 2000

    def __call__(self, image: torch.Tensor) -> np.ndarray:
        """Boxes float32 `[P, 4]` in pixels of an image uint8 `[3, H, W]`, RGB, the largest first.

        The same for the same image: that what OpenCV draws at random is the order alone.
        """
        cv2 = opencv()
        height, width = image.shape[1:]
        scale = self.side / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        small = framed(image, region_of(size, height, width))
        if min(size) < _SMALLEST:
            return np.zeros((0, 4), np.float32)
        # Its input is BGR.
        pixels: np.ndarray = np.ascontiguousarray(small.numpy().transpose(1, 2, 0)[..., ::-1])
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(pixels)
        if self.mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        found = np.asarray(search.process(), np.int64).reshape(-1, 4)
        found = np.unique(found[(found[:, 2:] >= _SMALLEST).all(1)], axis=0)
        order = np.argsort(-found[:, 2] * found[:, 3], kind="stable")[: self.most]
        left, top, wide, high = found[order].T
        edges = np.stack([left, top, left + wide, top + high], 1) * np.tile(
            [width / size[1], height / size[0]], 2
        )
        inside: np.ndarray = edges.clip(0, [width, height, width, height])
        return inside.astype(np.float32)


def opencv() -> Any:
    """OpenCV with its contributed modules. Raises MachineError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise _lacking("opencv-contrib-python-headless, which is not installed") from error
    if not hasattr(cv2, "ximgproc"):
        raise _lacking("opencv-contrib-python-headless; the OpenCV that is installed lacks it")
    cv2.setNumThreads(1)
    return cv2


def _lacking(what: str) -> MachineError:
    return MachineError(
        f"selective search takes the package {what}",
        kind="missing-package",
        hint="pip install 'selfsup[detect]', or give a file of --proposals, or --detector faster",
    )


def searched(
    source: BoxedImages, how: SelectiveSearch, *, workers: int, told: Told | None = None
) -> list[np.ndarray]:
    """The regions float32 `[P, 4]` of each image, cached, or searched in `workers` processes.

    `told(done, total)` counts images. One that cannot be read has none. Raises MachineError where
    OpenCV is lacking or the cache cannot be written.
    """
    folder = cache_folder(source, how)
    known = dict(_read_all(folder))
    places = [i for i in range(len(source)) if source.digest(i) not in known]
    if places:
        opencv()
        # Images of the same content have the same regions.
        first = {source.digest(i): i for i in reversed(places)}
        known.update(_search(source, sorted(first.values()), how, folder, workers, told))
    nothing = np.zeros((0, 4), np.float32)
    return [known.get(source.digest(i), nothing) for i in range(len(source))]


def cache_folder(source: BoxedImages, how: SelectiveSearch) -> Path:
    """Where the regions of the part that `source` was opened from are kept."""
    about = {"schema": _SCHEMA, "dataset": source.origin, **asdict(how)}
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return cache_root() / "proposals" / hashlib.sha256(text.encode()).hexdigest()


class _Searched(Dataset[tuple[int, "np.ndarray | None"]]):
    def __init__(self, source: BoxedImages, how: SelectiveSearch) -> None:
        self.source = source
        self.how = how

    def __getitem__(self, place: int) -> tuple[int, np.ndarray | None]:
        try:
            return place, self.how(self.source.read(place))
        except BadMediaError:
            return place, None


def _search(
    source: BoxedImages,
    places: Sequence[int],
    how: SelectiveSearch,
    folder: Path,
    workers: int,
    told: Told | None,
) -> Iterator[tuple[bytes, np.ndarray]]:
    loader: DataLoader[Any] = DataLoader(
        _Searched(source, how),
        batch_size=None,
        sampler=list(places),
        num_workers=workers,
        worker_init_fn=quiet_worker if workers else None,
        generator=torch.Generator().manual_seed(0),
        # NumPy's arrays stay what they are.
        collate_fn=_same,
    )
    pending: dict[bytes, np.ndarray] = {}
    written = time.monotonic()
    done = len(source) - len(places)
    try:
        for place, boxes in loader:
            done += 1
            if boxes is not None:
                pending[source.digest(place)] = boxes
                yield source.digest(place), boxes
            if len(pending) >= _SHARD or time.monotonic() - written > _SHARD_SECONDS:
                _write(folder, pending)
                pending, written = {}, time.monotonic()
            if told is not None:
                told(done, len(source))
    except RuntimeError as error:
        if (cause := killed_worker(error)) is not None:
            raise cause from error
        raise
    finally:
        _write(folder, pending)


def _same(item: Any) -> Any:
    return item


def _write(folder: Path, found: Mapping[bytes, np.ndarray]) -> None:
    """A shard, under the name of its content; built in memory: HDF5 must not meet a full disk."""
    if not found:
        return
    with h5py.File("shard.h5", "w", driver="core", backing_store=False) as file:
        offsets = np.cumsum([0, *(len(boxes) for boxes in found.values())]).astype("<i8")
        images = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
        every = np.concatenate([*found.values(), np.zeros((0, 4), np.float32)]).astype("<f4")
        file.create_dataset("image", data=images, track_times=False)
        file.create_dataset("offsets", data=offsets, track_times=False)
        packing = {"shuffle": True, "compression": 1} if len(every) else {}
        file.create_dataset("boxes", data=every, track_times=False, **packing)
        file.flush()
        content: bytes = file.id.get_file_image()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.cannot_write(folder, error) from error
    atomic.write_bytes(folder / f"{hashlib.sha256(content).hexdigest()}.h5", content)


def _read_all(folder: Path) -> Iterator[tuple[bytes, np.ndarray]]:
    """What the sound shards of a folder hold; those that are not are removed."""
    for path in sorted(folder.glob("*.h5")) if folder.is_dir() else []:
        try:
            if atomic.file_sha256(path) != path.stem:
                raise hdf5.StructureError("its content is not what was written")
            with hdf5.reading(path) as file:
                hdf5.check_structure(file, _FORM, path.stat().st_size)
                images, offsets, boxes = (file[name][()] for name in _FORM)
        except Exception as error:  # h5py raises many types on damaged files
            _LOG.warning("proposals %s: %s; searched again", path, error)
            with suppress(OSError):
                path.unlink()
            continue
        for number, image in enumerate(images):
            yield image.tobytes(), boxes[offsets[number] : offsets[number + 1]]


# Files of one's own

_SUFFIXES = (".h5", ".hdf5", ".npz", ".json")


def from_file(path: Path, source: BoxedImages) -> list[np.ndarray]:
    """The regions float32 `[P, 4]` of each image, as `file_regions` has them.

    An image is found by its id, its file name or that without its suffix. Raises InputError, naming
    the file and the image, for an image without an entry and for a box that is none.
    """
    known = file_regions(path)
    out = []
    for identifier, (height, width) in zip(source.ids, source.sizes.tolist(), strict=True):
        name = PurePosixPath(identifier)
        boxes = next((known[k] for k in (identifier, name.name, name.stem) if k in known), None)
        if boxes is None:
            raise InputError(f"{path} has no proposals for {identifier}", kind="proposals")
        boxes = np.asarray(boxes, np.float64)
        inside = boxes.clip(0, [width, height, width, height])
        flat = ~((inside[:, 2:] - inside[:, :2]) > 0).all(1)
        if flat.any():
            shown = ", ".join(f"{value:g}" for value in boxes[flat][0])
            raise InputError(
                f"{path}: a proposal for {identifier} ({shown}) has no area inside of the image, "
                f"which is {width}×{height} pixels",
                kind="proposals",
            )
        out.append(inside.astype(np.float32))
    return out


def file_regions(path: Path) -> dict[str, np.ndarray]:
    """Boxes `[P, 4]` (left, top, right, bottom in pixels from 0) by image, of a file of proposals.

    JSON: `{"IMAGE": [[left, top, right, bottom], …], …}`. HDF5 and NPZ: `images`, their names (text
    or bytes) `[N]`, `offsets`, whole numbers `[N + 1]`, and `boxes` `[M, 4]`, of which those from
    `offsets[i]` to before `offsets[i + 1]` belong to image i. Raises InputError for anything else.
    """
    path = path.expanduser()
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"proposals.file: {path} is none of {', '.join(_SUFFIXES)}", kind="proposals"
        )
    try:
        if path.suffix.lower() == ".json":
            return _from_json(parsed(path.read_bytes()))
        arrays = _from_npz(path) if path.suffix.lower() == ".npz" else _from_hdf5(path)
        return _split(arrays)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.strerror:
            said = error.strerror or "there is no such file"
            raise InputError(f"proposals.file: {path}: {said}", kind="proposals") from error
        raise InputError(f"{path} is no file of proposals: {error}", kind="proposals") from error
    except InputError:
        raise
    except Exception as error:  # NumPy and h5py raise many types on damaged files
        raise InputError(f"{path} is no file of proposals: {error}", kind="proposals") from error


def _from_json(content: Any) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise ValueError("it is no object of lists of boxes by image")
    return {str(name): _checked(rows, str(name)) for name, rows in content.items()}


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ("images", "offsets", "boxes")}


def _from_hdf5(path: Path) -> dict[str, np.ndarray]:
    with hdf5.reading(path) as file:
        size = path.stat().st_size
        arrays = {name: hdf5.plain(file, name, size) for name in ("images", "offsets", "boxes")}
        text = h5py.check_string_dtype(arrays["images"].dtype) is not None
        names = arrays["images"].asstr()[()] if text else arrays["images"][()]
        return {"images": names, "offsets": arrays["offsets"][()], "boxes": arrays["boxes"][()]}


def _split(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names, offsets, boxes = arrays["images"], arrays["offsets"], arrays["boxes"]
    whole = names.ndim == offsets.ndim == 1 and np.issubdtype(offsets.dtype, np.integer)
    if not whole or len(offsets) != len(names) + 1 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError("images [N], offsets [N + 1] and boxes [M, 4] do not fit together")
    if offsets[0] != 0 or offsets[-1] != len(boxes) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets do not rise from 0 to the {len(boxes)} boxes")
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in names.tolist()]
    return {
        name: _checked(boxes[offsets[i] : offsets[i + 1]], name) for i, name in enumerate(texts)
    }


def _checked(rows: Any, name: str) -> np.ndarray:
    boxes = np.asarray(rows, np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"the boxes of {name} are not four finite numbers each")
    return boxes
