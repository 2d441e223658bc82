"""Images as a person sees them, or not at all; and the check says of each what a job will find."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image, ImageOps

from selfsup_cli.data import image, image_check
from selfsup_cli.data.framing import Region
from selfsup_cli.errors import BadMediaError

KINDS = ("JPEG", "PNG", "WEBP", "BMP")


def decoded(data: bytes, size: Any = None) -> np.ndarray:
    found = image.decode(data, size, "x")
    assert found.dtype == torch.uint8
    assert found.shape[0] == 3
    return found.permute(1, 2, 0).numpy()


def refused(data: bytes) -> str:
    with pytest.raises(BadMediaError) as caught:
        image.decode(data, None, "x.jpg")
    assert caught.value.path == "x.jpg"
    assert "\n" not in caught.value.reason
    return caught.value.reason


def saved(made: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(10))
def test_pixels_are_pillows_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {} if kind == "BMP" else {"exif": exif}
    data = encoded(kind, **how)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decoded(data), expected)
    assert image.measure(data).upright == expected.shape[:2]


def test_a_damaged_exif_is_no_damage() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded("JPEG", exif=exif))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"\xff" * 8
    assert decoded(bytes(data)).shape == (24, 32, 3)


def test_unusual_files_as_a_person_expects_them(data_dir: Path) -> None:
    def of(name: str) -> np.ndarray:
        return decoded((data_dir / "broken" / name).read_bytes())

    def by_pillow(name: str, mode: str = "RGB") -> np.ndarray:
        return np.array(Image.open(data_dir / "broken" / name).convert(mode))

    for name in ("cmyk.jpg", "gray.jpg", "progressive.jpg", "one_bit.png", "jpg_renamed.png"):
        assert np.array_equal(of(name), by_pillow(name)), name
    sixteen = np.array(Image.open(data_dir / "broken" / "gray16.png")).astype(float) / 257
    assert np.abs(of("gray16.png") - sixteen[..., None]).max() <= 0.5
    for name in ("rgba.png", "gray_alpha.png", "palette_transparent.png"):
        rgba = by_pillow(name, "RGBA").astype(float)
        opaque = rgba[..., 3:] / 255
        assert np.abs(of(name) - (opaque * rgba[..., :3] + (1 - opaque) * 255)).max() <= 1, name
    assert of("tiny_1x1.png").shape == (1, 1, 3)
    assert of("wide_600x4.png").shape == (4, 600, 3)


def test_a_transparent_color_is_white() -> None:
    made = Image.new("RGB", (4, 4), (10, 20, 30))
    made.putpixel((0, 0), (1, 2, 3))
    found = decoded(saved(made, transparency=(10, 20, 30)))
    assert found[0, 0].tolist() == [1, 2, 3]
    assert found[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_short_anywhere_is_refused(kind: str) -> None:
    data = encoded(kind)
    lossless = {"lossless": True} if kind == "WEBP" else {"progressive": kind == "JPEG"}
    for whole in (data, encoded(kind, **(lossless if kind in ("WEBP", "JPEG") else {}))):
        for end in range(len(whole)):
            refused(whole[:end])


def test_half_a_jpeg_that_ends_properly_is_still_half_a_jpeg() -> None:
    data = encoded("JPEG", size=(200, 200), quality=95)
    assert "damaged" in refused(data[: len(data) // 2] + b"\xff\xd9")
    # Pillow takes it, grey as its lower half is.
    Image.open(io.BytesIO(data[: len(data) // 2] + b"\xff\xd9")).load()


def test_what_follows_or_pads_a_jpeg_does_no_harm() -> None:
    data = encoded("JPEG")
    assert np.array_equal(decoded(data + b"garbage"), decoded(data))
    assert np.array_equal(decoded(data[:-2] + b"\0\0\0" + data[-2:]), decoded(data))


def test_other_formats_are_not_opened() -> None:
    for kind in ("GIF", "TIFF", "PPM", "ICO"):
        assert "not a readable JPEG, PNG, WebP or BMP" in refused(encoded(kind))
    assert "not a readable" in refused(b"<html>")
    assert "not a readable" in refused(b"")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = zlib.compress(bytes(50_000_000))
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    begun = time.process_time()
    assert "too many" in refused(bomb)
    jpeg = bytearray(encoded("JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    assert "65000×65000 pixels are too many" in refused(bytes(jpeg))
    assert time.process_time() - begun < 1


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(image.MAX_BYTES + 1)
    for name, reason in {
        "pipe": "it is no file",
        "empty": "the file is empty",
        "folder": "it is no file",
        "large": "too large",
        "none": "does not exist",
    }.items():
        with pytest.raises(BadMediaError, match=reason):
            image.read_bytes(tmp_path / f"{name}.jpg")


# -- sizes


@pytest.mark.parametrize(("size", "expected"), [(12, (12, 16)), ((9, 20), (9, 20)), (48, (48, 64))])
def test_scaling_is_antialiased_as_pillow_does_it(size: Any, expected: tuple[int, int]) -> None:
    data = encoded("PNG", seed=3)
    scaled = Image.fromarray(picture(3)).resize(expected[::-1], Image.Resampling.BILINEAR)
    found = decoded(data, size)
    assert np.abs(found.astype(int) - np.array(scaled).astype(int)).max() <= 1


def test_a_large_jpeg_is_scaled_while_it_is_decoded() -> None:
    photo = encoded("JPEG", seed=5, size=(600, 800), quality=95)
    full = Image.open(io.BytesIO(photo))
    for size, box in ((60, None), ((50, 100), None), (None, Region(100, 200, 400, 500, (40, 50)))):
        found = decoded(photo, size if box is None else lambda h, w, box=box: box)
        region = box or Region(0, 0, 600, 800, found.shape[:2])
        bounds = (
            *(region.left, region.top),
            *(region.left + region.width, region.top + region.height),
        )
        expected = full.resize(region.size[::-1], Image.Resampling.BILINEAR, box=bounds)
        difference = np.abs(found.astype(int) - np.array(expected).astype(int))
        assert difference.mean() < 1.5
        assert difference.max() < 12


def test_an_image_too_thin_to_be_scaled(data_dir: Path) -> None:
    data = (data_dir / "broken" / "wide_600x4.png").read_bytes()
    assert decoded(data, 8).shape == (8, 1200, 3)
    with pytest.raises(BadMediaError, match="cannot be scaled to 1000×150000"):
        image.decode(data, 1000, "x")
    assert decoded(saved(Image.new("RGB", (100, 1))), (5, 5)).shape == (5, 5, 3)


@given(st.sampled_from(KINDS), st.integers(1, 8), st.data())
@settings(max_examples=60)
def test_a_region_is_cut_from_the_upright_image(kind: str, turn: int, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = encoded(kind, **({} if kind == "BMP" else {"exif": exif}))
    whole = decoded(file)
    top, left = (data.draw(st.integers(0, side - 1)) for side in whole.shape[:2])
    height = data.draw(st.integers(1, whole.shape[0] - top))
    width = data.draw(st.integers(1, whole.shape[1] - left))
    region = Region(top, left, height, width, (height, width))
    found = decoded(file, lambda h, w: region)
    assert np.array_equal(found, whole[top : top + height, left : left + width])


# -- what the check calls sound can be read, and the reverse


def _outcome(work: Callable[[], tuple[int, ...]]) -> tuple[int, ...] | str:
    try:
        return work()
    except BadMediaError as error:
        return error.reason


def _decoded_size(path: Path) -> tuple[int, ...]:
    return tuple(image.decode(image.read_bytes(path), None, path.name).shape[1:])


def _checked_size(path: Path) -> tuple[int, ...]:
    found = image_check.examine(path)
    return found.height, found.width


@given(st.sampled_from(KINDS), st.integers(0, 3), st.data())
@settings(max_examples=150)
def test_the_check_and_a_job_agree(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: int, data: st.DataObject
) -> None:
    file = bytearray(encoded(kind, seed=1, progressive=True) if kind == "JPEG" else encoded(kind))
    for _ in range(damage):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place] = data.draw(st.integers(0, 255))
    del file[data.draw(st.sampled_from([len(file), len(file) // 2, len(file) - 1])) :]
    path = tmp_path_factory.getbasetemp() / f"mutated.{kind.lower()}"
    path.write_bytes(file)
    assert _outcome(lambda: _decoded_size(path)) == _outcome(lambda: _checked_size(path))


def test_a_changed_byte_of_a_png_is_found() -> None:
    whole = encoded("PNG")
    for place in range(8, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        refused(bytes(changed))
