"""`selfsup visualize guided-backprop`: what makes networks active, side by side (figure 5.4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfsup_cli.config.blocks import Machine
from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.pictures import Compared, GuidedBackprop, Units
from selfsup_cli.config.presets import Resolved
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.retrieval import pick_queries
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.subject import RANDOM, load_subject
from selfsup_cli.models import Backbone, InputSpec, build
from selfsup_cli.randomness import derive
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir
from selfsup_cli.transforms.clips import center
from selfsup_cli.transforms.time import evenly_spaced_clips
from selfsup_cli.visualization import strips
from selfsup_cli.visualization.guided import active_pixels, guided_gradient

log = logging.getLogger("selfsup")

BOTH = (Path("guided-backprop.png"), Path("guided-backprop.webp"))
"""What is written, in the current folder, if no file is named."""
_STILL, _MOVING = ".png", (".webp", ".gif")


def guided_backprop(
    resolved: Resolved, *, out: Sequence[Path] = (), quiet: bool = False
) -> Outcome:
    """Draw the guided gradients of networks on videos of the test part into each file of `out`.

    A `.png` is a strip of frames, a `.webp` or `.gif` an animation. A video that cannot be read is
    told of, and the next in the seeded order takes its place. Raises InputError.
    """
    preset = resolved.preset
    assert isinstance(preset, GuidedBackprop)  # noqa: S101 (command and preset belong together)
    paths = [_checked(path) for path in out or BOTH]
    networks = load_networks(preset.subjects)
    for network in networks:
        network.require_layer(preset.units.layer)
    hardware = choose(preset.machine.device)
    for network in networks:
        network.backbone.to(hardware.device)
    with Progress(quiet=quiet) as progress:
        source = _open_test(preset, progress)
        videos = _look(preset, networks, source, hardware.device, progress)
    title = f"Guided backpropagation: {source.name}"
    subtitle = f"the pixels that make {_units(preset.units, networks)} active"
    note = (
        "Absolute value of the guided gradient less the median of its frame; the largest of the "
        "three colours; each row on a scale of its own. Videos of the test part, chosen by seed "
        f"{preset.clips.seed}."
    )
    for path in paths:
        if path.suffix.lower() == _STILL:
            columns = preset.clips.columns
            strips.strip(path, videos, title=title, subtitle=subtitle, note=note, columns=columns)
        else:
            strips.animation(path, videos, title=title, subtitle=subtitle, note=note)
    return Outcome(
        text="\n".join(map(str, paths)),
        data={
            "pictures": [str(path) for path in paths],
            "networks": [{"name": one.name, "arch": one.backbone.arch} for one in networks],
            "videos": [video.name for video in videos],
        },
    )


@dataclass(frozen=True)
class Network:
    """A network that is looked at: the name of its run, a detail, and what it is fed."""

    name: str
    note: str
    backbone: Backbone

    @property
    def input(self) -> InputSpec:
        return self.backbone.input

    def require_layer(self, layer: str | None) -> None:
        """Raise InputError unless the network has that layer."""
        if layer is not None and layer not in self.backbone.layers:
            raise InputError(
                f"--layer {layer}: {self.name} is a {self.backbone.arch}, whose layers are "
                f"{', '.join(self.backbone.layers)}",
                kind="unknown-layer",
            )


def load_networks(compared: Compared) -> list[Network]:
    """The networks that are compared, in the order in which they were named. Raises InputError."""
    found: dict[str, Network] = {}
    for reference in compared.runs:
        if reference not in ("random", *found):
            found[reference] = _load(reference)
    first = next(iter(found.values())).backbone
    if "random" in compared.runs:
        seed = derive(compared.random_seed, "random weights")
        found["random"] = Network(RANDOM, first.arch, build(**first.spec, seed=seed))
    return [found[reference] for reference in dict.fromkeys(compared.runs)]


def _load(reference: str) -> Network:
    if reference == "supervised":
        try:
            reference = str(find_run("latest", runs_dir(), needs=_not_supervised).path)
        except InputError as error:
            raise InputError(
                f"--from supervised: {error}",
                kind=error.kind,
                hint="make one: selfsup pretrain supervised --data …",
            ) from error
    subject = load_subject(Settings(run=reference, baseline="none"), "video")
    backbone = subject.learned
    method = backbone.trained_on.get("method")
    note = ", ".join([*([method] if isinstance(method, str) else []), backbone.arch])
    return Network(subject.run, note, backbone)


def _not_supervised(summary: RunSummary) -> str | None:
    if summary.job != "pretrain/supervised":
        return "it did not learn from action labels"
    return None if summary.backbone else "it has no backbone to look at"


def _open_test(preset: GuidedBackprop, progress: Progress) -> ClipSource:
    """The test part, with labels if the data has any."""
    machine = Machine(device=preset.machine.device, workers=preset.machine.workers)

    def opened(labels: bool) -> ClipSource:
        return common.open_videos(
            preset.data, "test", labels=labels, machine=machine, progress=progress
        ).source

    try:
        return opened(True)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
    return opened(False)


def _look(
    preset: GuidedBackprop,
    networks: Sequence[Network],
    source: ClipSource,
    device: torch.device,
    progress: Progress,
) -> list[strips.Video]:
    """What each network looks at in the first videos of the seeded order that can be read."""
    wanted = min(preset.clips.count, len(source))
    counter = progress.counting("videos")
    videos: list[strips.Video] = []
    for video in pick_queries(len(source), preset.clips.seed, source.ids, source.labels).tolist():
        if len(videos) == wanted:
            break
        try:
            videos.append(_look_at(preset, networks, source, video, device))
        except BadMediaError as error:
            log.warning("%s cannot be read and is left out: %s", source.ids[video], error.reason)
        counter(len(videos), wanted)
    if not videos:
        raise InputError(
            f"{source.name}: none of the {len(source)} videos of the test part can be read",
            kind="bad-media",
        )
    return videos


def _look_at(
    preset: GuidedBackprop,
    networks: Sequence[Network],
    source: ClipSource,
    video: int,
    device: torch.device,
) -> strips.Video:
    """The clip in the middle of a video, once for each kind of input that networks have."""
    seen = []
    for spec in dict.fromkeys(network.input for network in networks):
        n = int(source.num_frames[video])
        frames = evenly_spaced_clips(n, spec.frames, preset.clips.max_skip, 1)[0]
        clip = center(source.read(video, frames, spec.resize)[None].to(device), spec.crop)
        looks = [
            strips.Look(network.name, network.note, _active(network.backbone, clip, preset.units))
            for network in networks
            if network.input == spec
        ]
        seen.append(strips.Seen(clip[0].cpu(), frames.tolist(), looks))
    label = None
    if source.labels is not None and source.classes is not None:
        label = source.classes[int(source.labels[video])]
    return strips.Video(source.ids[video], label, seen)


def _active(backbone: Backbone, clip: Tensor, units: Units) -> Tensor:
    gradient = guided_gradient(backbone, clip, layer=units.layer, unit=units.unit)
    return active_pixels(gradient)[0].cpu()


def _units(units: Units, networks: Sequence[Network]) -> str:
    """Whose gradient is shown, in words."""
    layers = [units.layer or network.backbone.embedding for network in networks]
    layer = " or ".join(dict.fromkeys(layers))
    if units.unit == "all":
        return layer
    if units.unit == "strongest":
        return f"the strongest channel of {layer}"
    return f"channel {units.unit} of {layer}"


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in (_STILL, *_MOVING):
        raise InputError(
            f"--out {path}: the picture is a strip (.png) or an animation (.webp, .gif); give it "
            "a name that ends so"
        )
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.absolute().parent}")
    return path
