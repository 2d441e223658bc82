"""Weights on disk: safetensors beside a JSON sidecar.

The sidecar `NAME.safetensors.json` says how to rebuild the network and what it was trained on.
Nothing that comes from a file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import safetensors
import safetensors.torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from selfsup_cli.config.fields import Model
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.models.backbone import Backbone, Spec, problems_in
from selfsup_cli.models.building import construct
from selfsup_cli.runs.atomic import write_bytes, write_json
from selfsup_cli.runs.seal import opened, sealed

_FORMAT: Literal["selfsup.backbone/1"] = "selfsup.backbone/1"
_PICKLE_NAMES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Weights(Model):
    """The file that a sidecar belongs to."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int


class Described(Model):
    """What stands beside weights, whatever the network; `wanted` is what such a file is called."""

    wanted: ClassVar[str] = "backbone.safetensors"

    trained_on: dict[str, Any]
    weights: Weights
    check: str | None = None


class Sidecar(Described):
    """What stands beside the weights of a backbone, with or without more."""

    spec: Spec


S = TypeVar("S", bound=Described)


class _Backbone(Sidecar):
    format: Literal["selfsup.backbone/1"]
    layers: list[str]
    embedding: str
    out_features: int
    input: dict[str, Any]


def sidecar_path(path: Path | str) -> Path:
    """Where the JSON that belongs to the weights `path` lies."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def save_backbone(path: Path | str, backbone: Backbone, trained_on: dict[str, Any]) -> str:
    """Write the weights as safetensors, and the sidecar; gives the SHA-256 of the weights in hex.

    Both files are written atomically, the sidecar last; equal weights make equal files.
    `trained_on` is anything that JSON can hold. Raises MachineError if the disk does not take them.
    """
    facts = {
        "format": _FORMAT,
        "spec": backbone.spec,
        "layers": list(backbone.layers),
        "embedding": backbone.embedding,
        "out_features": backbone.out_features,
        "input": asdict(backbone.input),
        "trained_on": trained_on,
    }
    return write_weights(path, backbone, facts)


def write_weights(path: Path | str, network: nn.Module, facts: Mapping[str, Any]) -> str:
    """Write a network's weights, then a sidecar of `facts`; gives the SHA-256 of the weights."""
    return write_tensors(path, network.state_dict(), facts)


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write tensors, then a sidecar of `facts`; gives the SHA-256 of the tensors."""
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = safetensors.torch.save(kept, metadata={"format": "pt"})
    sha256 = write_bytes(path, data)
    weights = {"sha256": sha256, "bytes": len(data)}
    write_json(sidecar_path(path), sealed({**facts, "weights": weights}))
    return sha256


def load_backbone(path: Path | str) -> Backbone:
    """The network that `save_backbone` wrote, on the CPU, with `trained_on` filled in.

    Raises InputError, naming the file and what is wrong with it, unless the content is exactly what
    was written: not for a pickle, a foreign or damaged file, a missing sidecar, or tensors that are
    not those of the network. Raises MachineError if the file may not be read.
    """
    sidecar, tensors = read_weights(path, _Backbone)
    backbone = blank(path, sidecar)
    fill(path, backbone, tensors, backbone.arch)
    backbone.trained_on = sidecar.trained_on
    return backbone


def read_weights(path: Path | str, model: type[S]) -> tuple[S, dict[str, Tensor]]:
    """The sidecar of the weights at `path`, checked, and their tensors. Raises as above."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(9)
            _refuse_foreign(path, start, size, model.wanted)
            sidecar = _read_sidecar(path, model)
            if size != sidecar.weights.bytes:
                state = "truncated" if size < sidecar.weights.bytes else "not the file it was"
                raise _damaged(path, f"is {state}: {size:,} of {sidecar.weights.bytes:,} bytes")
            data = start + file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"there are no weights at {path}", kind="weights") from error
    except OSError as error:
        raise MachineError(
            f"cannot read {error.filename or path}: {error.strerror}", kind="read"
        ) from error
    if hashlib.sha256(data).hexdigest() != sidecar.weights.sha256:
        raise _damaged(path, "is damaged: it does not have the SHA-256 that its sidecar names")
    try:
        return sidecar, safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _damaged(path, f"is not a safetensors file ({error})") from error


def blank(path: Path | str, sidecar: Sidecar) -> Backbone:
    """The backbone that a sidecar describes, without values."""
    try:
        return construct(sidecar.spec)
    except InputError as error:
        raise InputError(f"{sidecar_path(path)}: {error}", kind="weights") from error


def fill(path: Path | str, network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Put `tensors` into a network, strictly. Raises InputError unless they are its own."""
    _require_match(Path(path), network, tensors, what)
    for backbone in [one for one in network.modules() if isinstance(one, Backbone)]:
        backbone.allocate()
    network.load_state_dict(tensors)


def _refuse_foreign(path: Path, start: bytes, size: int, wanted: str) -> None:
    if path.suffix in _PICKLE_NAMES or start.startswith(_PICKLE_STARTS):
        raise InputError(
            f"{path} is a pickle, which could run any code when opened, and is never read; "
            f"give a {wanted} that selfsup wrote",
            kind="pickle",
        )
    header = int.from_bytes(start[:8], "little")
    if not sidecar_path(path).exists() and (header > size - 8 or start[8:] != b"{"):
        raise InputError(
            f"{path} is not a safetensors file; give a {wanted} that selfsup wrote",
            kind="weights",
        )


def _read_sidecar(path: Path, model: type[S]) -> S:
    place = sidecar_path(path)
    try:
        text = place.read_bytes()
        sidecar = model.model_validate_json(text)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} lacks its sidecar {place.name}, which says how to rebuild the network; "
            "selfsup writes both, copy them together",
            kind="weights",
        ) from error
    except ValidationError as error:
        forms = [one["input"] for one in error.errors() if one["loc"] == ("format",)]
        problem = problems_in(error)
        if forms and str(forms[0]).startswith("selfsup."):
            asked = get_args(model.model_fields["format"].annotation)[0]
            problem = f"it is a {str(forms[0])[:40]}, where a {asked} is asked for"
        raise InputError(
            f"{place} does not describe a network of selfsup that fits: {problem}", kind="weights"
        ) from error
    try:
        opened(json.loads(text), required=False)
    except ValueError as error:
        raise _damaged(place, f"is damaged: {error}") from error
    return sidecar


def _require_match(
    path: Path, network: nn.Module, tensors: Mapping[str, Tensor], what: str
) -> None:
    expected = network.state_dict()
    common = [name for name in expected if name in tensors]
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape or type": [
            name
            for name in common
            if (tensors[name].shape, tensors[name].dtype)
            != (expected[name].shape, expected[name].dtype)
        ],
        "not finite": [name for name in common if not bool(tensors[name].isfinite().all())],
    }
    found = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    if found:
        raise _damaged(path, f"does not hold the weights of {what}; {'; '.join(found)}")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} {what}", kind="weights", hint="copy or export the weights again")


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
