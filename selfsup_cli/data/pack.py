"""Packs as a source of clips: frames that were decoded and scaled once (`selfsup data pack`)."""

from __future__ import annotations

import hashlib
import os
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.blocks import Data, VideoData
from selfsup_cli.data import pack_layout, quarantine
from selfsup_cli.data.fingerprint import fingerprint_of
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import held_out_rule, hold_out, unlabelled
from selfsup_cli.data.pack_about import Coding
from selfsup_cli.data.pack_layout import START, Stamp, Tables
from selfsup_cli.data.source import QUARANTINED, LeftOut, Split
from selfsup_cli.errors import BadMediaError, InputError

if TYPE_CHECKING:
    import torch

SUFFIX = ".h5"
_PIECE = 1 << 22
_SHA256 = 32
_CHANGED = "the pack has changed since it was opened"


class Frames:
    """The stored frames of a pack, read from whatever process this finds itself in.

    They are read and not mapped: no slower, and a disk that fails or a file that is cut short is
    an error then, and not the end of the process.
    """

    def __init__(self, path: Path, tables: Tables, places: pack_layout.Places) -> None:
        self.path = path
        self._places = places
        self._first = np.concatenate([[0], np.cumsum(tables.frames)])
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def read(self, name: str, video: int, frames: np.ndarray, coding: Coding) -> torch.Tensor:
        """Frames (int64 `[T]`, ascending) of the video at place `video`, uint8 `[3,T,H,W]`.

        Raises `BadMediaError`, about `name`, unless each of them is as it was stored.
        """
        from selfsup_cli.data import frame_codec

        try:
            return frame_codec.decode(coding, self._stored(video, frames))
        except (OSError, ValueError) as error:
            raise BadMediaError(name, f"its frames in the pack cannot be read ({error})") from error

    def file(self, name: str, image: int) -> bytes:
        """The file that is stored for the image at place `image`; raises `BadMediaError`."""
        try:
            return bytes(self._stored(image, np.zeros(1, np.int64))[0])
        except (OSError, ValueError) as error:
            raise BadMediaError(name, f"it cannot be read in the pack ({error})") from error

    def verify(self, name: str, video: int) -> None:
        """Compare all stored frames of a video with the SHA-256 that was taken of them."""
        first, end = int(self._first[video]), int(self._first[video + 1])
        digest = hashlib.sha256()
        try:
            offsets = self._column(self._places.offsets, "<i8", first, end + 1)
            start, stop = START + int(offsets[0]), START + int(offsets[-1])
            if not START <= start <= stop <= self._places.data_end:
                raise ValueError("they are not where they belong")
            for at in range(start, stop, _PIECE):
                digest.update(self._bytes(at, min(at + _PIECE, stop)))
            expected = self.digest(video)
        except (OSError, ValueError) as error:
            raise BadMediaError(name, f"its frames in the pack cannot be read ({error})") from error
        if digest.digest() != expected:
            raise BadMediaError(name, "its frames in the pack do not match their checksum")

    def digest(self, video: int) -> bytes:
        """SHA-256 over the stored frames of a video, as it was when they were stored."""
        place = self._places.digests + video * _SHA256
        return self._bytes(place, place + _SHA256)

    def _stored(self, video: int, frames: np.ndarray) -> list[memoryview]:
        low = int(self._first[video] + frames[0])
        high = int(self._first[video] + frames[-1]) + 1
        offsets = self._column(self._places.offsets, "<i8", low, high + 1)
        checksums = self._column(self._places.checksums, "<u4", low, high)
        at = frames - frames[0]
        starts, stops = START + offsets[at], START + offsets[at + 1]
        if starts[0] < START or stops[-1] > self._places.data_end or (np.diff(offsets) < 0).any():
            raise ValueError("they are not where they belong")
        # What lies close together is read at once.
        base, end = int(starts[0]), int(stops[-1])
        near = end - base <= 2 * int((stops - starts).sum())
        span = memoryview(self._bytes(base, end)) if near else None
        stored = []
        wanted = zip(starts.tolist(), stops.tolist(), checksums[at].tolist(), strict=True)
        for start, stop, checksum in wanted:
            if span is None:
                data = memoryview(self._bytes(start, stop))
            else:
                data = span[start - base : stop - base]
            if zlib.crc32(data) != checksum:
                raise ValueError("they do not match their checksum")
            stored.append(data)
        return stored

    def _column(self, place: int, kind: str, start: int, stop: int) -> np.ndarray:
        width = np.dtype(kind).itemsize
        return np.frombuffer(self._bytes(place + start * width, place + stop * width), kind)

    def _bytes(self, start: int, stop: int) -> bytes:
        data = os.pread(self._fd(), stop - start, start)
        while len(data) < stop - start:
            more = os.pread(self._fd(), stop - start - len(data), start + len(data))
            if not more:
                raise ValueError("the file is cut short")
            data += more
        return data

    def _fd(self) -> int:
        if self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if Stamp.of(descriptor) != self._places.stamp:
                os.close(descriptor)
                raise ValueError(_CHANGED)
            self._descriptor = descriptor
            weakref.finalize(self, os.close, descriptor)
        return self._descriptor


class PackSource:
    """Videos in a pack; a `ClipSource`. `storage` says in which size and quality they lie there."""

    def __init__(
        self,
        name: str,
        frames: Frames,
        tables: Tables,
        coding: Coding,
        rows: np.ndarray,
        split: str,
        split_rule: str,
        left_out: Sequence[LeftOut],
        *,
        labels: bool,
    ) -> None:
        """`rows` (int64) are the places in the pack of the videos that belong to the split."""
        self.name = name
        self.ids: Sequence[str] = tables.ids.take(rows)
        self.num_frames = tables.frames[rows]
        self.labels = tables.labels[rows] if labels else None
        self.classes = tables.about.classes if labels else None
        self.split = split
        self.split_rule = split_rule
        self.left_out = left_out
        self.storage = storage(tables)
        self.coding = coding  # in which size and quality the frames are stored
        self._frames = frames
        self._rows = rows
        self._digests = digests_of(tables, rows)
        self.fingerprint = fingerprint_of(self._digests, self.labels, self.classes)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        """Frames of video `i`, uint8 `[3,T,H,W]` (see `ClipSource.read`).

        Without a `size` they come in the one they are stored in.
        """
        import torch
        from torch.nn.functional import interpolate

        frames = np.asarray(frames, np.int64)
        if frames.ndim != 1 or not frames.size:
            raise ValueError("frames must be a non-empty list of frame numbers")
        if frames.min() < 0 or frames.max() >= self.num_frames[i]:
            raise ValueError(
                f"frames {frames.min()} … {frames.max()} of a video of {self.num_frames[i]}"
            )
        ascending = bool((frames[1:] > frames[:-1]).all())
        unique, inverse = (frames, None) if ascending else np.unique(frames, return_inverse=True)
        images = self._frames.read(self.ids[i], int(self._rows[i]), unique, self.coding)
        if size is not None and size != self.coding.size:
            images = images.transpose(0, 1)
            images = interpolate(images, size, mode="bilinear", antialias=True).transpose(0, 1)
        if inverse is not None:
            images = images.index_select(1, torch.from_numpy(inverse))
        return images

    def digest(self, i: int) -> bytes:
        """SHA-256 over the stored frames of video `i`, as it was when they were stored."""
        return self._frames.digest(int(self._rows[i]))

    def verify(self, i: int) -> None:
        """Raise `BadMediaError` unless the stored frames of video `i` are what was stored."""
        self._frames.verify(self.ids[i], int(self._rows[i]))

    def subset(self, indices: np.ndarray) -> PackSource:
        """The videos `indices` (int64, in that order) as a source of its own."""
        indices = np.asarray(indices, np.int64)
        subset = object.__new__(PackSource)
        subset.__dict__.update(self.__dict__)
        subset.ids = PackedIds(self.ids[i] for i in indices)
        subset.num_frames = self.num_frames[indices]
        subset.labels = None if self.labels is None else self.labels[indices]
        subset._rows = self._rows[indices]
        subset._digests = self._digests[indices]
        subset.fingerprint = fingerprint_of(subset._digests, subset.labels, subset.classes)
        return subset


def is_pack(source: str | None) -> bool:
    """Whether `--data SOURCE` means a pack."""
    return source is not None and source.lower().endswith(SUFFIX)


def storage(tables: Tables) -> str:
    """Size, coding and loss of a pack in one phrase."""
    loss = tables.about.loss
    if loss is None:
        return f"pack of {tables.about.coding}"
    what = "frames" if tables.sizes is None else "images"
    return (
        f"pack of {tables.about.coding}, off by {loss.mean:.2f} grey levels in the mean and "
        f"{loss.largest} at most ({loss.frames} {what} compared)"
    )


def open_pack(data: VideoData, split: Split, *, labels: bool) -> PackSource:
    """Open the pack that `data.source` names (see `open_source`)."""
    assert data.source is not None  # noqa: S101 (asked by `is_pack`)
    if data.root is not None:
        raise InputError(
            f"--data-root is for registered datasets, and '{data.source}' is a pack",
            kind="data-root",
        )
    path = Path(data.source).expanduser().absolute()
    tables, places = pack_layout.read(path)
    about = tables.about
    if not isinstance(about.coding, Coding):
        raise InputError(
            f"{path} is a pack of images, and this command reads videos", kind="wrong-dataset"
        )
    if labels and about.classes is None:
        raise unlabelled(path, "what was packed into it had none")
    good, rule, left_out = chosen(path, tables, data, split)
    return PackSource(
        about.name,
        Frames(path, tables, places),
        tables,
        about.coding,
        good,
        split,
        rule,
        left_out,
        labels=labels,
    )


def chosen(
    path: Path, tables: Tables, data: Data, split: Split
) -> tuple[np.ndarray, str, list[LeftOut]]:
    """The places (int64) of what belongs to a split and can be used, who divided it, and the rest.

    Raises `InputError` if there is no such split or nothing in it.
    """
    rows, rule = _part(path, tables, data, split)
    good, left_out = _usable(tables, rows, data)
    left_out[:0] = [LeftOut(name, reason) for name, reason in tables.about.unnamable]
    if not len(good):
        what = "image" if tables.sizes is not None else "video"
        raise InputError(
            f"no {what} of the {split} part of {path} can be used: nothing is left to read",
            kind="empty-split",
        )
    return good, rule, left_out


def _part(path: Path, tables: Tables, data: Data, split: Split) -> tuple[np.ndarray, str]:
    """The places of the videos of a split, and the phrase that says who divided them."""
    about = tables.about
    numbers = sorted(map(int, about.splits)) or [1]
    number = 1 if data.split is None else data.split
    if number not in numbers:
        there = ", ".join(map(str, numbers))
        raise InputError(
            f"split {number} does not exist in {path}; there is: {there}", kind="unknown-split"
        )
    if split == "all":
        return np.arange(len(tables.ids)), about.rule
    if not about.splits:
        return hold_out(tables.ids, split, data), held_out_rule(data)
    parts = about.splits[str(number)]
    start, stop = parts.train if split == "train" else parts.test
    return tables.order[start:stop], parts.rule


def _usable(tables: Tables, rows: np.ndarray, data: Data) -> tuple[np.ndarray, list[LeftOut]]:
    """Those of `rows` that can be read and are not in quarantine; and the others."""
    reasons: dict[str, str] = {}
    if data.quarantine is not None:
        reasons = quarantine.read(Path(data.quarantine).expanduser())
    good, left_out = [], []
    for row in rows.tolist():
        name = tables.ids[row]
        if name in reasons:
            left_out.append(LeftOut(name, f"{QUARANTINED}: {reasons[name]}"))
        elif tables.frames[row] == 0:
            reason = tables.about.reasons.get(str(row), "it could not be packed")
            left_out.append(LeftOut(name, reason))
        else:
            good.append(row)
    return np.array(good, np.int64), left_out


def digests_of(tables: Tables, rows: np.ndarray) -> np.ndarray:
    """Digests (uint8 `[N,16]`) of names, frame counts and stored content."""
    kind = tables.about.coding.model_dump_json().encode()
    found = np.zeros((len(rows), 16), np.uint8)
    for place, row in enumerate(rows.tolist()):
        head = f"{tables.ids[row]}\0{tables.frames[row]}\0".encode()
        text = head + kind + tables.digests[row].tobytes()
        found[place] = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint8)
    return found
