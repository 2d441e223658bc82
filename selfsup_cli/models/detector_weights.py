"""Detectors on disk: safetensors beside a sidecar, as all weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selfsup_cli.errors import InputError
from selfsup_cli.models.detector import Detector, DetectorSpec
from selfsup_cli.models.weights import (
    Sidecar,
    blank,
    fill,
    read_weights,
    sidecar_path,
    write_weights,
)
from selfsup_cli.randomness import generator

_FORMAT: Literal["selfsup.detector/1"] = "selfsup.detector/1"


class _File(Sidecar):
    format: Literal["selfsup.detector/1"]
    detector: DetectorSpec
    classes: list[str]
    images: dict[str, Any]


@dataclass(frozen=True)
class TrainedDetector:
    """A trained `Detector`: its classes, in which size it looks at images, the hash of the file."""

    network: Detector
    classes: tuple[str, ...]
    images: dict[str, Any]
    weights: str


def save_detector(
    path: Path | str,
    network: Detector,
    classes: tuple[str, ...],
    images: dict[str, Any],
    trained_on: dict[str, Any],
) -> str:
    """Write weights and sidecar atomically; gives the SHA-256 of the weights in hex."""
    facts = {
        "format": _FORMAT,
        "spec": network.backbone.spec,
        "detector": network.spec.model_dump(mode="json"),
        "classes": list(classes),
        "images": images,
        "trained_on": trained_on,
    }
    return write_weights(path, network, facts)


def is_detector(path: Path) -> bool:
    """Whether the sidecar of weights says that they are those of a `Detector`."""
    try:
        said = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("format") == _FORMAT


def load_detector(path: Path | str) -> TrainedDetector:
    """What `save_detector` wrote, on the CPU, ready to be used.

    Raises InputError, naming the file and what is wrong with it, as `load_backbone` does.
    """
    file, tensors = read_weights(path, _File)
    if file.detector.outputs != len(file.classes):
        raise InputError(
            f"{sidecar_path(path)} names {len(file.classes)} classes for {file.detector.outputs} "
            "outputs",
            kind="weights",
        )
    backbone = blank(path, file)
    network = Detector(backbone, file.detector, generator=generator(0, "to be filled"))
    fill(path, network, tensors, f"{backbone.arch} with its detector")
    backbone.trained_on = file.trained_on
    return TrainedDetector(network.eval(), tuple(file.classes), file.images, file.weights.sha256)
