"""What the README tells a user to type works as typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from selfsup_cli.config.blocks import Motion
from selfsup_cli.data.motion import MotionSource

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "data.motion.videos=16",
    "data.motion.test_videos=8",
    "data.motion.side=32",
)
# The README's commands train for minutes; here they are cut to a few steps of a tiny network.
CUT = {
    "pretrain": (
        *SMALL, "train.max_steps=2", "train.batch_size=4", "network.width=0.125",
        "augment.resize=[32, 32]", "augment.crop=32", "monitor.videos=4", "monitor.knn_videos=8",
    ),
    "visualize": (*SMALL, "augment.resize=[32, 32]", "augment.crop=32"),
    "transfer": (
        *SMALL, "train.max_steps=2", "train.batch_size=4", "network.width=0.125",
        "head.hidden=[64]", "clips.test=1",
    ),
    "probe": (*SMALL, "probe.epochs=2", "clips.train=1", "clips.test=1"),
    "retrieve": (*SMALL, "neighbours.clips=1"),
}  # fmt: skip
IMAGES = ("data.scenes.images=24", "data.scenes.test_images=12")
# The same for its commands about images, which are known by their data.
CUT_IMAGES = {
    "pretrain": (
        *IMAGES, "train.max_steps=2", "train.batch_size=4", "network.width=0.0625",
        "monitor.images=8", "monitor.knn_images=8", "shortcuts.steps=2", "shortcuts.images=8",
        "shortcuts.heldout=8",
    ),
    "transfer": (
        "data.scenes.images=96", "data.scenes.test_images=12", "train.max_steps=2",
        "train.batch_size=4",
    ),
    "probe": (*IMAGES, "probe.epochs=2", "views.train=1"),
    "retrieve": (*IMAGES, "neighbours.ks=[1]"),
    "visualize": IMAGES,
}  # fmt: skip
# And for methods that have settings of their own.
CUT_METHODS = {
    "artifacts": (
        *IMAGES, "train.max_steps=8", "train.epochs=2", "train.batch_size=8",
        "autoencoder.epochs=1", "autoencoder.base=4", "autoencoder.max_error=100",
        "network.width=0.0625", "monitor.images=8", "monitor.knn_images=8",
    ),
    "dfgan": ("train.max_steps=4",),
}  # fmt: skip
ABSENT = ("--data kinetics", "--dataset ucf101")


def commands(path: Path) -> list[str]:
    """The `selfsup` lines of the `sh` blocks, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("selfsup ")]


def make_clips(folder: Path) -> None:
    """A user's folder of clips: twelve short ones, one of them broken."""
    folder.mkdir()
    for number in range(12):
        source = MotionSource(Motion(videos=12, test_videos=8, side=64, length=48), "train", False)
        frames = source.read(number, np.arange(48), None).permute(1, 2, 3, 0).numpy()
        with av.open(str(folder / f"clip{number:02d}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 64
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    (folder / "broken.mp4").write_bytes(b"not a video")


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    make_clips(tmp_path / "clips")
    typed = commands(ROOT / "README.md")
    assert len(typed) >= 12
    environment = {**os.environ, "SELFSUP_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    for line in typed:
        verb, *arguments = shlex.split(line)[1:]
        if any(part in line for part in ABSENT):
            cut: tuple[str, ...] = ()
        elif "guided-backprop" in arguments or {"--arch", "--dry-run"} <= set(arguments):
            cut = SMALL
        elif verb == "pretrain" and arguments[0] in CUT_METHODS:
            cut = CUT_METHODS[arguments[0]]
        else:
            cut = (CUT_IMAGES if "scenes" in arguments else CUT).get(verb, ())
        if "clips.h5" in arguments and verb == "pretrain":
            cut = (*CUT["pretrain"], "data.max_bad=0.2")
        sets = [part for setting in cut for part in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "-m", "selfsup_cli", verb, *arguments, *sets],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if any(part in line for part in ABSENT):
            assert done.returncode == 2, line
            assert "SELFSUP_DATA" in done.stderr, line
        else:
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "pretext.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "mine.yaml").is_file()
    assert (tmp_path / "guided-backprop.png").is_file()
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 14
    assert len(list((tmp_path / "labelled").glob("*.png"))) == 12


def test_links_and_pictures_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("command", ["selfsup pretrain temporal --data motion --run demo"])
def test_the_demo_types_what_the_readme_says(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"$(BIN)/{command}\n" in makefile
