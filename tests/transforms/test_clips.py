from __future__ import annotations

import colorsys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfsup_cli.config.video import ClipAugmentation
from selfsup_cli.transforms.clips import augment, center
from selfsup_cli.transforms.color import recolor


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options(**values: Any) -> ClipAugmentation:
    return ClipAugmentation.model_validate({"resize": (24, 30), "crop": 16, **values})


def coordinates(b: int, t: int, h: int, w: int) -> Tensor:
    """Clips whose red is the column, whose green is the row, whose blue names clip and frame."""
    clips = torch.empty(b, 3, t, h, w, dtype=torch.uint8)
    clips[:, 0] = torch.arange(w, dtype=torch.uint8)
    clips[:, 1] = torch.arange(h, dtype=torch.uint8)[:, None]
    clips[:, 2] = torch.arange(b * t, dtype=torch.uint8).reshape(b, t, 1, 1)
    return clips


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=gen(seed))


def as_bytes(x: Tensor) -> Tensor:
    values = (x + 1) * 127.5
    assert torch.allclose(values, values.round(), atol=1e-3)
    return values.round().to(torch.int64)


@pytest.mark.parametrize("flip", [True, False])
def test_crops_are_exact_per_clip_and_constant_over_time(flip: bool) -> None:
    clips = coordinates(24, 4, 24, 30)
    tops, lefts, flipped = set(), set(), []
    for seed in range(12):
        out = augment(clips, options(flip=flip), gen(seed), group=4)
        assert out.dtype == torch.float32
        assert out.shape == (24, 3, 4, 16, 16)
        values = as_bytes(out)
        for i, clip in enumerate(values):
            columns, rows = clip[0, 0, 0], clip[1, 0, :, 0]
            backwards = bool(columns[0] > columns[-1])
            top, left = int(rows[0]), int(columns.min())
            expected = clips[i, :, :, top : top + 16, left : left + 16].long()
            assert torch.equal(clip, expected.flip(-1) if backwards else expected)
            tops.add(top)
            lefts.add(left)
            flipped.append(backwards)
        groups = torch.tensor(flipped[-24:]).reshape(6, 4)
        assert (groups == groups[:, :1]).all()
    assert tops == set(range(24 - 16 + 1))
    assert lefts == set(range(30 - 16 + 1))
    share = sum(flipped) / len(flipped)
    assert 0.3 < share < 0.7 if flip else share == 0


def test_values_span_minus_one_to_one() -> None:
    clips = torch.zeros(1, 3, 2, 24, 30, dtype=torch.uint8)
    clips[:, :, 1] = 255
    for out in (augment(clips, options(), gen(), group=1), center(clips, 16)):
        assert (out[:, :, 0] == -1).all()
        assert torch.allclose(out[:, :, 1], torch.ones(()), atol=1e-6)


def test_random_scale_is_scaling_then_cropping() -> None:
    """Each clip must equal one of all the crops of all the sizes it could have been scaled to."""
    h, w, crop = 24, 30, 16
    clips = noise(12, 3, 2, h, w)
    settings = options(scale=(0.7, 1.0))
    factors = torch.linspace(0.7, 1.0, 2001).tolist()
    sizes = sorted({(round(h * f), round(w * f)) for f in factors})
    out = (augment(clips, settings, gen(3), group=1) + 1) * 127.5
    found = set()
    for clip, result in zip(clips, out, strict=True):
        best = (1e9, (0, 0), False)
        for sh, sw in sizes:
            frames = clip.transpose(0, 1).float()
            scaled = F.interpolate(frames, (sh, sw), mode="bilinear", antialias=True)
            windows = scaled.transpose(0, 1).unfold(2, crop, 1).unfold(3, crop, 1)
            for flip in (False, True):
                target = result.flip(-1) if flip else result
                error = (windows - target[:, :, None, None]).abs().amax((0, 1, 4, 5)).min()
                best = min(best, (float(error), (sh, sw), flip))
        assert best[0] < 1e-2
        found.add(best[1:])
    assert len({size for size, _ in found}) > 3
    assert {flip for _, flip in found} == {False, True}


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 1.0)])
def test_clips_that_are_compared_are_cropped_alike(scale: tuple[float, float]) -> None:
    one = torch.randint(256, (4, 3, 2, 40, 40), generator=torch.Generator().manual_seed(0))
    pairs = one.to(torch.uint8).repeat_interleave(2, 0)
    settings = ClipAugmentation(resize=(40, 40), crop=16, scale=scale)
    for alike in (True, False):
        g = torch.Generator().manual_seed(1)
        out = augment(pairs, settings, g, group=2, alike=alike).reshape(4, 2, -1)
        same = [torch.equal(first, second) for first, second in out.unbind(0)]
        assert same == [alike] * 4


def test_a_scale_of_exactly_one_gives_the_same_as_no_scaling() -> None:
    clips = noise(4, 3, 2, 24, 30)
    plain = augment(clips, options(), gen(5), group=2)
    almost = augment(clips, options(scale=(1 - 1e-6, 1.0)), gen(5), group=2)
    assert torch.allclose(plain, almost, atol=1e-4)


def test_crops_of_the_full_frame_and_of_the_smallest_scale_fit() -> None:
    clips = noise(3, 3, 2, 16, 16)
    whole = augment(clips, options(resize=(16, 16), flip=False), gen(), group=1)
    assert torch.equal(as_bytes(whole), clips.long())
    clips = noise(64, 3, 1, 32, 32)
    out = augment(clips, options(resize=(32, 32), scale=(0.5, 0.5)), gen(), group=1)
    scaled = F.interpolate(clips[:, :, 0].float(), (16, 16), mode="bilinear", antialias=True)
    target = scaled / 127.5 - 1
    same = (out[:, :, 0] - target).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (out[:, :, 0].flip(-1) - target).abs().amax((1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()


def pixel(rgb: tuple[float, ...], brightness: float, saturation: float, first: bool) -> list[float]:
    """Rule R13 for one pixel, through the standard library's HSV."""

    def clamp(values: Any) -> list[float]:
        return [min(max(v, 0.0), 1.0) for v in values]

    def saturate(values: list[float]) -> list[float]:
        h, s, v = colorsys.rgb_to_hsv(*values)
        return list(colorsys.hsv_to_rgb(h, min(s * saturation, 1.0), v))

    if first:
        return saturate(clamp(v + brightness for v in rgb))
    return clamp(v + brightness for v in saturate(list(rgb)))


unit = st.floats(0, 1, exclude_max=True, width=32)


@given(st.tuples(*[st.integers(0, 255)] * 3), unit, unit, unit, unit)
def test_color_equals_its_statement_per_pixel(
    rgb: tuple[int, int, int], b: float, s: float, order: float, grey: float
) -> None:
    values = tuple(v / 255 for v in rgb)
    x = torch.tensor(values).reshape(1, 3, 1, 1, 1)
    u = torch.tensor([b, s, order, grey]).reshape(4, 1, 1, 1, 1, 1)
    expected = pixel(values, (2 * b - 1) * 32 / 255, 0.5 + s, order < 0.5)
    if grey < 0.2:
        expected = [0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]] * 3
    assert recolor(x, u).flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("color", ["clip", "frame"])
def test_color_is_drawn_per_clip_or_per_frame(color: str) -> None:
    still = noise(200, 3, 1, 16, 16, seed=1).expand(200, 3, 5, 16, 16)
    out = augment(still, options(resize=(16, 16), color=color), gen(2), group=4)
    assert out.min() >= -1
    assert out.max() <= 1
    differs = (out[:, :, 1:] - out[:, :, :1]).abs().amax((1, 3, 4)) > 1e-6
    assert differs.all() if color == "frame" else not differs.any()
    grey = ((out[:, 0] == out[:, 1]) & (out[:, 1] == out[:, 2])).all(-1).all(-1)
    share = float(grey.float().mean())
    assert 0.1 < share < 0.3
    assert (grey == grey[:, :1]).all() == (color == "clip")


def test_brightness_is_added_uniformly_within_32_levels() -> None:
    flat = torch.full((2000, 3, 1, 16, 16), 128, dtype=torch.uint8)
    out = augment(flat, options(resize=(16, 16), color="clip"), gen(4), group=1)
    levels = (out[:, 0, 0, 0, 0] + 1) * 127.5 - 128
    assert -32 <= levels.min() < -30
    assert 30 < levels.max() <= 32
    assert abs(float(levels.mean())) < 5 * 32 / 3**0.5 / 2000**0.5


def test_without_color_pixels_keep_their_values() -> None:
    clips = noise(2, 3, 3, 24, 30)
    out = as_bytes(augment(clips, options(color="none"), gen(), group=1))
    for clip, result in zip(clips, out, strict=True):
        assert set(result.flatten().tolist()) <= set(clip.flatten().tolist())


@pytest.mark.parametrize("color", ["none", "frame"])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.7, 1.0)])
def test_results_depend_on_the_generator_alone(color: str, scale: tuple[float, float]) -> None:
    clips = noise(8, 3, 3, 24, 30)
    before = clips.clone()
    settings = options(color=color, scale=scale)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = augment(clips, settings, gen(9), group=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(augment(clips, settings, gen(9), group=4), first)
    assert not torch.equal(augment(clips, settings, gen(10), group=4), first)
    assert torch.equal(clips, before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(clips, settings, gen(9), group=4), first)


def test_other_memory_layouts_give_the_same() -> None:
    clips = noise(4, 3, 4, 24, 30)
    strided = clips.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    for settings in (options(), options(scale=(0.7, 1.0))):
        expected = augment(clips, settings, gen(), group=2)
        assert torch.equal(augment(strided, settings, gen(), group=2), expected)


@pytest.mark.parametrize(
    ("h", "w", "top", "left"), [(24, 30, 4, 7), (17, 16, 0, 0), (19, 21, 1, 2)]
)
def test_center_is_the_middle(h: int, w: int, top: int, left: int) -> None:
    clips = coordinates(2, 3, h, w)
    out = center(clips, 16)
    assert out.dtype == torch.float32
    assert torch.equal(as_bytes(out), clips[..., top : top + 16, left : left + 16].long())


def test_what_cannot_be_cropped_is_refused() -> None:
    small = noise(2, 3, 2, 15, 30)
    with pytest.raises(ValueError, match="crop of 16 does not fit into frames of 15×30"):
        augment(small, options(), gen(), group=1)
    with pytest.raises(ValueError, match="does not fit"):
        center(small, 16)
    with pytest.raises(ValueError, match="5 clips cannot be split into groups of 4"):
        augment(noise(5, 3, 2, 24, 30), options(), gen(), group=4)
    with pytest.raises(ValueError, match="uint8"):
        center(small.float(), 8)
    with pytest.raises(ValueError, match="uint8"):
        center(small.transpose(1, 2), 8)
