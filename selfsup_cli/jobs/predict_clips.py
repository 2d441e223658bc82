"""What a network takes videos for: the mean over clips of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.transfer import ActionClips
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.files import open_listing
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import SUFFIXES, Listing
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.clips import ClipProtocol, ProtocolPlan, in_batches, read_videos
from selfsup_cli.jobs.predicted import Answer, Bad
from selfsup_cli.models.classifier import Trained
from selfsup_cli.transforms import clips as pixels
from selfsup_cli.visualization import predictions

_BATCH = 32
_SHOWN = 4


class Clips:
    """Videos, and how a trained network looks at them: at `count` clips of each."""

    many = "videos"

    def __init__(self, trained: Trained, count: int | None) -> None:
        self.trained = trained
        taken = ActionClips.model_validate({k: trained.clips[k] for k in ("max_skip", "test")})
        if count is None and taken.test != "all":
            count = taken.test
        frames = trained.network.backbone.input.frames
        self.protocol = ClipProtocol(frames, taken.max_skip, count)

    def open(self, path: str, workers: int, progress: Progress) -> ClipSource:
        """A file, or all of a folder or dataset."""
        counting = progress.counting("looking at files")
        file = Path(path).expanduser()
        data = VideoData(source=path)
        if file.is_file() and file.suffix.lower() in SUFFIXES:
            listing = Listing(file.name, file.absolute().parent, PackedIds([file.name]), "one file")
            self.source: ClipSource = open_listing(
                listing, data, "all", workers=0, progress=counting
            )
        else:
            self.source = open_source(data, "all", labels=False, workers=workers, progress=counting)
        return self.source

    @torch.no_grad()
    def ask(self, hardware: Hardware, workers: int, bad: Bad, progress: Progress) -> np.ndarray:
        """Probabilities float64 [N, C]; zeros for what is told to `bad`."""
        trained, source = self.trained, self.source
        network = trained.network.eval().to(hardware.device)
        size = (int(trained.clips["resize"][0]), int(trained.clips["resize"][1]))
        crop = int(trained.clips["crop"])
        told = progress.counting("videos")
        sums = np.zeros((len(source), len(trained.classes)))
        plan = ProtocolPlan(source, self.protocol)
        decoded = read_videos(source, range(len(source)), plan, size, workers, bad=bad)
        for clips, owners in in_batches(decoded, _BATCH, hardware.device):
            with hardware.autocast():
                logits: Tensor = network(pixels.center(clips, crop))
            np.add.at(sums, owners, logits.softmax(1).double().cpu().numpy())
            told(owners[-1] + 1, len(source))
        shares: np.ndarray = sums / np.maximum(sums.sum(1, keepdims=True), 1e-12)
        return shares

    def draw(self, position: int, path: Path, answers: list[Answer]) -> None:
        """Some frames of a video over its answers, as a PNG."""
        n = int(self.source.num_frames[position])
        numbers = np.unique(np.linspace(0, n - 1, _SHOWN + 2)[1:-1].round().astype(np.int64))
        frames = self.source.read(position, numbers, None)
        name = self.source.ids[position]
        predictions.annotated(path, frames, numbers.tolist(), answers, name=name)
