"""The built-in `scenes` with a box around each object, or with the class of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.data import rendered, scenes
from selfsup_cli.data.boxes import BoxedImages, Boxes
from selfsup_cli.data.framing import Region, region_of
from selfsup_cli.data.image_store import Images
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import cut, voc_palette
from selfsup_cli.data.source import Split


class SceneMasks(MaskedImages):
    """`scenes` whose pixels have classes: 0 is the background, then come the classes of objects.

    Masks are rendered when they are read.
    """

    def __init__(self, images: Images, settings: Rendered) -> None:
        self.__dict__.update(images.__dict__)
        self.settings = settings
        self.classes = rendered.MASK_CLASSES
        self.label_of = tuple(range(len(self.classes)))
        self.palette = voc_palette()
        count = settings.images + settings.test_images
        self._has = np.zeros((count, len(self.classes)), bool)
        self._has[:, 0] = True
        for row in self.rows.tolist():
            part, index = rendered.address(settings, row)
            self._has[row, 1 + scenes.class_of(settings.seed, part, index)] = True
        self.fingerprint = self._fingerprint()

    def mask(self, i: int, region: Region | None = None) -> torch.Tensor:
        classes = rendered.mask(self.settings, int(self.rows[i]))
        return cut(classes, region or region_of(None, *classes.shape))


def masked_scenes(data: Data, settings: Rendered, split: Split) -> SceneMasks:
    """A part of the images that `settings` describes, with masks."""
    return SceneMasks(_opened(data, settings, split), settings)


def boxed_scenes(data: Data, settings: Rendered, split: Split) -> BoxedImages:
    """A part of the images that `settings` describes, with the box of the one object in each."""
    images = _opened(data, settings, split)
    boxes = []
    for row in images.rows.tolist():
        label = scenes.class_of(settings.seed, *rendered.address(settings, row))
        box = np.array([rendered.box(settings, row)], np.float64)
        boxes.append(Boxes(box, np.array([label], np.int64)))
    return BoxedImages(images, scenes.CLASSES, boxes)


def _opened(data: Data, settings: Rendered, split: Split) -> Images:
    common: dict[str, Any] = {name: getattr(data, name) for name in Data.model_fields}
    given = ImageData(**common, scenes=settings)
    return rendered.open_rendered("scenes", given, split, labels=False)
