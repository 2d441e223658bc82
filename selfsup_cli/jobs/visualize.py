"""`selfsup visualize`: pictures of what goes on inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import ClipDataset
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common, visualize_images
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.methods import create, uses_labels
from selfsup_cli.methods.pretext import UNASKED, VideoPretext
from selfsup_cli.randomness import derive, generator
from selfsup_cli.visualization import sheets


def pretext(resolved: Resolved, *, out: Path | None, count: int, quiet: bool = False) -> Outcome:
    """Draw `count` videos or images as the network is fed them, transformed and augmented, into
    `out`."""
    preset = resolved.preset
    if isinstance(preset, PretrainImages):
        return visualize_images.pretext(resolved, out=out, count=count, quiet=quiet)
    if isinstance(preset, PretrainMultiview):
        from selfsup_cli.jobs.visualize_views import pretext as of_views

        return of_views(preset, out=out, count=count, quiet=quiet)
    if not isinstance(preset, PretrainVideo):
        raise InputError(
            f"{resolved.job.rpartition('/')[2]} is trained on images as they are: there is no "
            "transformation to look at; 'selfsup data check' shows images",
            kind="usage",
        )
    path = visualize_images.checked(out or Path("pretext.png"))
    with Progress(quiet=quiet) as progress:
        videos = common.open_videos(
            preset.data,
            "train",
            labels=uses_labels(preset),
            machine=preset.machine,
            progress=progress,
            min_frames=preset.min_frames,
        )
    method = create(preset, videos.source.classes)
    pretext_sheet(method, videos.source, path, count)
    return Outcome(text=str(path), data={"picture": str(path)})


def pretext_sheet(method: VideoPretext, source: ClipSource, path: Path, count: int) -> None:
    """Draw the clips of `count` videos: one row for each clip, its frames numbered."""
    preset = method.preset
    seed = preset.train.seed
    dataset = ClipDataset(source, method.plan, preset.augment.resize, seed)
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "sheet"))
    shown = []
    for number in order[:count]:
        sample = dataset[0, number]
        fed = method.feed(sample, generator(seed, number, "sheet"))
        video = int(sample["index"])
        drawn = method.plan(int(source.num_frames[video]), dataset.randomness(0, video))
        clips = [
            sheets.Clip(clip, drawn.frames[k].tolist(), kind, _answers(method, sample, k))
            for k, (kind, clip) in enumerate(zip(method.kinds, fed, strict=True))
        ]
        shown.append(sheets.Source(source.ids[video], clips))
    sheets.contact_sheet(
        path,
        shown,
        title=f"What {preset.name} is fed: {source.name}",
        note=f"videos chosen by seed {seed}; cropped to {preset.augment.crop} pixels, "
        f"flip {'on' if preset.augment.flip else 'off'}, colour {preset.augment.color}",
    )


def _answers(method: VideoPretext, sample: dict[str, Any], clip: int) -> str:
    """The right answers about a clip, but for what its row is called anyway."""
    said = []
    for name, answers in method.questions.items():
        label = int(sample[name][clip])
        if label != UNASKED and answers[label] != method.kinds[clip]:
            said.append(answers[label])
    return ", ".join(said)
