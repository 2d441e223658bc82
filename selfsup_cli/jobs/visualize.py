"""`selfsup visualize`: pictures of what goes on inside."""

from __future__ import annotations

from pathlib import Path

from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.temporal import PretrainTemporal
from selfsup_cli.data.loader import ClipDataset
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.methods.temporal import NO_SPEED, Plan
from selfsup_cli.randomness import derive, generator
from selfsup_cli.transforms import clips as pixels
from selfsup_cli.visualization import sheets


def pretext(resolved: Resolved, *, out: Path | None, count: int, quiet: bool = False) -> Outcome:
    """Draw `count` videos as the network is fed them, transformed and augmented, into `out`."""
    preset = resolved.preset
    assert isinstance(preset, PretrainTemporal)  # noqa: S101 (the only method so far)
    path = out or Path("pretext.png")
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {path}: the picture is a PNG; give it a name that ends in .png")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.absolute().parent}")
    with Progress(quiet=quiet) as progress:
        videos = common.open_videos(
            preset.data,
            "train",
            labels=False,
            machine=preset.machine,
            progress=progress,
            min_frames=preset.time.min_frames,
        )
    pretext_sheet(preset, videos.source, path, count)
    return Outcome(text=str(path), data={"picture": str(path)})


def pretext_sheet(preset: PretrainTemporal, source: ClipSource, path: Path, count: int) -> None:
    """Draw the clips of `count` videos: one row for each clip, its frames numbered."""
    seed = preset.train.seed
    kinds = preset.time.kinds
    plan = Plan(preset.time)
    dataset = ClipDataset(source, plan, preset.augment.resize, seed)
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "sheet"))
    shown = []
    for number in order[:count]:
        sample = dataset[0, number]
        fed = pixels.augment(
            sample["clip"], preset.augment, generator(seed, number, "sheet"), group=len(kinds)
        )
        video = int(sample["index"])
        drawn = plan(int(source.num_frames[video]), dataset.randomness(0, video))
        clips = []
        for kind, clip, frames, speed in zip(
            kinds, fed, drawn.frames, drawn.labels["speed"], strict=True
        ):
            note = "" if speed == NO_SPEED else f"×{2**speed}"
            clips.append(sheets.Clip(clip, frames.tolist(), kind, note))
        shown.append(sheets.Source(source.ids[video], clips))
    sheets.contact_sheet(
        path,
        shown,
        title=f"What {preset.method} is fed: {source.name}",
        note=f"videos chosen by seed {seed}; cropped to {preset.augment.crop} pixels, "
        f"flip {'on' if preset.augment.flip else 'off'}, colour {preset.augment.color}",
    )
