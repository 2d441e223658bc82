"""Weights of ImageNet as torchvision and timm publish them, put into a backbone."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.libraries import LIBRARIES

# Parts of a network that a backbone leaves out: what classifies.
_CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.", "last_linear.")


def load_library_weights(path: Path, backbone: Backbone) -> None:
    """Fill a backbone from a state dict under the names of its library, its classifier left out.

    Raises InputError for a pickle, a file that is damaged, and weights of another network, naming
    what is missing or too much; MachineError if the file may not be read.
    """
    library = next((one for one in LIBRARIES.values() if one.has(backbone.arch)), None)
    if library is None:
        raise InputError(
            f"--weights: {backbone.arch} is a network of the thesis; weights of ImageNet are there "
            "for torchvision's and timm's",
            kind="weights",
        )
    given = _read(path)
    own = backbone.state_dict()
    prefix = library.prefix["image"]
    tensors: dict[str, Tensor] = {}
    extra: list[str] = []
    for name, value in given.items():
        target = next((one for one in (name, prefix + name) if one in own), None)
        if target is not None:
            tensors[target] = value.to(own[target].dtype)
        elif not name.startswith(_CLASSIFIERS):
            extra.append(name)
    missing = [name for name in own if name not in tensors and not name.endswith("_tracked")]
    other = [name for name, value in tensors.items() if value.shape != own[name].shape]
    for what, names in (("lacks", missing), ("has", extra), ("has of another shape", other)):
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
            raise InputError(
                f"--weights: {path} does not hold the weights of {backbone.arch}: it {what} "
                f"{shown}",
                kind="weights",
            )
    backbone.load_state_dict({**own, **tensors})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"--weights: there is no file {path}", kind="weights") from error
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror}", kind="read") from error
    if data.startswith((b"PK\x03\x04", b"\x80")):
        raise InputError(
            f"--weights: {path} is a pickle, which could run any code when opened, and is never "
            "read; give safetensors (timm publishes them, torchvision's are written with "
            "safetensors.torch.save_file(model.state_dict(), FILE))",
            kind="pickle",
        )
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"--weights: {path} is no safetensors file ({error})", kind="weights"
        ) from error
    return tensors
