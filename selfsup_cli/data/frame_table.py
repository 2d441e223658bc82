"""What is known of a video once it has been indexed: its true frames, and where to start decoding.

A video is a sequence of packets in decoding order. They are numbered from 0 in the order in which
they lie in the file, and that number, not a timestamp of the container, is what identifies the
frame that comes out of a packet.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

_HEAD = struct.Struct("<BBBIII")
_VERSION = 1
_ORDERED, _PACKED = 1, 2


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Which packet holds which frame, and at which packets decoding can start.

    `order` (int32 `[N]`) is the packet of each frame in display order, or None where packets and
    frames could not be matched; such a video is always decoded from its beginning. `packets` is
    their number. `keys` (int32 `[K]`, ascending) are the packets at which decoding can start,
    `key_positions` (int64 `[K]`) their byte positions, by which they are recognised after seeking
    to `key_times` (int64 `[K]`, in the stream's time base); all three are empty where the file
    cannot be entered in the middle. `reorder_depth` is the decoder's output delay in frames;
    `packed` says that B-frames are packed into the packets of their neighbours (DivX).
    """

    packets: int
    order: np.ndarray | None
    keys: np.ndarray
    key_positions: np.ndarray
    key_times: np.ndarray
    reorder_depth: int
    packed: bool

    def to_bytes(self) -> bytes:
        """A compact form, some tens of bytes for a video of regular structure."""
        frames = 0 if self.order is None else len(self.order)
        head = _HEAD.pack(
            _VERSION,
            (0 if self.order is None else _ORDERED) | (_PACKED if self.packed else 0),
            self.reorder_depth,
            self.packets,
            frames,
            len(self.keys),
        )
        parts = [
            np.diff(self.keys, prepend=0).astype("<i4"),
            np.diff(self.key_positions, prepend=0).astype("<i8"),
            np.diff(self.key_times, prepend=0).astype("<i8"),
        ]
        if self.order is not None:
            parts.append((self.order - np.arange(frames)).astype("<i4"))
        return head + zlib.compress(b"".join(part.tobytes() for part in parts), 6)

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameTable:
        """Undo `to_bytes`; raises `ValueError` for anything else."""
        try:
            version, flags, depth, packets, frames, keys = _HEAD.unpack_from(data)
            length = keys * 20 + frames * 4
            inflate = zlib.decompressobj()
            body = inflate.decompress(data[_HEAD.size :], length + 1)
        except (struct.error, zlib.error) as error:
            raise ValueError("not a frame table") from error
        if version != _VERSION or len(body) != length or not inflate.eof:
            raise ValueError("not a frame table")

        def column(kind: str, start: int, count: int) -> np.ndarray:
            return np.frombuffer(body, kind, count, start)

        order: np.ndarray | None = None
        if flags & _ORDERED:
            shift = column("<i4", keys * 20, frames)
            order = (shift + np.arange(frames)).astype(np.int32)
        return cls(
            packets=packets,
            order=order,
            keys=np.cumsum(column("<i4", 0, keys)).astype(np.int32),
            key_positions=np.cumsum(column("<i8", keys * 4, keys)).astype(np.int64),
            key_times=np.cumsum(column("<i8", keys * 12, keys)).astype(np.int64),
            reorder_depth=depth,
            packed=bool(flags & _PACKED),
        )

    def passes(self, frames: np.ndarray, *, seek: bool) -> list[tuple[int, int]]:
        """The runs of packets, first and last, that must be read to decode `frames`.

        `frames` is int64, ascending, in display order. Runs are ascending and disjoint; each
        starts at a key packet (or at packet 0) from which all its wanted frames can be decoded:
        a frame that is shown before the key packet it follows needs the one before that.
        """
        assert self.order is not None  # noqa: S101 (told by the type)
        shown = np.full(self.packets, -1, np.int64)
        shown[self.order] = np.arange(len(self.order))
        runs: dict[int, int] = {}
        for frame in frames:
            packet = int(self.order[frame])
            start = 0
            if seek and len(self.keys):
                key = int(np.searchsorted(self.keys, packet, side="right")) - 1
                while key > 0 and not 0 <= shown[self.keys[key]] <= frame:
                    key -= 1
                start = int(self.keys[key]) if key > 0 else 0
            last = packet
            while last + 1 < self.packets and shown[last + 1] < 0:
                last += 1  # second fields and the like belong to the frame before them
            runs[start] = max(runs.get(start, -1), last)
        merged: list[tuple[int, int]] = []
        for start, last in sorted(runs.items()):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((start, last))
        return merged


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """One indexed video.

    `frames` is the number of frames that a full decode yields. `width` and `height` are those of
    the upright picture, in pixels. `orientation` says how decoded frames are turned upright: bit 0
    transposes, bit 1 then mirrors left-right, bit 2 top-bottom. `fps` is the average frame rate
    (0 if unknown).
    """

    frames: int
    width: int
    height: int
    fps: float
    codec: str
    orientation: int
    table: FrameTable

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which decoded frames are turned upright (mirroring aside)."""
        return {0: 0, 1: 90, 2: 0, 3: 90, 4: 0, 5: 270, 6: 180, 7: 270}[self.orientation]

    def row(self) -> tuple[Any, ...]:
        """Plain values, `table` as bytes."""
        return (
            self.frames,
            self.width,
            self.height,
            self.fps,
            self.codec,
            self.orientation,
            self.table.to_bytes(),
        )

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> VideoInfo:
        """Undo `row`; raises `ValueError` if the table is not one."""
        frames, width, height, fps, codec, orientation, table = row
        return cls(frames, width, height, fps, codec, orientation, FrameTable.from_bytes(table))
