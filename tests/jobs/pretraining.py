"""A small pretraining in processes that can be told when to die.

`python pretraining.py METHOD RUN WORKERS [STEP:WHERE …]` pretrains on a handful of built-in videos
or images, once for each STEP:WHERE and then once more to the end. In each of the former the process
kills itself with SIGKILL in that step: before the update (`update`), or inside the checkpoint that
follows it (`checkpoint`). The processes are forked from one that has imported everything and run
nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from selfsup_cli.config.presets import Resolved, resolve

SETTINGS = (
    "train.epochs=3",
    "train.batch_size=6",
    "train.checkpoint_steps=2",
    "monitor.every_epochs=1",
)
VIDEOS = (
    "data.motion.videos=24",
    "data.motion.test_videos=8",
    "data.motion.side=32",
    "network.width=0.125",
    "augment.resize=[32, 32]",
    "augment.crop=32",
    "monitor.videos=8",
    "monitor.draws=1",
    "monitor.knn_videos=8",
)
IMAGES = (
    "data.scenes.images=24",
    "data.scenes.test_images=8",
    "network.width=0.0625",
    "framing.shorter=40",
    "framing.canvas=36",
    "framing.crop=32",
    "framing.jitter=2",
    "lci.patch=16",
    "lci.layers=3",
    "lci.width=0.1",
    "lci.schedule=constant",
    "monitor.images=8",
    "monitor.knn_images=8",
    "shortcuts.on=false",
)
# Four steps for the autoencoder, eight for damage and repair.
ARTIFACTS = (
    "data.scenes.images=24",
    "data.scenes.test_images=8",
    "train.epochs=2",
    "network.width=0.0625",
    "framing.crop=32",
    "autoencoder.epochs=1",
    "autoencoder.base=4",
    "autoencoder.max_error=4.0",
    "history=6",
    "monitor.images=8",
    "monitor.knn_images=8",
)
GAN = (
    "data.scenes.images=24",
    "data.scenes.test_images=16",
    "network.width=0.125",
    "train.max_steps=12",
    "train.keep_generators=3",
    "monitor.images=16",
)
DATA = {
    "temporal": ("motion", VIDEOS),
    "transformations": ("scenes", IMAGES),
    "artifacts": ("scenes", ARTIFACTS),
    "dfgan": ("scenes", GAN),
}
STEPS = 12


def preset(workers: int, *more: str, method: str = "temporal") -> Resolved:
    """The preset of that small pretraining."""
    source, own = DATA[method]
    sets = [f"data.source={source}", *SETTINGS, *own, f"machine.workers={workers}", *more]
    # Of a field that is set twice, the last one counts here.
    last = {text.partition("=")[0]: text for text in sets}
    return resolve(f"pretrain/{method}", sets=list(last.values()), env={})


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: int, where: str, method: str) -> None:
    """Make the job die in that step."""
    if where == "update":
        trained = import_module(f"selfsup_cli.methods.{method}").METHOD
        whole = trained.step

        def fatal(self: Any, batch: dict[str, Any], update: Any) -> Any:
            if update.step == step:
                die()
            return whole(self, batch, update)

        trained.step = fatal
        return
    from selfsup_cli.engine import checkpoints

    write = checkpoints.save_tensors

    def torn(path: Path, value: Mapping[str, Any]) -> str:
        if value["at"]["step"] > step:
            path.write_bytes(b"half")
            die()
        return write(path, value)

    checkpoints.save_tensors = torn


def main() -> None:
    from selfsup_cli.jobs.pretrain import pretrain

    method, name, workers, *kills = sys.argv[1:]
    for kill in [*kills, ""]:
        child = os.fork()
        if child == 0:
            if kill:
                step, where = kill.split(":")
                arm(int(step), where, method)
            pretrain(preset(int(workers), method=method), run=name, command=["test"], quiet=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        expected = -signal.SIGKILL if kill else 0
        if os.waitstatus_to_exitcode(status) != expected:
            sys.exit(f"{kill or 'the last'}: ended with {status}, not with {expected}")


if __name__ == "__main__":
    main()
