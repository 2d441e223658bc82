"""`selfsup visualize` of images: what a network is fed, and what data looks like on average."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from selfsup_cli.config.blocks import Machine
from selfsup_cli.config.image_pictures import MeanImage
from selfsup_cli.config.image_pretrain import ImageFraming, PretrainImages
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import TRANSFORMS
from selfsup_cli.data.framing import Crop
from selfsup_cli.data.loader import killed_worker, quiet_worker
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import open_images
from selfsup_cli.methods import create, uses_labels
from selfsup_cli.methods.image_pretext import ImagePretext
from selfsup_cli.randomness import derive, generator
from selfsup_cli.visualization import mean_image, pretext_images

log = logging.getLogger("selfsup")

_TOGETHER = 8
"""Images that are transformed together: the inpainter normalises by the batch that it sees."""


def pretext(resolved: Resolved, *, out: Path | None, count: int, quiet: bool = False) -> Outcome:
    """Draw `count` images as the network is fed them at first, transformed in all ways."""
    preset = resolved.preset
    assert isinstance(preset, PretrainImages)  # noqa: S101 (the caller has looked)
    if not isinstance(preset.framing, ImageFraming):
        raise InputError(
            f"what {preset.name} makes of images says nothing before it is trained; draw what a "
            f"finished run does: selfsup sample {preset.name}",
            kind="preset",
        )
    path = checked(out or Path("pretext.png"))
    with Progress(quiet=quiet) as progress:
        labels = uses_labels(preset)
        images = open_images(
            preset.data, "train", labels=labels, machine=preset.machine, progress=progress
        )
    method = create(preset, images.source.classes)
    untrained = "The inpainter has not learned anything yet (see selfsup sample)."
    inpaints = any(TRANSFORMS[kind].inpaints for kind in method.kinds)
    pretext_sheet(method, images.source, path, count, note=untrained if inpaints else "")
    return Outcome(text=str(path), data={"picture": str(path)})


def pretext_sheet(
    method: ImagePretext, source: ImageSource, path: Path, count: int, *, note: str = ""
) -> None:
    """Draw `count` images as the network is fed them: a row for each, a column for each kind."""
    preset = method.preset
    seed = preset.train.seed
    names, canvases = some_canvases(method, source, max(count, _TOGETHER), seed)
    device = next(method.parameters()).device
    with torch.no_grad():
        g = generator(seed, "sheet", device=str(device))
        examples = method.examples(canvases.to(device), g)
    crops = torch.stack(examples.crops.float().cpu().chunk(len(method.kinds)))
    shown = [
        pretext_images.Fed(name, examples.canvases[i].float().cpu(), crops[:, i])
        for i, name in enumerate(names[:count])
    ]
    framing = preset.framing
    assert isinstance(framing, ImageFraming)  # noqa: S101 (no other method has such a sheet)
    pretext_images.contact_sheet(
        path,
        shown,
        list(method.kinds),
        title=f"What {preset.name} is fed: {source.name}",
        note=f"Images chosen by seed {seed}; of {framing.canvas} pixels that are cut out the "
        f"network sees {framing.crop}, {framing.rotate_share:.0%} of them turned by up to "
        f"{framing.rotate_angle:g} degrees; mirror images {'on' if framing.flip else 'off'}. "
        f"{note}".rstrip(),
    )


def some_canvases(
    method: ImagePretext, source: ImageSource, count: int, seed: int
) -> tuple[list[str], torch.Tensor]:
    """Names of up to `count` images, chosen by `seed`, and what is cut out of them: uint8
    `[n, 3, S, S]`. Those that cannot be read are passed over; InputError where none can."""
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "sheet"))
    names: list[str] = []
    found: list[torch.Tensor] = []
    for index in order:
        if len(found) == count:
            break
        g = generator(seed, source.ids[index], "sheet framing")
        try:
            found.append(source.read(index, lambda h, w, g=g: method.plan(h, w, g)))  # type: ignore[misc]
        except BadMediaError:
            continue
        names.append(source.ids[index])
    if not found:
        raise InputError(f"no image of {source.name} could be read", kind="bad-media")
    return names, torch.stack(found)


def average(resolved: Resolved, *, out: Path | None, quiet: bool = False) -> Outcome:
    """Draw the mean image of a data set, its spread, and patches of it in all turns, into `out`.

    Raises InputError where fewer than two images can be read.
    """
    preset = resolved.preset
    assert isinstance(preset, MeanImage)  # noqa: S101 (command and preset belong together)
    path = checked(out or Path("mean-image.png"))
    settings = preset.mean
    with Progress(quiet=quiet) as progress:
        machine = Machine(device=preset.machine.device, workers=preset.machine.workers)
        source = open_images(
            preset.data, "train", labels=False, machine=machine, progress=progress
        ).source
        order = sorted(
            range(len(source)), key=lambda i: derive(settings.seed, source.ids[i], "mean")
        )
        moments = _moments(
            source,
            order[: settings.images],
            settings.side,
            loader_workers(preset.machine.workers),
            progress,
        )
    found = mean_image.Average(*moments)
    mean_image.sheet(
        path,
        found,
        patch=min(settings.patch, settings.side // 4),
        title=f"The mean of {source.name}",
        note=f"{found.count} images of the training part, the central square of each.",
    )
    text = (
        f"{path}\ncontrast of the mean image: {found.contrast:.1f} grey levels, spread of the "
        f"images around it: {found.spread:.1f}\nturned by a quarter it differs from itself by "
        f"{found.turned(1):.1f}, by a half by {found.turned(2):.1f}"
    )
    facts = {
        "picture": str(path),
        "images": found.count,
        "contrast": found.contrast,
        "spread": found.spread,
        "turned": [found.turned(quarters) for quarters in (1, 2, 3)],
    }
    return Outcome(text=text, data=facts)


def _moments(
    source: ImageSource, indices: list[int], side: int, workers: int, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean and standard deviation float64 `[3, side, side]` of images, 0 … 255, and how many."""
    frame = Crop((side, side), side)
    files: DataLoader[torch.Tensor | str] = DataLoader(
        _Squares(source, indices, frame),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=quiet_worker if workers else None,
        generator=torch.Generator().manual_seed(0),
    )
    total = torch.zeros(3, side, side, dtype=torch.float64)
    squares = torch.zeros_like(total)
    counter = progress.counting("images averaged")
    count = 0
    try:
        for number, image in enumerate(files):
            counter(number + 1, len(indices))
            if isinstance(image, str):
                name = source.ids[indices[number]]
                log.warning("%s cannot be read and is left out: %s", name, image)
                continue
            count += 1
            total += image
            squares += image.double().square()
    except RuntimeError as error:
        if (cause := killed_worker(error)) is not None:
            raise cause from error
        raise
    if count < 2:
        raise InputError(
            f"{source.name}: a mean takes two images or more; {count} of {len(indices)} could be "
            "read",
            kind="bad-media",
        )
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt(), count


class _Squares(Dataset["torch.Tensor | str"]):
    """The central square of each image, or why it cannot be read."""

    def __init__(self, source: ImageSource, indices: list[int], frame: Crop) -> None:
        self.source = source
        self.indices = indices
        self.frame = frame

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> torch.Tensor | str:
        g = torch.Generator()
        try:
            return self.source.read(self.indices[position], lambda h, w: self.frame(h, w, g))
        except BadMediaError as error:
            return error.reason


def checked(path: Path) -> Path:
    """The file that a picture is written into. Raises InputError where that cannot be one."""
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {path}: the picture is a PNG; give it a name that ends in .png")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.absolute().parent}")
    return path
