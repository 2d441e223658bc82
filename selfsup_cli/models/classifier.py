"""A backbone with a head of its own: what a transfer trains, and `selfsup predict` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field
from torch import Tensor, nn

from selfsup_cli.config.fields import Model
from selfsup_cli.config.registry import FREEZES, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.heads import LinearHead
from selfsup_cli.models.layers import truncated_normal
from selfsup_cli.models.weights import (
    Sidecar,
    blank,
    fill,
    read_weights,
    sidecar_path,
    write_weights,
)


class HeadSpec(Model):
    """How the head of a `Classifier` is built.

    `linear`: one layer on what the backbone's own forward pass gives, so that the fully connected
    layers of C3D are kept. `fc`: fully connected layers with `hidden` units on the convolutions, of
    which they see every cell, or with `pooling` "max" maxima: of 2×2×2 cells, as C3D's own do, and
    of 3×3 cells at stride 2 in images, as AlexNet's.
    `compared` clips are seen at a time; of two, the difference of their features is classified.
    With `dropout` that share of the values is dropped in training before all layers but the first,
    and before the one of `linear`.
    Weights are those of `LinearHead` for `xavier` and `truncated`. Hidden layers have biases and no
    norm without `batch_norm`.
    """

    kind: Literal["linear", "fc"]
    outputs: int = Field(ge=1, le=1 << 20)
    hidden: list[Annotated[int, Ge(1), Le(1 << 18)]] = Field([], max_length=8)
    compared: Literal[1, 2] = 1
    pooling: Literal["max", "none"] = "max"
    xavier: bool = False
    truncated: Annotated[float, Gt(0)] | None = None
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    batch_norm: bool = True


class OnBackbone(nn.Module):
    """A network on top of a backbone of which some layers may stay as they are."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen: tuple[str, ...] = ()
        self._still: list[nn.Module] = []

    def freeze(self, what: str) -> Self:
        """Keep layers as they are: `none`, `conv` (the convolutions) or a layer and all below it.

        Batch norm of frozen layers uses its running statistics. Raises InputError for a layer that
        the network lacks, or that is not run.
        """
        backbone = self.backbone
        if what not in FREEZES and what not in backbone.layers:
            raise unknown("layer", what, (*FREEZES, *backbone.layers))
        if what == "none":
            return self
        upto = backbone.embedding if what == "conv" else what
        self.check_run(upto)
        self.frozen = backbone.layers[: backbone.layers.index(upto) + 1]
        self._still = backbone.parts(upto)[0]
        for module in self._still:
            module.requires_grad_(False)
        return self.train(self.training)

    def check_run(self, layer: str) -> None:
        """Raise InputError if the network leaves `layer` of the backbone out."""

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for frozen layers."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """What a report says of the head."""
        raise NotImplementedError


class Classifier(OnBackbone):
    """Images or clips → logits, through a backbone of which some layers may stay as they are."""

    def __init__(
        self, backbone: Backbone, spec: HeadSpec, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(backbone)
        self.head_spec = spec
        if spec.kind == "linear":
            dropped = [nn.Dropout(spec.dropout)] if spec.dropout else []
            self.hidden = nn.Sequential(*dropped)
            width = backbone.out_features
        else:
            width = convolutional_features(backbone, spec.pooling)
            layers: list[nn.Module] = []
            for units in spec.hidden:
                layers.append(
                    FullyConnected(width, units, generator, spec.truncated, norm=spec.batch_norm)
                )
                if spec.dropout:
                    layers.append(nn.Dropout(spec.dropout))
                width = units
            self.hidden = nn.Sequential(*layers)
            for module in backbone.parts(backbone.embedding)[1]:
                module.requires_grad_(False)  # never run, so never trained
        self.last = LinearHead(
            width,
            spec.outputs,
            xavier=spec.xavier,
            truncated=spec.truncated,
            generator=generator,
        )

    def check_run(self, layer: str) -> None:
        backbone = self.backbone
        if self.head_spec.kind == "fc" and layer in _after(backbone, backbone.embedding):
            raise InputError(
                f"start.freeze: {layer} lies above {backbone.embedding}, where the fresh fully "
                "connected layers begin; freeze conv or a layer of it",
                kind="freeze",
            )

    def forward(self, x: Tensor) -> Tensor:
        """Images float `[B·compared, 3, H, W]` or clips `[B·compared, 3, T, H, W]`, in [−1, 1] →
        logits float32 `[B, outputs]`.

        Those that are compared are adjacent.
        """
        return self.judged(self.fed(x))

    def fed(self, x: Tensor) -> Tensor:
        """What the head is fed of such images or clips: `[B, D]`."""
        backbone = self.backbone
        if self.head_spec.kind == "linear":
            out: Tensor = backbone(x)
            return out
        found = backbone.features(x, [backbone.embedding])[backbone.embedding]
        x = flattened(found, self.head_spec.pooling)
        if self.head_spec.compared == 2:
            first, second = x.reshape(-1, 2, x.shape[1]).unbind(1)
            x = first - second
        return x

    def judged(self, fed: Tensor) -> Tensor:
        """The logits float32 `[B, outputs]` of what the head was fed."""
        logits: Tensor = self.last(self.hidden(fed))
        return logits.float()

    def describe(self) -> dict[str, Any]:
        spec = self.head_spec
        if spec.kind == "linear":
            after = f", after dropout {spec.dropout:g}" if spec.dropout else ""
            return {"head": f"one linear layer on the network{after}"}
        sizes = ", ".join(str(units) for units in (*spec.hidden, spec.outputs))
        what = "the difference of two clips at " if spec.compared == 2 else ""
        images = self.backbone.input.kind == "image"
        size = "3×3 cells at stride 2" if images else "2×2×2 cells"
        cells = f", maxima of {size}" if spec.pooling == "max" else ""
        where = f"{what}{self.backbone.embedding}{cells}"
        if spec.dropout:
            where += f", dropout {spec.dropout:g}"
        return {"head": f"{len(spec.hidden) + 1} fully connected layers ({sizes}) on {where}"}


class FullyConnected(nn.Module):
    """A fully connected layer, batch norm (or a bias alone) and ReLU, as in the thesis' C3D
    (section 5.2.3)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        generator: torch.Generator | None,
        truncated: float | None = None,
        *,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=not norm, device="meta")
        self.linear.to_empty(device="cpu")
        if not norm:
            nn.init.zeros_(self.linear.bias)
        if truncated is None:
            nn.init.xavier_uniform_(self.linear.weight, generator=generator)
        else:
            truncated_normal(self.linear.weight, truncated, generator)
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = nn.BatchNorm1d(out_features, momentum=0.025, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.linear(x)), inplace=True)


def flattened(x: Tensor, pooling: str) -> Tensor:
    """Activations `[B, C, (T,) H, W]` → `[B, D]`; "max": as the last pooling of C3D or AlexNet."""
    if pooling == "max" and x.ndim == 5:
        x = F.max_pool3d(x, 2, ceil_mode=True)
    elif pooling == "max" and min(x.shape[2:]) >= 3:
        x = F.max_pool2d(x, 3, 2)
    return x.flatten(1)


def convolutional_features(backbone: Backbone, pooling: str) -> int:
    """The length D of the `flattened` convolutional features of what `backbone` eats."""
    was = backbone.training
    backbone.eval()
    with torch.no_grad():
        device = next(backbone.parameters()).device
        x = torch.zeros(1, *backbone.input.shape, device=device)
        found = backbone.features(x, [backbone.embedding])[backbone.embedding]
    backbone.train(was)
    return flattened(found, pooling).shape[1]


def _after(backbone: Backbone, layer: str) -> tuple[str, ...]:
    return backbone.layers[backbone.layers.index(layer) + 1 :]


_FORMAT: Literal["selfsup.model/1"] = "selfsup.model/1"


class _File(Sidecar):
    format: Literal["selfsup.model/1"]
    head: HeadSpec
    task: str
    classes: list[str]
    clips: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A trained `Classifier`: the task it does, its answers, how its clips or images were taken."""

    network: Classifier
    task: str
    classes: tuple[str, ...]
    clips: dict[str, Any]
    weights: str


def save_classifier(path: Path | str, trained: Trained, trained_on: dict[str, Any]) -> str:
    """Write weights and sidecar atomically; gives the SHA-256 of the weights in hex."""
    network = trained.network
    facts = {
        "format": _FORMAT,
        "spec": network.backbone.spec,
        "head": network.head_spec.model_dump(mode="json"),
        "task": trained.task,
        "classes": list(trained.classes),
        "clips": trained.clips,
        "trained_on": trained_on,
    }
    return write_weights(path, network, facts)


def load_classifier(path: Path | str) -> Trained:
    """What `save_classifier` wrote, on the CPU, ready to be used.

    Raises InputError, naming the file and what is wrong with it, as `load_backbone` does.
    """
    file, tensors = read_weights(path, _File)
    if file.head.outputs != len(file.classes):
        raise InputError(
            f"{sidecar_path(path)} names {len(file.classes)} classes for {file.head.outputs} "
            "outputs",
            kind="weights",
        )
    network = Classifier(blank(path, file), file.head)
    fill(path, network, tensors, f"{network.backbone.arch} with its head")
    network.backbone.trained_on = file.trained_on
    return Trained(network.eval(), file.task, tuple(file.classes), file.clips, file.weights.sha256)
