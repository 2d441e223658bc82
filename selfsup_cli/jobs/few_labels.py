"""Learning from a share of the labels: `--fraction`."""

from __future__ import annotations

import numpy as np

from selfsup_cli.data.pose_images import PoseImages
from selfsup_cli.data.source import UNKNOWN, ClipSource, ImageSource
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import derive


def few(source: ClipSource | ImageSource | PoseImages, fraction: float, seed: int) -> np.ndarray:
    """Positions (ascending int64) of a share of the videos or images, the same of every class.

    Chosen by a seeded hash of the ids, so that a larger share holds a smaller one. Where images
    have attributes, the share is one of all images. Raises InputError if a class, or an attribute,
    would be left without any.
    """
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "fraction"))
    many = "videos" if hasattr(source, "num_frames") else "images"
    if source.labels is None or source.classes is None:
        count = round(fraction * len(source))
        if count == 0:
            raise InputError(
                f"fraction {fraction:g} of {len(source)} {many} of {source.name} is none",
                kind="fraction",
            )
        kept = np.array(sorted(order[:count]), dtype=np.int64)
        if source.labels is not None:
            _check_attributes(source, kept, fraction)
        return kept
    chosen: list[int] = []
    for c, name in enumerate(source.classes):
        own = [i for i in order if source.labels[i] == c]
        count = round(fraction * len(own))
        if own and count == 0:
            raise InputError(
                f"fraction {fraction:g} leaves the class {name} of {source.name}, which has "
                f"{len(own)} training {many}, without any; use --fraction {1 / len(own):.2g} or "
                "more",
                kind="fraction",
            )
        chosen += own[:count]
    return np.array(sorted(chosen), dtype=np.int64)


def _check_attributes(source: ClipSource | ImageSource, kept: np.ndarray, fraction: float) -> None:
    """Raise InputError for an attribute that all, or none, of the images kept have."""
    labels = np.asarray(source.labels)
    for a, name in enumerate(getattr(source, "attributes", None) or ()):
        known = labels[:, a][labels[:, a] != UNKNOWN]
        for value, state in ((1, "have"), (0, "lack")):
            every = int((known == value).sum())
            if every and not (labels[kept, a] == value).any():
                raise InputError(
                    f"fraction {fraction:g} leaves none of the {every} training images of "
                    f"{source.name} that {state} the attribute {name}; use a larger --fraction, or "
                    "another --seed",
                    kind="fraction",
                )
