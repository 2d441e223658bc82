"""The few things about compressed video that containers get wrong and only the bits tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TRUE_TO_THEIR_FLAG = {"hevc", "vp8", "vp9", "av1", "mjpeg"}
_PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")
_IDR, _SEI, _RECOVERY_POINT = 5, 6, 6


def is_packed(codec: str, extradata: bytes, first: bytes) -> bool:
    """Whether B-frames ride in their neighbours' packets, as DivX and XviD write into AVI.

    `first` is the first packet.
    """
    return codec == "mpeg4" and any(_PACKED.search(data) for data in (extradata, first[:512]))


def can_start(codec: str, extradata: bytes, packet: bytes) -> bool:
    """Whether decoding that starts at this packet, flagged as a key packet, is exact from it on.

    Containers also flag the recovery points of a gradual refresh, or every packet; starting there
    gives pictures, but not the right ones. Of codecs that are not known here it is never said.
    """
    if codec == "mpeg4":
        start = packet.find(b"\0\0\1\xb6")
        return 0 <= start < len(packet) - 4 and packet[start + 4] >> 6 == 0
    if codec == "h264":
        for unit in _h264_units(extradata, packet):
            if unit[0] & 31 == _IDR:
                return True
            if unit[0] & 31 == _SEI and _recovers_at_once(unit):
                return True
        return False
    return codec in _TRUE_TO_THEIR_FLAG


def _h264_units(extradata: bytes, packet: bytes) -> Iterator[bytes]:
    """The NAL units of a packet, length-prefixed (MP4, MKV) or after start codes (AVI)."""
    if len(extradata) > 4 and extradata[0] == 1:
        prefix = (extradata[4] & 3) + 1
        at = 0
        while at + prefix < len(packet):
            length = int.from_bytes(packet[at : at + prefix], "big")
            unit = packet[at + prefix : at + prefix + length]
            if unit:
                yield unit
            at += prefix + length
    else:
        yield from (unit for unit in packet.split(b"\0\0\1")[1:] if unit)


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit says that all pictures are right from this one on (open GOP)."""
    data = unit[1:].replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(data):
        numbers = []
        for _ in range(2):  # type and size, each in steps of 255
            number = 0
            while at < len(data) and data[at] == 255:
                number, at = number + 255, at + 1
            if at >= len(data):
                return False
            number, at = number + data[at], at + 1
            numbers.append(number)
        kind, size = numbers
        if kind == _RECOVERY_POINT and at < len(data):
            return data[at] & 0x80 != 0  # the Exp-Golomb code of 0 frames
        at += size
    return False
