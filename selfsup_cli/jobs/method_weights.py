"""What a method learned besides its backbone: classifier, inpainter, discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.presets import resolve
from selfsup_cli.engine.trainable import unwrapped_state
from selfsup_cli.errors import InputError
from selfsup_cli.methods import create
from selfsup_cli.methods.image_pretext import ImagePretext
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.methods.pretext import VideoPretext
from selfsup_cli.models import load_backbone
from selfsup_cli.models.weights import Sidecar, fill, read_weights, write_tensors
from selfsup_cli.runs.run import Run

FILE = "method.safetensors"
_BACKBONE = "recogniser.backbone."


class _Method(Sidecar):
    format: Literal["selfsup.method/1"]
    method: str


def save_method(run: Run, method: VideoPretext | ImagePretext | Multiview) -> None:
    """Write all weights but the backbone's, so that the task can be looked at afterwards."""
    state = unwrapped_state(method)
    kept = {name: value for name, value in state.items() if not name.startswith(_BACKBONE)}
    facts = {
        "format": "selfsup.method/1",
        "method": method.preset.name,
        "spec": method.backbone.spec,
        "trained_on": {"run": run.name},
    }
    write_tensors(run.path / FILE, kept, facts)


def read_method(path: Path) -> dict[str, Tensor]:
    """The tensors that `save_method` wrote. Raises InputError for files that are damaged or hold
    something else."""
    return read_weights(path, _Method)[1]


def load_method(run: Run) -> ImagePretext:
    """The method of a finished pretraining on images, as it was at its end, in evaluation mode.

    Raises InputError for a run of another kind, and for files that are not there or are damaged.
    """
    if not run.info.job.startswith("pretrain/"):
        raise InputError(f"{run.name} is no pretraining but {run.info.job}", kind="run-unfit")
    preset = resolve(run.info.job, preset=str(run.path / "preset.yaml"), env={}).preset
    if not isinstance(preset, PretrainImages):
        raise InputError(f"{run.name} learned from videos, not from images", kind="run-unfit")
    method = create(preset)
    path = run.path / FILE
    backbone = load_backbone(run.path / "backbone.safetensors")
    tensors = read_method(path)
    own = {f"{_BACKBONE}{name}": value for name, value in backbone.state_dict().items()}
    fill(path, method, own | tensors, "the method")
    method.eval()
    return method
