"""What a network takes images for: the mean over crops of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_files import open_image_files
from selfsup_cli.data.images import open_images
from selfsup_cli.data.listing import IMAGE_SUFFIXES, Listing
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.classify import probabilities
from selfsup_cli.evaluation.image_task import ask, views_of
from selfsup_cli.evaluation.views import Crops
from selfsup_cli.jobs.predicted import Answer, Bad
from selfsup_cli.models.classifier import Trained
from selfsup_cli.visualization import predictions

_SHORTER = 480
_HEIGHT = 260


def opened(path: str, workers: int, progress: Progress) -> ImageSource:
    """An image file, or all of a folder or dataset."""
    counting = progress.counting("looking at files")
    file = Path(path).expanduser()
    data = ImageData(source=path)
    if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES:
        listing = Listing(file.name, file.absolute().parent, PackedIds([file.name]), "one file")
        return open_image_files(listing, data, "all", workers=0, progress=counting)
    return open_images(data, "all", labels=False, workers=workers, progress=counting)


class Pictures:
    """Images, and how a trained network looks at them: at one crop of each, or at ten."""

    many = "images"

    def __init__(self, trained: Trained, crops: Crops | None) -> None:
        self.trained = trained
        self.views = views_of(crops or trained.clips["crops"])
        self.several = trained.clips.get("labels") == "attributes"

    def open(self, path: str, workers: int, progress: Progress) -> ImageSource:
        """A file, or all of a folder or dataset."""
        self.source = opened(path, workers, progress)
        return self.source

    def ask(self, hardware: Hardware, workers: int, bad: Bad, progress: Progress) -> np.ndarray:
        """Probabilities float64 [N, C]; zeros for what is told to `bad`."""
        return ask(
            self.trained.network,
            self.source,
            self.views,
            probabilities(several=self.several),
            hardware,
            workers=workers,
            bad=bad,
            told=progress.counting("images"),
        )

    def draw(self, position: int, path: Path, answers: list[Answer]) -> None:
        """An image over its answers, as a PNG."""
        source = self.source
        # As it is, but for one that would not fit on a screen.
        shorter = int(source.sizes[position].min())
        image = source.read(position, min(shorter, _SHORTER))
        name = source.ids[position]
        predictions.annotated(path, image[:, None], [], answers, name=name, frame_height=_HEIGHT)
