"""Images with masks, made for tests: a bright disc on dark ground, in several forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def disc(seed: int, size: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3] and its mask uint8 [H, W]: 1 in the disc, 2 in a bar, 255 at the
    upper border, 0 elsewhere."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    middle = rng.uniform(0.3, 0.7, 2) * size
    mask = np.zeros(size, np.uint8)
    mask[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (min(size) / 4) ** 2] = 1
    mask[:, : size[1] // 6] = 2
    colors = np.array([(40, 60, 80), (230, 90, 60), (60, 200, 90)])
    image = colors[mask] + rng.integers(-20, 20, (*size, 3))
    mask[:2] = 255
    return np.clip(image, 0, 255).astype(np.uint8), mask


def put_pair(
    image: Path, mask: Path, seed: int, size: tuple[int, int] = (40, 48), mode: str = "P"
) -> None:
    """Write one image and its mask, as a palette PNG (P), greyscale (L) or colours (RGB)."""
    pixels, labels = disc(seed, size)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image)
    write_mask(mask, labels, mode)


def write_mask(path: Path, labels: np.ndarray, mode: str = "P") -> None:
    """Write labels uint8 [H, W]; of RGB, label k is (k, 2·k, 3·k) in 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "RGB":
        wide = labels.astype(np.int64)[..., None] * np.array([1, 2, 3]) % 256
        Image.fromarray(wide.astype(np.uint8)).save(path)
        return
    picture = Image.fromarray(labels)
    if mode == "P":
        picture.putpalette([(7 * k) % 256 for k in range(768)])
    picture.save(path)


def voc(root: Path, names: Sequence[str], lists: bool = True) -> Path:
    """PASCAL VOC's form; every third image is in the list `val`."""
    for seed, name in enumerate(names):
        put_pair(root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png", seed)
    put_pair(root / "JPEGImages/unmasked.jpg", root / "junk.png", 99)
    (root / "junk.png").unlink()
    if lists:
        folder = root / "ImageSets/Segmentation"
        folder.mkdir(parents=True)
        for part, own in (("train", [n for i, n in enumerate(names) if i % 3]),
                          ("val", list(names[::3]))):  # fmt: skip
            (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in own))
    return root


def folders(root: Path, names: Sequence[str], mode: str = "P") -> Path:
    """Two folders, `images` and `masks`."""
    for seed, name in enumerate(names):
        put_pair(root / f"images/{name}.png", root / f"masks/{name}.png", seed, mode=mode)
    return root


def divided(root: Path, names: Sequence[str], form: str) -> Path:
    """Two parts, laid out as `form` says of `{part}` and `{kind}`."""
    for seed, name in enumerate(names):
        part = "val" if seed % 3 == 0 else "train"
        image = form.format(part=part, kind="images")
        mask = form.format(part=part, kind="masks")
        put_pair(root / image / f"{name}.png", root / mask / f"{name}.png", seed, mode="L")
    return root
