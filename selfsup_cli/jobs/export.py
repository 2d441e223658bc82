"""`selfsup export`: the backbone of a run as a file that others read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.registry import find_arch, nearest, unknown
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.subject import Subject, load_subject
from selfsup_cli.models import Backbone, load_backbone, save_backbone, sidecar_path
from selfsup_cli.models.export import (
    COMPARED_ON,
    EMBEDDING,
    OUTPUTS,
    Form,
    as_onnx,
    as_program,
    as_state_dict,
    name_of_input,
)
from selfsup_cli.models.layers import ImageNetColours
from selfsup_cli.models.libraries import LIBRARIES
from selfsup_cli.runs import atomic
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir
from selfsup_cli.version import __version__

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

SCHEMA = "selfsup.export/1"
ONNX = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Format:
    """A form of the weights: how its files end, what makes it, and what that needs.

    `make` takes the network, its outputs and what the file says of itself, and how the file ends.
    `library` is the one of `LIBRARIES` whose networks alone it has.
    """

    suffixes: tuple[str, ...]
    make: Callable[[Backbone, Sequence[str], Mapping[str, Any], str], Form]
    library: str | None = None
    packages: tuple[str, ...] = ()

    def unfit(self, arch: str | None) -> str | None:
        """Why a network cannot be had in this form, or None."""
        if self.library is None or LIBRARIES[self.library].has(arch or ""):
            return None
        return (
            f"{self.library} has no network {arch}, only {LIBRARIES[self.library].archs}"
            f"; export it as {', '.join(EVERY[:-1])} or {EVERY[-1]}"
        )


def _of_library(name: str) -> Format:
    return Format(
        suffixes=(".safetensors", ".pth"),
        make=lambda network, _, __, suffix: as_state_dict(network, name, pickled=suffix == ".pth"),
        library=name,
    )


BACKBONE = "safetensors"
FORMATS: dict[str, Format] = {
    **{name: _of_library(name) for name in LIBRARIES},
    "onnx": Format(
        suffixes=(".onnx",),
        make=lambda network, outputs, about, _: as_onnx(network, outputs, about),
        packages=ONNX,
    ),
    "program": Format(
        suffixes=(".pt2",),
        make=lambda network, outputs, about, _: as_program(network, outputs, about),
    ),
}
EVERY = (BACKBONE, *(name for name, one in FORMATS.items() if one.library is None))
"""The forms that every network has."""


def export(
    form: str,
    reference: str = "latest",
    *,
    out: Path | None = None,
    outputs: Sequence[str] = (),
    force: bool = False,
) -> Outcome:
    """Write the backbone that `reference` names as `form`, with a JSON sidecar; see `FORMATS`.

    `outputs` are layers, `embedding` (the default) or `forward`, for the forms that are graphs.
    What a library makes of the file is compared with the network first, and the largest difference
    stated. `out` is by default a name made of the run's in this folder; with `force` it may exist.
    Raises InputError and MachineError.
    """
    if form == BACKBONE:
        return _backbone(reference, out, force)
    if form not in FORMATS:
        raise unknown("format", form, (BACKBONE, *FORMATS))
    chosen = FORMATS[form]
    require(chosen.packages, form)
    if out is not None:
        check_target(out, chosen.suffixes, force)
    subject = load(reference, chosen.unfit)
    network = subject.learned.eval()
    if chosen.library is not None and network.spec.get("absorbed"):
        raise InputError(
            f"{subject.run} has no batch norm any more (absorb_bn), and {form}'s {network.arch} "
            f"has: export it as {', '.join(EVERY[:-1])} or {EVERY[-1]}",
            kind="format",
        )
    names = _checked(network, outputs)
    # A library's state dict beside our own weights of the same ending.
    marked = f".{form}" if chosen.library else ""
    path = out or Path(f"{subject.run}{marked}{chosen.suffixes[0]}")
    if out is None:
        check_target(path, chosen.suffixes, force)
    about = describe(subject, library=chosen.library is not None)
    try:
        made = chosen.make(network, names, about, path.suffix.lower())
    except MachineError as error:
        if chosen.library is None or error.kind != "parity" or not network.spec.get("signed"):
            raise
        raise InputError(
            f"the last block of {subject.run} ends without its ReLU (network.final_relu), and that "
            f"of {form}'s {network.arch} with it, which gives other features: export it as "
            f"{', '.join(EVERY[:-1])} or {EVERY[-1]}",
            kind="format",
        ) from error
    digest = atomic.write_bytes(path, made.data)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "format": form,
        "file": {"name": path.name, "sha256": digest, "bytes": len(made.data)},
        **about,
        "outputs": {name: ["batch", *one.shape] for name, one in made.outputs.items()},
        "compared": {
            "with": made.reader,
            "on": list(COMPARED_ON[network.input.kind]),
            "outputs": {
                name: {"largest_difference": one.difference, "largest_value": one.largest}
                for name, one in made.outputs.items()
            },
        },
    }
    if chosen.library is not None:
        document["loads_into"] = LIBRARIES[chosen.library].code(network)
    atomic.write_json(sidecar_path(path), document)
    data = {**document, "path": str(path), "sidecar": str(sidecar_path(path))}
    return Outcome(text=_told(subject, made, document, path), data=data)


def _backbone(reference: str, out: Path | None, force: bool) -> Outcome:
    """The weights as a run has them, with the sidecar from which the network is rebuilt."""
    suffixes = (".safetensors",)
    if out is not None:
        check_target(out, suffixes, force)
    subject = load(reference, lambda arch: None)
    path = out or Path(f"{subject.run}.safetensors")
    if out is None:
        check_target(path, suffixes, force)
    network = subject.learned
    digest = save_backbone(path, network, network.trained_on)
    load_backbone(path)
    document = {
        "schema": SCHEMA,
        "format": BACKBONE,
        "file": {"name": path.name, "sha256": digest, "bytes": path.stat().st_size},
        **describe(subject),
        "path": str(path),
        "sidecar": str(sidecar_path(path)),
    }
    lines = [
        *source_lines(subject),
        "checked   read back: the same values in every bit",
        f"sidecar   {sidecar_path(path)}, keep it beside the weights",
        str(path),
    ]
    return Outcome(text="\n".join(lines), data=document)


def load(
    reference: str, unfit: Callable[[str | None], str | None], kind: Kind | None = None
) -> Subject:
    """What `--from` names, its network on the CPU; `unfit` says why one of its arch is of no use.

    With `kind`, only a network that takes images, or videos. Raises InputError if there is none
    that fits, if it is unfinished, or its weights are damaged.
    """

    def needs(summary: RunSummary) -> str | None:
        if summary.backbone is None:
            return "it has no backbone to export"
        arch = find_arch(summary.arch or "")
        if arch is None:
            return f"its network {summary.arch} is not known here"
        if kind is not None and arch.kind != kind:
            return f"its network {summary.arch} takes {arch.kind}s, not {kind}s"
        return unfit(summary.arch)

    if reference == "latest":
        reference = str(find_run(reference, runs_dir(), needs=needs).path)
    subject = load_subject(Settings(run=reference, baseline="none"), kind)
    if reason := unfit(subject.learned.arch):
        raise InputError(f"{subject.run}: {reason}", kind="format-unfit")
    return subject


def require(packages: Sequence[str], form: str) -> None:
    """Raise MachineError unless all `packages`, which belong to an extra, can be imported."""
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise MachineError(
                f"{form} needs the Python package '{name}', which cannot be imported here "
                f"({error})",
                kind="missing-package",
                hint=f"pip install {' '.join(packages)}",
            ) from error


def check_target(path: Path, suffixes: Sequence[str], force: bool) -> None:
    """Refuse a place for a file (and its sidecar) before any work is done for it.

    Raises InputError for another ending than `suffixes`, a missing folder, a folder, a place inside
    a run, and without `force` for what exists; MachineError for a folder that takes no files.
    """
    shown = f"--out {path}"
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"{shown}: give it a name that ends in {' or '.join(suffixes)}", kind="usage"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{shown}: there is no folder {folder}", kind="path")
    if path.is_dir():
        raise InputError(f"{shown} is a folder; name a file in it", kind="path")
    for place in (folder, *folder.parents):
        if (place / "run.json").is_file():
            raise InputError(
                f"{shown} lies in the run {place.name}, which keeps what it has; write elsewhere",
                kind="path",
            )
    for one in (path, sidecar_path(path)):
        if os.path.lexists(one) and not force:
            raise InputError(
                f"{one} exists already; --force replaces it, --out FILE writes elsewhere",
                kind="exists",
            )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise atomic.cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def _checked(network: Backbone, outputs: Sequence[str]) -> list[str]:
    """The outputs asked for, each once."""
    known = [*OUTPUTS, *network.layers]
    for name in outputs:
        if name not in known:
            raise InputError(
                f"--layer: unknown layer '{name}'{nearest(name, known)}; {network.arch} has: "
                f"{', '.join(known)}",
                kind="unknown-layer",
            )
    return list(dict.fromkeys(outputs)) or [EMBEDDING]


def describe(subject: Subject, *, library: bool = False) -> dict[str, Any]:
    """What an exported file says of itself: whose weights these are, and what they eat; of a
    `library`'s network, which normalises no colours by itself, also where ours does."""
    network = subject.learned
    spec = network.input
    colours: dict[str, Any] = {"values": "RGB in [-1, 1]: (uint8 / 255 - mean) / std"}
    if library and network.colours is not None:
        colours = {
            "values": "RGB: (uint8 / 255 - mean) / std",
            "mean": ImageNetColours.MEAN,
            "std": ImageNetColours.STD,
        }
    return {
        "from": {"run": subject.run, "weights_sha256": subject.weights},
        "network": network.spec,
        "trained_on": network.trained_on,
        "input": {
            "name": name_of_input(network),
            "shape": ["batch", *spec.shape],
            "type": "float32",
            **asdict(spec),
            **colours,
        },
        "versions": {"selfsup": __version__, "torch": torch.__version__},
    }


def source_lines(subject: Subject) -> list[str]:
    """Where the weights come from and what they eat, in two lines."""
    network, spec = subject.learned, subject.learned.input
    shape = ", ".join(str(size) for size in ("batch", *spec.shape))
    return [
        f"from      {subject.run}: {network.arch}, weights {subject.weights[:16]}",
        f"input     float32 [{shape}], RGB in [-1, 1]: "
        f"(uint8 / 255 - {spec.mean[0]:g}) / {spec.std[0]:g}; {spec.pixels} pixels",
    ]


def _told(subject: Subject, made: Form, document: Mapping[str, Any], path: Path) -> str:
    lines = source_lines(subject)
    eaten = document["input"]
    if tuple(eaten["mean"]) != subject.learned.input.mean:
        lines.append(
            f"colours   (uint8 / 255 - {eaten['mean']}) / {eaten['std']} instead of [-1, 1]"
        )
    if code := document.get("loads_into"):
        lines.append(f"loads     into {code}, strict=True")
    for name, one in made.outputs.items():
        shape = ", ".join(["batch", *map(str, one.shape)])
        lines.append(
            f"output    {name} [{shape}]: differs by at most {one.difference:.1e} where values "
            f"reach {one.largest:.2g}"
        )
    compared = ", ".join(COMPARED_ON[subject.learned.input.kind])
    lines.append(f"checked   with {made.reader}, on {compared}")
    lines += [f"sidecar   {sidecar_path(path)}", str(path)]
    return "\n".join(lines)
