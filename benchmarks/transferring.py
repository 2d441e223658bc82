"""What transfer, feature extraction and a finished experiment cost beside what they must do."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import measure
import numpy as np
import torch
import torch.nn.functional as F
from toy import open_run

from selfsup_cli.config.blocks import Motion, Train
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.transfer import TransferAction
from selfsup_cli.data.loader import ClipDataset, EpochLoader
from selfsup_cli.data.motion import MotionSource
from selfsup_cli.engine.devices import Hardware, choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.errors import SelfsupError
from selfsup_cli.evaluation.action import Action
from selfsup_cli.evaluation.clips import ClipProtocol, ProtocolPlan, in_batches, read_videos
from selfsup_cli.evaluation.features import extract
from selfsup_cli.models import Backbone, build
from selfsup_cli.randomness import generator
from selfsup_cli.transforms import clips as pixels

ROUNDS, BATCH, STEPS, VIDEOS = 5, 8, 12, 24
FINE_TUNING = "a fine-tuning step of C3D, 16×64×64"
EXTRACTION = "clips/s of feature extraction, decoding excluded"
DECODING = "the same, decoding included"
NOTHING = "seconds beyond start-up of an experiment with nothing to do"
LIMITS = {
    FINE_TUNING: "the engine's own work in each step (see the row on added µs)",
    EXTRACTION: "pooling of the layers, and rows written to the cache and read back",
}


class Held(MotionSource):
    """Videos whose frames lie in memory, so that reading them costs nothing."""

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        if not hasattr(self, "_held"):
            self._held: dict[int, torch.Tensor] = {}
        if i not in self._held:
            self._held[i] = super().read(i, np.arange(self.num_frames[i]), size)
        return self._held[i][:, torch.from_numpy(np.asarray(frames))]


def rows() -> list[measure.Row]:
    """Ratios of speeds; the last one in seconds."""
    torch.set_num_threads(1)
    tune_allocator()
    return [*_fine_tuning(), *_extraction(), *_nothing_to_do()]


def _backbone() -> Backbone:
    return build("c3d", width=0.5, crop=64, resize=(72, 72), seed=0)


def _fine_tuning() -> list[measure.Row]:
    source = Held(Motion(videos=VIDEOS, side=72, length=64), "train", True)
    resolved = resolve(
        "transfer/action",
        options={"data.source": "motion", "start.init": "random"},
        sets=["start.freeze=none", "augment.resize=[72, 72]", "augment.crop=64"],
        env={},
    )
    preset = resolved.preset
    assert isinstance(preset, TransferAction)
    tasks = {
        name: Action(preset, _backbone(), source.classes or (), 0) for name in ("bare", "ours")
    }
    dataset = ClipDataset(source, tasks["ours"].plan, (72, 72), 0)
    loader = EpochLoader(dataset, VIDEOS, batch_size=BATCH, seed=0)
    batches = [batch for epoch in range(STEPS * BATCH // VIDEOS) for batch in loader.epoch(epoch)]

    def bare() -> None:
        task = tasks["bare"]
        optimizer = build_optimizer(task.network, preset.optim)
        task.train()
        for number, batch in enumerate(batches):
            g = generator(0, number, "augment")
            clips = pixels.augment(batch["clip"], task.augment, g, group=1)
            loss = F.cross_entropy(task.network(clips), batch["label"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def ours() -> None:
        train = Train(epochs=STEPS * BATCH // VIDEOS, batch_size=BATCH, checkpoint_minutes=60)
        with (
            tempfile.TemporaryDirectory() as folder,
            open_run(folder) as run,
            Path(os.devnull).open("w") as nowhere,
            Progress(stream=nowhere) as progress,
        ):
            Fit(tasks["ours"], loader, train, preset.optim, choose("cpu"), progress, run=run)()

    spent = measure.interleaved({"bare": bare, "ours": ours}, ROUNDS)
    return [(FINE_TUNING, "bare loop", spent["bare"] / spent["ours"], "≥ 0.9")]


def _extraction() -> list[measure.Row]:
    backbone = _backbone().eval()
    hardware = Hardware(torch.device("cpu"), None)
    clips = ClipProtocol(16, 4, 4)
    found = []
    for name, kind, goal in ((EXTRACTION, Held, "≥ 0.95"), (DECODING, MotionSource, "≥ 0.95")):
        source = kind(Motion(videos=VIDEOS, side=72, length=64), "train", True)

        def plain(source: MotionSource = source) -> None:
            decoded = read_videos(
                source, range(len(source)), ProtocolPlan(source, clips), (72, 72), 0
            )
            with torch.no_grad():
                for batch, _ in in_batches(decoded, 16, hardware.device):
                    backbone.embed(pixels.center(batch, 64))

        def ours(source: MotionSource = source) -> None:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["SELFSUP_CACHE"] = folder
                extract(backbone, source, clips, hardware=hardware, layers=[], grid=1, workers=0)

        spent = measure.interleaved({"plain": plain, "ours": ours}, ROUNDS)
        found.append((name, "plain torch.no_grad() loop", spent["plain"] / spent["ours"], goal))
    return found


def _nothing_to_do() -> list[measure.Row]:
    """A finished small experiment, asked for again, against `selfsup --version`."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SELFSUP_RUNS": folder, "SELFSUP_CACHE": f"{folder}/cache"}

        def call(*arguments: str) -> float:
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "selfsup_cli", *arguments],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SelfsupError(done.stderr)
            return time.perf_counter() - began

        experiment = str(Path(__file__).with_name("experiment.yaml"))
        call("reproduce", experiment, "--scale", "smoke")
        again = statistics.median(
            call("reproduce", experiment, "--scale", "smoke") for _ in range(ROUNDS)
        )
        version = statistics.median(call("--version") for _ in range(ROUNDS))
    return [(NOTHING, "selfsup --version", again - version, "≤ 2 s")]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        measure.main(rows, LIMITS)
