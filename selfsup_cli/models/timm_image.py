"""Any of timm's networks behind the contract of `Backbone`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from selfsup_cli.config.registry import TIMM, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.batch_norm import strip
from selfsup_cli.randomness import lent

# What timm's networks raise where an image does not fit.
_REFUSALS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class TimmImage(Backbone):
    """A network of timm without its classifier, started as timm starts it.

    Layers are those of its feature info under their names there (`stages.0`, `blocks.11`, …), as
    maps `[B, C, H, W]`; of a transformer, its patch tokens without the class token. Their values
    may be negative. `forward` gives what timm's own classifier would see. Networks of a fixed input
    size are built for the crop, all others take any. Parameters keep timm's names after `network.`.
    """

    def __init__(self, spec: Spec) -> None:
        network, out_features = _tried(spec)
        if spec.signed:
            unrectified(network)
        self._spec = spec
        self.layers = tuple(one["module"] for one in network.feature_info)
        self.embedding = self.layers[-1]
        super().__init__(spec, out_features)
        self.network: nn.Module = network

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        indices = {name: self._index(name) for name in layers}
        if not layers:
            return {}
        asked = sorted(set(indices.values()))
        found = dict(zip(asked, _intermediates(self.network, self.arrange(x), asked), strict=True))
        return {name: found[index] for name, index in indices.items()}

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(self.arrange(x))
        return out

    def parts(self, layer: str) -> tuple[list[nn.Module], list[nn.Module]]:
        index = self._index(layer)
        with torch.device("meta"):
            whole = TimmImage(self._spec)
            if self._spec.absorbed:
                strip(whole)
            twin: Any = whole.network.eval()
            x = torch.zeros(1, *self.input.shape)
        ran: set[str] = set()
        for name, module in twin.named_modules():
            module.register_forward_hook(lambda *_, name=name: ran.add(name))
        with torch.enable_grad():
            (found,) = _intermediates(twin, x, [index])
            weights = dict(twin.named_parameters())
            gradients = torch.autograd.grad(found.sum(), list(weights.values()), allow_unused=True)
        reached = {name for name, got in zip(weights, gradients, strict=True) if got is not None}
        below: list[nn.Module] = []
        above: list[nn.Module] = []
        for name, module in self.network.named_modules():
            own = dict(module.named_parameters(name, recurse=False))
            leaf = not any(True for _ in module.children())
            if name in ran and (leaf or own):
                below.append(module)
            elif leaf:
                # A leaf that is never called may still lend its weights to what is above it.
                (below if reached & own.keys() else above).append(module)
            else:
                for key, weight in own.items():
                    (below if key in reached else above).append(nn.ParameterList([weight]))
        return below, above

    def allocate(self) -> Self:
        # Made anew with values: some tensors are computed where it is made and never saved.
        self.initialize(torch.Generator())
        return self

    def initialize(self, g: torch.Generator) -> None:
        with lent(g):
            self.network = _made(self._spec).train(self.training)
        if self._spec.signed:
            unrectified(self.network)
        if self._spec.absorbed:
            strip(self)

    def _index(self, layer: str) -> int:
        if layer not in self.layers:
            raise unknown("layer", layer, self.layers)
        return self.layers.index(layer)


def settings(spec: Spec) -> tuple[str, dict[str, Any]]:
    """The name and the arguments with which timm makes the network.

    Raises InputError for a name that timm does not have.
    """
    name = spec.arch.removeprefix(TIMM)
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(TIMM + one for one in close)}?" if close else ""
        raise InputError(f"timm has no network '{name}'{hint}", kind="unknown-arch")
    given: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        given["img_size"] = spec.crop
    return name, given


def unrectified(network: Any) -> None:
    """Take the ReLU that ends the last block from one of timm's ResNets.

    Others keep what they end with: it has signs already (transformers, ConvNeXt), or they end with
    an activation that is no part of a sum.
    """
    if not isinstance(network, timm.models.ResNet):
        return
    block = network.layer4[-1]
    setattr(block, "act3" if hasattr(block, "act3") else "act2", nn.Identity())


def _made(spec: Spec) -> Any:
    name, given = settings(spec)
    return timm.create_model(name, **given)


def _tried(spec: Spec) -> tuple[Any, int]:
    """The network on `meta`, and the length of what it gives for the crop, without computing it."""
    try:
        network = _made(spec).eval()
        _check_patches(spec, network)
        x = torch.zeros(2, 3, spec.crop, spec.crop, device="meta")
        with torch.no_grad():
            _intermediates(network, x, range(len(network.feature_info)))
            length = network(x).shape[1]
    except (
        AssertionError,
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{spec.arch} cannot be built for images of {spec.crop}×{spec.crop} pixels ({reason})",
            kind="network",
        ) from error
    return network.train(), int(length)


def _check_patches(spec: Spec, network: Any) -> None:
    """Raise InputError where the patches of a transformer leave pixels of the crop unseen."""
    embed = getattr(network, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if size is None or getattr(embed, "dynamic_img_pad", False):
        return
    patch: tuple[int, ...] = (size, size) if isinstance(size, int) else tuple(size)
    # Patches that overlap (of PVT, PiT) may cover crops that are no multiples of theirs.
    if getattr(getattr(embed, "proj", None), "stride", None) != patch:
        return
    step = math.lcm(*patch)
    if spec.crop % step == 0:
        return
    below = spec.crop // step * step
    near = f"{below} or {below + step}" if below else f"{step}"
    raise InputError(
        f"{spec.arch} cuts images into patches of {patch[0]}×{patch[1]} pixels, and would not see "
        f"the outermost of {spec.crop}×{spec.crop}: give it a crop of {near}",
        kind="network",
    )


def _intermediates(network: Any, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
    found: list[Tensor] = network.forward_intermediates(
        x, indices=list(indices), stop_early=True, intermediates_only=True, output_fmt="NCHW"
    )
    return found
