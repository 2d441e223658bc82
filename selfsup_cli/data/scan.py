"""What is learned of a video while its packets are read and frames come out."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.bitstream import can_start
from selfsup_cli.data.frame_table import FrameTable, VideoInfo
from selfsup_cli.errors import BadMediaError

MAX_FRAMES = 1_000_000


class Scan:
    """What reading the packets of a file, and decoding some, has shown so far."""

    def __init__(
        self, path: str | Path, container: Any, stream: Any, *, packed: bool = False
    ) -> None:
        context = stream.codec_context
        self.path = str(path)
        self.codec: str = context.codec.canonical_name
        self.extradata: bytes = context.extradata or b""
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        self.declared: int = stream.frames
        self.packed = packed
        self.size = (0, 0)
        self.orientation = 0
        self.pixels: int = context.width * context.height
        self.packets = 0
        self.times: array[int] = array("q")
        self.keys: list[tuple[int, int | None, int | None]] = []
        self.shown: list[int | None] = []
        self.damaged = 0
        self.reorder_depth = 0
        self.decoded = False  # all of it, and not only as much as tells what it is
        self.audio = bool(container.streams.audio)
        self._tick = float(stream.time_base or 0)
        self._by_dts = container.format.name == "avi"  # whose index knows no other time

    def note(self, packet: Any) -> int:
        """Count a packet in and give its number, under which its frame will be known."""
        number = self.packets
        if number >= MAX_FRAMES:
            raise BadMediaError(self.path, f"it has more than {MAX_FRAMES} frames")
        self.packets += 1
        if packet.pts is not None:
            self.times.append(packet.pts)
        if packet.is_keyframe and can_start(self.codec, self.extradata, bytes(packet)):
            time = packet.dts if self._by_dts else packet.pts
            self.keys.append((number, packet.pos, time))
        self.damaged += packet.is_corrupt
        packet.pts = packet.dts = number
        return number

    def show(self, decoded: list[Any]) -> None:
        """Count decoded frames in."""
        for frame in decoded:
            if not self.shown:
                self.size = (frame.height, frame.width)
                self.orientation = _orientation(self.path, frame)
            elif self.size != (frame.height, frame.width):
                raise BadMediaError(self.path, "its resolution changes in the middle")
            self.damaged += frame.is_corrupt
            self.shown.append(frame.pts)

    def seconds(self) -> float:
        """How long the video lasts."""
        frame = 1 / self.fps if self.fps else 0.0
        if len(self.times) < 2:
            return len(self.shown) * frame
        return (max(self.times) - min(self.times)) * self._tick + frame

    def is_steady(self) -> bool:
        """Whether the frames follow each other in equal steps, as nearly as their clock can say."""
        steps = np.diff(np.unique(np.frombuffer(self.times, np.int64)))
        if len(steps) < 2:
            return True
        usual = np.median(steps)
        return bool(max(steps.max() - usual, usual - steps.min()) <= max(1.0, 0.1 * usual))

    def info(self) -> VideoInfo:
        order = _matched(self.shown, self.packets)
        keys = self.keys if order is not None else []
        positions = [position for _, position, _ in keys]
        if len(set(positions)) != len(positions) or any(None in key for key in keys):
            keys = []
        columns = np.array(keys, np.int64).reshape(-1, 3)
        height, width = self.size[::-1] if self.orientation & 1 else self.size
        return VideoInfo(
            frames=len(self.shown),
            width=width,
            height=height,
            fps=self.fps,
            codec=self.codec,
            orientation=self.orientation,
            table=FrameTable(
                packets=self.packets,
                order=order,
                keys=columns[:, 0].astype(np.int32),
                key_positions=columns[:, 1],
                key_times=columns[:, 2],
                reorder_depth=min(self.reorder_depth, 255),
                packed=self.packed,
            ),
        )


def _matched(shown: list[int | None], packets: int) -> np.ndarray | None:
    """The packets of the frames, if each frame came out of a packet of its own."""
    if None in shown:
        return None
    order = np.array(shown, np.int64)
    if order.min() < 0 or order.max() >= packets or len(np.unique(order)) != len(order):
        return None
    return order.astype(np.int32)


def _orientation(path: str, frame: Any) -> int:
    """How to turn a frame upright, from its display matrix (see `VideoInfo.orientation`)."""
    data = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return 0
    # x' = a·x + c·y, y' = b·x + d·y, in units of 1/65536, y downwards
    a, b, _, c, d = (value / 65536 for value in struct.unpack_from("<5i", bytes(data)))
    for transposes, along, across, off in ((0, a, d, (b, c)), (1, c, b, (a, d))):
        if along and across and max(map(abs, off)) < 0.01 * min(abs(along), abs(across)):
            return transposes | (2 if along < 0 else 0) | (4 if across < 0 else 0)
    raise BadMediaError(path, f"it is to be shown turned by {frame.rotation}°, no quarter turn")
