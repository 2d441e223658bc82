"""What `pretrain artifacts` does that no other pretraining does: whose autoencoder, which sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.artifact_pictures import training_sheet
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.method_weights import FILE, read_method
from selfsup_cli.jobs.pretraining_pretext import ImageWork
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.models.weights import fill
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir

_SHOWN = 6
_PREFIX = "autoencoder."


@dataclass(frozen=True)
class _Found:
    """Weights that `--autoencoder` named, and the run they are from."""

    path: Path
    origin: str


class ArtifactWork(ImageWork):
    """Pretraining of chapter 3."""

    method: Artifacts
    preset: PretrainArtifacts

    def begin(self, run: str | None) -> list[dict[str, Any]]:
        self._found = _find(self.preset.autoencoder.source, run)
        if self._found is None:
            return []
        digest = file_sha256(self._found.path)
        return [{"run": self._found.origin, "part": "autoencoder", "sha256": digest}]

    def create(self, part: Images) -> Artifacts:
        method = super().create(part)
        assert isinstance(method, Artifacts)  # noqa: S101 (what the preset names)
        if self._found is not None:
            _take_over(method, self._found)
        return method

    def pictures(self, part: Images, run: Run) -> list[Picture]:
        training_sheet(self.method, part.source, run.picture("pretext.png"), _SHOWN)
        caption = (
            "Images, what is dropped of their codes, what the decoder makes of the rest without "
            "and with repair, and where the discriminator suspects damage."
        )
        return [Picture(file="pictures/pretext.png", caption=caption)]


def _find(source: str | None, name: str | None) -> _Found | None:
    """Where the autoencoder lies that `source` names; for a run `name` that goes on, what it began
    with, though a newer one may be there now."""
    if source is None:
        return None
    if is_weights(Path(source)):
        return _Found(Path(source), Path(source).stem)
    if source == "latest" and name is not None and (runs_dir() / name / "run.json").is_file():
        parents = Run.open(runs_dir() / name).info.parents
        source = str(parents[0]["run"]) if parents else source
    run = find_run(source, runs_dir(), needs=_unfit)
    return _Found(run.path / FILE, run.name)


def _unfit(summary: RunSummary) -> str | None:
    if summary.job != "pretrain/artifacts":
        return "it is no run of pretrain artifacts, and has no autoencoder"
    return None if (summary.path / FILE).is_file() else f"it has no {FILE}"


def _take_over(method: Artifacts, found: _Found) -> None:
    """Give the method an autoencoder. Raises InputError for one of another shape."""
    tensors = {
        name.removeprefix(_PREFIX): value
        for name, value in read_method(found.path).items()
        if name.startswith(_PREFIX)
    }
    shape = _shape(tensors)
    if shape is None:
        raise InputError(f"--autoencoder: {found.path} holds no autoencoder", kind="weights")
    settings = method.preset.autoencoder
    if shape != (settings.base, settings.kernel):
        base, kernel = shape
        raise InputError(
            f"--autoencoder: that of {found.origin} has {base} channels in its first layer and "
            f"kernels of {kernel}, not {settings.base} and {settings.kernel} as this preset asks "
            f"for; use --set autoencoder.base={base} --set autoencoder.kernel={kernel}",
            kind="autoencoder",
        )
    # What freezes it comes with the first step, when it has been looked at.
    tensors.pop("_extra_state", None)
    network = method.replicator
    own = {"_extra_state": network.get_extra_state()}
    fill(found.path, network, tensors | own, "the autoencoder")


def _shape(tensors: dict[str, Tensor]) -> tuple[int, int] | None:
    """Channels of the first layer, and the side of the kernels at stride 2."""
    first = tensors.get("encoder.layers.0.0.weight")
    second = tensors.get("encoder.layers.1.0.weight")
    if first is None or second is None or second.ndim != 4:
        return None
    return int(first.shape[0]), int(second.shape[-1])
