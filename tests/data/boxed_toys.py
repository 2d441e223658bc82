"""Small images with boxes in the forms that people keep them in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsup_cli.config.detect import BoxedData
from selfsup_cli.data.boxed_source import open_boxed
from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.source import Split

Object = (
    tuple[str, tuple[float, float, float, float]]
    | tuple[str, tuple[float, float, float, float], bool]
)


def opened(path: Path | str, split: Split = "all", **data: Any) -> BoxedImages:
    return open_boxed(BoxedData(source=str(path), **data), split, labels=True, workers=0)


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    """An image of (width, height), other content for every name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def xml(
    objects: Sequence[Object], size: tuple[int, int] | None = (40, 30), filename: str = ""
) -> str:
    """An annotation as PASCAL VOC writes it, boxes as given."""
    parts = [f"<filename>{filename}</filename>"] if filename else []
    if size is not None:
        parts.append(f"<size><width>{size[0]}</width><height>{size[1]}</height></size>")
    for name, box, *difficult in objects:
        corners = "".join(
            f"<{key}>{value}</{key}>"
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        hard = f"<difficult>{int(difficult[0])}</difficult>" if difficult else "<difficult/>"
        parts.append(f"<object><name>{name}</name>{hard}<bndbox>{corners}</bndbox></object>")
    return f"<annotation>{''.join(parts)}</annotation>"


def voc(
    root: Path,
    images: Mapping[str, Sequence[Object]],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """PASCAL VOC's folders, with `lists` of `ImageSets/Main`."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, objects in images.items():
        picture(root / "JPEGImages" / f"{stem}.png")
        (root / "Annotations" / f"{stem}.xml").write_text(xml(objects))
    for name, stems in (lists or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")
    return root


def coco(
    path: Path,
    images: Mapping[str, Sequence[tuple[int, list[float]]]],
    categories: Mapping[int, str],
    change: Mapping[str, Any] | None = None,
) -> Path:
    """A JSON file of COCO, whose annotations are (category, [left, top, width, height])."""
    rows = [
        {"id": number, "file_name": name, "width": 40, "height": 30}
        for number, name in enumerate(images, 7)
    ]
    annotations = [
        {"id": 1, "image_id": row["id"], "category_id": category, "bbox": box, "iscrowd": 0}
        for row in rows
        for category, box in images[str(row["file_name"])]
    ]
    content: dict[str, Any] = {
        "images": rows,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **(change or {})}))
    return path
