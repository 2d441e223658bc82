"""Recordings by several cameras: what there is when, their scenes, subjects, and offsets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from selfsup_cli.config.joints import BONES, JOINTS
from selfsup_cli.data.background import foreground
from selfsup_cli.data.geometry import project_camera
from selfsup_cli.data.multiview_raw import LEAST_FRAMES, RawView
from selfsup_cli.data.offsets import Offset
from selfsup_cli.data.survey import scaled
from selfsup_cli.data.view_check import CameraCheck, RecordingCheck, ViewsChecked
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.curves import COLOURS
from selfsup_cli.visualization.drawing import (
    GAP,
    GREY,
    INK,
    MARGIN,
    PAPER,
    RULE,
    lines,
    save,
    write,
)

_ROWS = 10
_BAR = 18
_WIDTH = 900
_NAME = 190
_SIDE = 190
_GONE = (213, 94, 0)
_STILL = (206, 212, 218)
_LEFT, _RIGHT, _MIDDLE = (38, 104, 190), (222, 118, 30), (64, 70, 78)
_MEAN = np.array([124, 116, 104], np.uint8)


def coverage(path: Path, checked: ViewsChecked) -> None:
    """What each camera has at which time: how much moves there, and what is missing."""
    shown = checked.recordings[:_ROWS]
    rows = sum(len(one.cameras) for one in shown)
    height = 2 * MARGIN + 54 + len(shown) * 34 + rows * (_BAR + GAP) + 20
    sheet = Image.new("RGB", (_NAME + _WIDTH + 2 * MARGIN + 70, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN), "Cameras and time", 18, bold=True)
    more = len(checked.recordings) - len(shown)
    note = "Blue: the more moves, the darker. Grey: nothing moves. Orange: not there." + (
        f" {more} more recordings are not shown." if more else ""
    )
    write(draw, (MARGIN, MARGIN + 26), note, 12, GREY)
    y = MARGIN + 54
    for one in shown:
        longest = max(each.frames for each in one.cameras)
        write(draw, (MARGIN, y), one.raw.id, 13, bold=True, room=_NAME + _WIDTH)
        seconds = longest / one.raw.rate
        said = f"{longest} frames, {seconds:.1f} s at {one.raw.rate:g} a second"
        write(draw, (MARGIN + _NAME + _WIDTH, y), said, 11, GREY, anchor="ra")
        y += 20
        for each in one.cameras:
            write(draw, (MARGIN + 8, y + 2), each.camera.name, 12, room=_NAME - 20)
            bar = _bar(each, one, longest)
            sheet.paste(Image.fromarray(bar), (MARGIN + _NAME, y))
            colour = INK if each.frames == longest else "#b34700"
            place = (MARGIN + _NAME + _WIDTH + 8, y + 2)
            write(draw, place, str(each.frames), 11, colour)
            y += _BAR + GAP
        y += 14
    save(sheet, path)


def _bar(each: CameraCheck, one: RecordingCheck, longest: int) -> NDArray[np.uint8]:
    """A camera's stretch of time, `[_BAR, _WIDTH, 3]`."""
    # Key frames of a codec stand out for a frame, and are no motion.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(each.survey.motion, 2, "edge"), 5)
    motion = np.median(windows, -1)
    loud = float(np.quantile(motion, 0.95)) or 1.0
    places = np.arange(_WIDTH) * longest // _WIDTH
    there = places < each.frames
    inside = np.minimum(places, each.frames - 1)
    # No frame is skipped where many share a pixel.
    window = max(1, longest // _WIDTH)
    sums = np.concatenate([[0.0], np.cumsum(motion)])
    ends = np.minimum(inside + window, each.frames)
    level = np.clip((sums[ends] - sums[inside]) / np.maximum(ends - inside, 1) / loud, 0, 1)
    light, dark = np.array([214, 230, 244]), np.array([0, 74, 134])
    colours = light + (dark - light) * level[:, None]
    still = ~one.moving[np.minimum(inside, len(one.moving) - 1)] & (inside < len(one.moving))
    colours[still] = _STILL
    colours[~there] = _GONE
    row = np.repeat(colours[None].astype(np.uint8), _BAR, 0)
    return np.ascontiguousarray(row)


def scenes(path: Path, checked: ViewsChecked) -> bool:
    """A picture of each camera, its empty scene, the subject alone, and on another camera's scene.

    False, and nothing is drawn, where no camera has enough pictures.
    """
    chosen = [
        (one, n)
        for one in checked.recordings
        for n, each in enumerate(one.cameras)
        if each.frames >= LEAST_FRAMES
    ][:_ROWS]
    if not chosen:
        return False
    columns = ("picture", "median", "removed", "substituted")
    rows = [_four(one, n) for one, n in chosen]
    widths = [max(row[k].width for row in rows) for k in range(len(columns))]
    width = 2 * MARGIN + _NAME + sum(widths) + 10 * len(columns)
    sheet = Image.new("RGB", (width, 2 * MARGIN + 60 + len(rows) * (_SIDE + 8)), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN), "Scenes", 18, bold=True)
    x = MARGIN + _NAME
    for name, room in zip(columns, widths, strict=True):
        write(draw, (x, MARGIN + 34), name, 12, GREY, room=room + 8)
        x += room + 10
    y = MARGIN + 56
    for (one, n), row in zip(chosen, rows, strict=True):
        each = one.cameras[n]
        write(draw, (MARGIN, y), each.camera.name, 13, bold=True, room=_NAME - 12)
        write(draw, (MARGIN, y + 20), one.raw.id, 11, GREY, room=_NAME - 12)
        said = f"{each.survey.scene.clipped:.1%} of the values are not exact"
        for k, line in enumerate(lines(said, 11, _NAME - 16)):
            write(draw, (MARGIN, y + 40 + 15 * k), line, 11, GREY)
        x = MARGIN + _NAME
        for picture, room in zip(row, widths, strict=True):
            sheet.paste(picture, (x, y))
            x += room + 10
        y += _SIDE + 8
    save(sheet, path)
    return True


def _four(one: RecordingCheck, n: int) -> list[Image.Image]:
    """The four pictures of a camera, at its busiest moment."""
    each = one.cameras[n]
    frame = int(each.survey.motion.argmax())
    picture = _view(one, n).pictures.read(np.array([frame]))
    scene = each.survey.scene.picture
    size = _size(picture.shape[2], picture.shape[3])
    small, behind = scaled(picture, size)[0], scaled(scene[None], size)[0]
    mask = foreground(small[None], behind)[0]
    other = one.cameras[(n + 1) % len(one.cameras)].survey.scene.picture
    elsewhere = scaled(other[None], size)[0]
    removed = np.where(mask, small, _MEAN[:, None, None])
    substituted = np.where(mask, small, elsewhere)
    return [_image(part) for part in (small, behind, removed, substituted)]


def subjects(path: Path, checked: ViewsChecked) -> None:
    """Where the subject is taken to be in pictures of each camera: its joints, or what moves."""
    chosen = [(one, n) for one in checked.recordings for n in range(len(one.cameras))][: 2 * _ROWS]
    tiles = [_subject(one, n) for one, n in chosen]
    across = min(4, len(tiles))
    width = max(tile.width for tile in tiles) + 14
    height = max(tile.height for tile in tiles) + 46
    rows = -(-len(tiles) // across)
    sheet = Image.new(
        "RGB", (max(2 * MARGIN + across * width, 560), 2 * MARGIN + 56 + rows * height), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN), "Subjects", 18, bold=True)
    note = "Joints: right orange, left blue. Without joints: what stands out from the scene."
    write(draw, (MARGIN, MARGIN + 26), note, 12, GREY)
    for k, ((one, n), tile) in enumerate(zip(chosen, tiles, strict=True)):
        x, y = MARGIN + k % across * width, MARGIN + 52 + k // across * height
        each = one.cameras[n]
        write(draw, (x, y), f"{one.raw.id} {each.camera.name}", 12, bold=True, room=width - 10)
        write(draw, (x, y + 16), _fits(each), 11, GREY, room=width - 10)
        sheet.paste(tile, (x, y + 34))
    save(sheet, path)


def _fits(each: CameraCheck) -> str:
    if each.misses is not None:
        return f"reprojection {each.misses:.2f} pixels"
    if each.strays is not None:
        return f"others see it {each.strays:.2f} heights away"
    return "no calibration" if not each.camera.calibrated else "calibrated"


def _subject(one: RecordingCheck, n: int) -> Image.Image:
    each, view = one.cameras[n], _view(one, n)
    frame = int(each.survey.motion.argmax())
    points = _points(view, frame)
    picture = view.pictures.read(np.array([frame]))
    size = _size(picture.shape[2], picture.shape[3], 2 * _SIDE)
    scale = size[0] / picture.shape[2]
    image = _image(scaled(picture, size)[0])
    draw = ImageDraw.Draw(image)
    if points is not None:
        for start, end in BONES:
            ends = points[[start, end]] * scale
            if np.isfinite(ends).all():
                draw.line([tuple(ends[0]), tuple(ends[1])], _side(end), 2)
        for joint, (x, y) in enumerate((points * scale).tolist()):
            if np.isfinite([x, y]).all():
                draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], _side(joint))
    elif np.isfinite(each.survey.places[frame]).all():
        box = each.survey.places[frame] * scale
        draw.rectangle([*box.tolist()], outline=_RIGHT, width=2)
    return image


def _points(view: RawView, frame: int) -> NDArray[np.float64] | None:
    """The joints in pixels, projected where that can be done."""
    seen = view.annotation
    if seen.joints is not None and view.camera.intrinsics is not None:
        return project_camera(seen.joints[min(frame, len(seen.joints) - 1)], view.camera)
    if seen.pixels is not None:
        return np.asarray(seen.pixels[min(frame, len(seen.pixels) - 1)], np.float64)
    return None


def _side(joint: int) -> tuple[int, int, int]:
    name = JOINTS[joint]
    return _LEFT if name.startswith("left") else _RIGHT if name.startswith("right") else _MIDDLE


def _view(one: RecordingCheck, n: int) -> RawView:
    name = one.cameras[n].camera.name
    return next(view for view in one.raw.views if view.camera.name == name)


def _size(height: int, width: int, side: int = _SIDE) -> tuple[int, int]:
    return side, min(max(1, round(width * side / height)), 2 * side)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def curves(
    path: Path, pairs: Sequence[tuple[str, Offset]], rate: float, *, title: str, score: str
) -> None:
    """The curve of each pair of cameras, its best offset and interval; `score` labels the y axis.

    `pairs` are titles and offsets.
    """
    columns = min(3, max(1, len(pairs)))
    rows = max(1, -(-len(pairs) // columns))
    size = (4.4 * columns + 0.3, 2.8 * rows + 0.7)
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(own):
        figure = Figure(figsize=size, dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - 0.45 / size[1]))
        figure.text(
            0.02, 1 - 0.1 / size[1], title, va="top", fontsize=12, weight="bold", color=INK,
            parse_math=False,
        )  # fmt: skip
        for number, (name, one) in enumerate(pairs, 1):
            axes = figure.add_subplot(rows, columns, number)
            colour = GREY if one.doubt else COLOURS[0]
            axes.axvspan(one.low - 0.5, one.high + 0.5, color=colour, alpha=0.15, linewidth=0)
            axes.axvline(one.peak, color=COLOURS[1], linewidth=1.2)
            axes.plot(one.lags, one.scores, color=colour, linewidth=1.4)
            said = "cannot be told" if one.doubt else f"{one.peak:+.1f} frames"
            if not one.doubt:
                said += f" ({one.peak / rate:+.3f} s)"
            axes.set_title(f"{name}: {said}", loc="left", fontsize=9, color=INK, parse_math=False)
            axes.set_xlabel("offset in frames", fontsize=8, color=GREY)
            axes.set_ylabel(score, fontsize=8, color=GREY)
            axes.tick_params(labelsize=7, colors=GREY, length=3)
            axes.grid(color=RULE, linewidth=0.8)
            axes.set_axisbelow(True)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(RULE)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
