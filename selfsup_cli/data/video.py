"""Video files → frames. The only module that knows the decoder (PyAV).

`probe` finds out, once, how many frames a file really yields and where decoding can start;
`decode` then fetches any of them, exactly as a decode of the whole file would give them, without
decoding what is not needed for it. `examine` decodes all of a file, to tell whether it is sound.

The count. Every packet of the file is read. Where all of them are sound (unique timestamps, no
damage flagged, the container's own count agrees, a codec that turns each packet into one frame)
and the first of them decode to the frames that the timestamps promise, their number is the number
of frames. Everything else, and every small file, is decoded from end to end and counted. A file
that turns out to be damaged is refused as a whole: half a video is no video.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from selfsup_cli.data.bitstream import is_packed
from selfsup_cli.data.frame_table import FrameTable, VideoInfo
from selfsup_cli.data.scan import Scan
from selfsup_cli.errors import BadMediaError, MachineError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 8192 * 8192

_FORMATS = ("mov", "avi", "matroska")
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm",
    "max_pixels": str(MAX_PIXELS),
}
# What a file is, is known from its index: the library need not decode some frames to guess it.
_KNOWN = _OPTIONS | {"skip_frame": "all", "analyzeduration": "1"}

_ONE_FRAME_A_PACKET = {"h264", "hevc", "mpeg4", "vp9", "av1", "mjpeg"}
_EXACT_SKIP = {"h264", "mpeg4"}  # unreferenced frames are referenced by none, whatever the layer
_HEAD_PACKETS = 16
_NEAR = 8
_SMALL_PIXELS = 8_000_000
_STAGE_BYTES = 64 << 20


@dataclass(frozen=True)
class Examined:
    """A video that has been decoded from end to end.

    `seconds` is how long it lasts, `steady` whether its frames follow each other in equal steps,
    `audio` whether it has sound.
    """

    info: VideoInfo
    seconds: float
    steady: bool
    audio: bool


class _AstrayError(Exception):
    """Decoding from the middle of a file did not give what its index promised."""


def probe(path: str | Path) -> VideoInfo:
    """Index one video file; raises `BadMediaError` if it is unreadable, damaged or too large."""
    with _told(path):
        return _looked_through(path).info()


def examine(path: str | Path) -> Examined:
    """Decode a whole file, once; raises `BadMediaError` if anything in it is not sound."""
    with _told(path):
        scan = _looked_through(path)
        promised = len(scan.shown)
        if not scan.decoded:
            scan = _decoded(path, packed=scan.packed)
        if len(scan.shown) < promised:
            lost = promised - len(scan.shown)
            raise BadMediaError(str(path), f"{lost} of its {promised} frames cannot be decoded")
        info = scan.info()
        decode(path, info, np.unique([0, info.frames - 1]))  # as a job would
        return Examined(info, scan.seconds(), scan.is_steady(), scan.audio)


def _looked_through(path: str | Path) -> Scan:
    if Path(path).stat().st_size == 0:
        raise BadMediaError(str(path), "the file is empty")
    with _opened(path, _OPTIONS) as (container, stream):
        scan = Scan(path, container, stream)
        if _scan_packets(scan, container, stream):
            return scan
    return _decoded(path, packed=scan.packed)


def _decoded(path: str | Path, *, packed: bool) -> Scan:
    with _opened(path, _OPTIONS) as (container, stream):
        scan = Scan(path, container, stream, packed=packed)
        _decode_all(scan, container, stream)
        return scan


def decode(
    path: str | Path, info: VideoInfo, frames: np.ndarray, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """The frames `frames` of a video as uint8 `[3,T,H,W]`, RGB, upright.

    `frames` is int64 `[T]`, `0 <= f < info.frames`, in any order, repeats allowed; `info` is what
    `probe` found. `size` is (height, width) to scale to (bilinear, antialiased); None keeps the
    video's own. Equals a decode of the whole file bit for bit. Raises `BadMediaError` if any
    frame cannot be had undamaged.
    """
    frames = np.asarray(frames, np.int64)
    if frames.ndim != 1 or not frames.size:
        raise ValueError("frames must be a non-empty list of frame numbers")
    if frames.min() < 0 or frames.max() >= info.frames:
        raise ValueError(f"frames {frames.min()} … {frames.max()} of a video of {info.frames}")
    unique, inverse = np.unique(frames, return_inverse=True)
    with _told(path):
        try:
            return _fetch(path, info, unique, size, seek=True).result(inverse)
        except (_AstrayError, BadMediaError, av.error.FFmpegError):
            if len(info.table.keys) < 2:
                raise
            return _fetch(path, info, unique, size, seek=False).result(inverse)


def stream(
    path: str | Path, info: VideoInfo, start: int = 0, at_once: int = 16
) -> Iterator[torch.Tensor]:
    """All frames from `start` on, in order, `at_once` at a time: uint8 `[3,t,H,W]`, as `decode`.

    The file is decoded once from end to end, and no more than `at_once` frames are held. Raises
    `BadMediaError` if any frame cannot be had undamaged.
    """
    with _told(path), _opened(path, _KNOWN) as (container, video):
        table, context = info.table, video.codec_context
        shown = itertools.count()
        if table.order is not None:
            displayed = np.empty(table.packets, np.int64)
            displayed[:] = -1
            displayed[table.order] = np.arange(info.frames)
            context.reorder_depth = table.reorder_depth
        first, images = start, None
        packets = enumerate(_packets(container, video, packed=table.packed))
        for number, packet in itertools.chain(packets, ((-1, None),)):
            if packet is not None and table.order is not None:
                packet.pts = packet.dts = number
            for frame in context.decode(packet):
                place = next(shown) if table.order is None else int(displayed[frame.pts])
                if place < first:
                    continue
                if images is None:
                    count = min(at_once, info.frames - first)
                    images = _Images(str(path), info, count, None)
                images.put(place - first, frame)
                if images.complete:
                    taken = images.taken
                    yield images.result(np.arange(taken))
                    first, images = first + taken, None
        if first < info.frames:
            raise BadMediaError(str(path), f"frame {first} of {info.frames} cannot be decoded")


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Turn whatever the decoder raises into one `BadMediaError`, except a shortage of ours."""
    try:
        yield
    except (BadMediaError, MemoryError, NameError, AttributeError, ImportError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise MachineError(f"cannot open {path}: {error}") from error
        raise BadMediaError(str(path), _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, PermissionError):
        return "permission to read the file is denied"
    if isinstance(error, av.error.FFmpegError) and "avcodec" in str(error):
        return "its frames cannot be decoded"
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return "not a readable MP4, MOV, AVI, MKV or WebM file"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _opened(path: str | Path, options: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; other streams are not read."""
    # An absolute path is never taken for a protocol, whatever the file is called.
    with av.open(str(Path(path).absolute()), options=options) as container:
        if container.format.name.split(",")[0] not in _FORMATS:
            raise BadMediaError(str(path), f"the container format {container.format.name}")
        videos = [s for s in container.streams.video if not _is_cover(s)]
        if not videos:
            raise BadMediaError(str(path), "the file has no video stream")
        stream = videos[0]
        context = stream.codec_context
        if context is None:
            raise BadMediaError(str(path), "there is no decoder for its video codec")
        if context.width * context.height > MAX_PIXELS:
            raise BadMediaError(str(path), f"{context.width}×{context.height} pixels are too many")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        context.thread_type = "NONE"
        context.thread_count = 1
        context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _packets(container: Any, stream: Any, *, packed: bool) -> Iterator[Any]:
    """The stream's packets from where the container stands, none of them empty."""
    packets = (packet for packet in container.demux(stream) if packet.size)
    if not packed:
        return packets
    unpack = av.bitstream.BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    return itertools.chain.from_iterable(map(unpack.filter, packets))


def _scan_packets(scan: Scan, container: Any, stream: Any) -> bool:
    """Read all packets and decode the first (of a small file, all); true if that settles it."""
    context = stream.codec_context
    # MKV and WebM declare no count, only how long they are.
    about = scan.declared or round((container.duration or 0) / av.time_base * scan.fps)
    small = 0 < about * scan.pixels <= _SMALL_PIXELS
    head = about + 2 if small else _HEAD_PACKETS
    simple = scan.codec in _ONE_FRAME_A_PACKET
    try:
        for packet in _packets(container, stream, packed=False):
            simple &= not packet.is_discard
            number = scan.note(packet)
            if number == 0:
                scan.packed = is_packed(scan.codec, scan.extradata, bytes(packet))
                simple &= not scan.packed and packet.is_keyframe
            if simple and number < head:
                scan.show(context.decode(packet))
        if not simple:
            return False
        scan.show(context.decode(None))
    except av.error.FFmpegError:
        return False
    count = scan.packets
    times = np.frombuffer(scan.times, np.int64)
    order = np.argsort(times, kind="stable")
    if (
        scan.damaged
        or not count
        or len(np.unique(times)) != count
        or scan.declared not in (0, count)
        or order[0] != 0
    ):
        return False
    scan.reorder_depth = context.reorder_depth
    in_order = bool((order[1:] > order[:-1]).all())
    if in_order and scan.reorder_depth and count > head:
        return False
    promised = order[order < head].tolist()
    if scan.shown != promised:
        return False
    scan.decoded = len(promised) == count
    scan.shown = order.tolist()
    return True


def _decode_all(scan: Scan, container: Any, stream: Any) -> None:
    """Decode a file from end to end; `BadMediaError` if any of it is damaged."""
    context = stream.codec_context
    failure: av.error.FFmpegError | None = None
    try:
        for packet in _packets(container, stream, packed=scan.packed):
            scan.note(packet)
            scan.show(context.decode(packet))
        scan.show(context.decode(None))
    except av.error.FFmpegError as error:
        failure = error
    scan.reorder_depth = context.reorder_depth
    scan.decoded = True
    frames, total = len(scan.shown), max(scan.declared, scan.packets)
    if not frames:
        raise BadMediaError(scan.path, "none of its frames can be decoded")
    if _is_cut_short(scan, stream):
        raise BadMediaError(scan.path, f"it is cut short: {frames} of {total} frames are left")
    if failure is not None:
        raise BadMediaError(scan.path, f"after frame {frames} of {total}: {_reason(failure)}")
    if scan.damaged:
        raise BadMediaError(scan.path, f"{scan.damaged} of its {frames} frames are damaged")


def _is_cut_short(scan: Scan, stream: Any) -> bool:
    """Whether the container's index points beyond the end of the file."""
    if scan.packets >= scan.declared:
        return False
    length = Path(scan.path).stat().st_size
    return any(entry.pos + entry.size > length for entry in stream.index_entries)


def _fetch(
    path: str | Path,
    info: VideoInfo,
    frames: np.ndarray,
    size: tuple[int, int] | None,
    *,
    seek: bool,
) -> _Images:
    """Decode `frames` (ascending, distinct); slot i of the result is `frames[i]`."""
    images = _Images(str(path), info, len(frames), size)
    with _opened(path, _KNOWN) as (container, stream):
        if info.table.order is None:
            _play(container, stream, info.table, frames, images)
        else:
            _pick(container, stream, info, frames, images, seek=seek)
    return images


def _play(
    container: Any, stream: Any, table: FrameTable, frames: np.ndarray, images: _Images
) -> None:
    """Decode from the beginning and count; for files whose packets do not tell their frames."""
    context = stream.codec_context
    slots = {int(frame): slot for slot, frame in enumerate(frames)}
    shown = itertools.count()
    packets = _packets(container, stream, packed=table.packed)
    for packet in itertools.chain(packets, (None,)):
        for frame in context.decode(packet):
            images.put(slots.get(next(shown)), frame)
        if images.complete:
            return


def _pick(
    container: Any,
    stream: Any,
    info: VideoInfo,
    frames: np.ndarray,
    images: _Images,
    *,
    seek: bool,
) -> None:
    """Decode no more than what the frames need."""
    table, context = info.table, stream.codec_context
    assert table.order is not None  # noqa: S101 (told by the type)
    slots = {int(packet): slot for slot, packet in enumerate(table.order[frames])}
    may_skip = info.codec in _EXACT_SKIP and table.packets == info.frames
    packets = _packets(container, stream, packed=table.packed)
    position = 0
    for first, last in table.passes(frames, seek=seek):
        if seek and first > position + _NEAR:
            packets, position = _enter(container, stream, table, first)
        context.reorder_depth = table.reorder_depth
        run = itertools.islice(packets, first - position, last + 1 - position)
        for number, packet in enumerate(run, first):
            packet.pts = packet.dts = number
            if may_skip:
                context.skip_frame = "DEFAULT" if number in slots else "NONREF"
            for frame in context.decode(packet):
                images.put(slots.get(frame.pts), frame)
        position = last + 1
        if not images.complete:
            for frame in context.decode(None):
                images.put(slots.get(frame.pts), frame)
            context.flush_buffers()


def _enter(container: Any, stream: Any, table: FrameTable, first: int) -> tuple[Iterator[Any], int]:
    """Seek to key packet `first`; the packets from there (or before) on, and the first's number."""
    key = int(np.searchsorted(table.keys, first))
    container.seek(int(table.key_times[key]), stream=stream)
    packets = _packets(container, stream, packed=table.packed)
    packet = next(packets, None)
    found = np.flatnonzero(table.key_positions == (-1 if packet is None else packet.pos))
    if not len(found) or found[0] > key:
        raise _AstrayError("seeking leads elsewhere")
    return itertools.chain((packet,), packets), int(table.keys[found[0]])


class _Images:
    """Decoded frames on their way to RGB, upright, at the wanted size, in bounded memory."""

    def __init__(
        self, path: str, info: VideoInfo, count: int, size: tuple[int, int] | None
    ) -> None:
        self._path = path
        self._turn = info.orientation
        shape = (info.height, info.width)
        self._stored = shape[::-1] if info.orientation & 1 else shape
        self._size = None if size == shape else size
        self._slots: list[int] = []
        self._pieces: list[torch.Tensor] = []
        self._missing = set(range(count))
        height, width = self._stored
        batch = max(1, min(count, _STAGE_BYTES // (3 * height * width)))
        self._stage = np.empty((batch, height, width, 3), np.uint8)
        self._staged = 0
        self._to_rgb = av.video.reformatter.VideoReformatter()

    @property
    def complete(self) -> bool:
        return not self._missing

    @property
    def taken(self) -> int:
        return len(self._slots)

    def put(self, slot: int | None, frame: Any) -> None:
        """Take one decoded frame; those that nobody asked for (slot None) are only checked."""
        if frame.is_corrupt:
            raise BadMediaError(self._path, "a frame of it is damaged")
        if slot not in self._missing:
            return
        if (frame.height, frame.width) != self._stored:
            raise BadMediaError(self._path, "its resolution changes in the middle")
        # One converter for all frames, on this thread: building one per frame costs more than
        # decoding does.
        rgb = self._to_rgb.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        image = self._stage[self._staged]
        image.reshape(frame.height, -1)[:] = rows[:, : 3 * frame.width]
        self._staged += 1
        self._missing.discard(slot)
        self._slots.append(slot)
        if self._staged == len(self._stage):
            self._unload()

    def _unload(self) -> None:
        import torch
        from torch.nn.functional import interpolate

        if not self._staged:
            return
        images = torch.from_numpy(self._stage[: self._staged]).permute(0, 3, 1, 2)
        if self._turn & 1:
            images = images.transpose(2, 3)
        if flips := [dim for bit, dim in ((2, 3), (4, 2)) if self._turn & bit]:
            images = images.flip(flips)
        if self._size is not None:
            images = interpolate(images, self._size, mode="bilinear", antialias=True)
        elif self._missing:
            images = images.clone()
        self._pieces.append(images)
        self._staged = 0

    def result(self, slots: np.ndarray) -> torch.Tensor:
        """The frames in `slots` (int64 `[T]`, repeats allowed) as uint8 `[3,T,H,W]`.

        Raises `BadMediaError` if a frame has not come.
        """
        import torch

        if self._missing:
            count, total = len(self._missing), len(self._missing) + len(self._slots)
            raise BadMediaError(self._path, f"{count} of {total} frames cannot be decoded")
        self._unload()
        images = self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces)
        places = torch.from_numpy(np.argsort(self._slots)[slots])
        return images.permute(1, 0, 2, 3).index_select(1, places)
