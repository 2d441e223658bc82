"""A backbone in the forms of other libraries, each compared with the original before it is given.

Nothing here writes files: a form is the bytes of its file. They are loaded again by the library
that is to read them, and what it computes from a few clips or images is held against the backbone
itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.models.backbone import Backbone, InputSpec
from selfsup_cli.models.libraries import LIBRARIES
from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

CLIPS, IMAGES = "clips", "images"
"""The name of the input: float32 `[B, 3, T, S, S]`, or `[B, 3, S, S]`, in [-1, 1]."""

EMBEDDING, FORWARD = "embedding", "forward"
OUTPUTS = (EMBEDDING, FORWARD)
"""What can be taken from a network besides its layers: `embed(x)` and `network(x)`."""

TOLERANCE = 1e-3
"""Largest difference that is arithmetic, as a share of the largest value."""

COMPARED_ON: dict[Kind, tuple[str, ...]] = {
    "video": ("noise", "a gradient", "a moving square"),
    "image": ("noise", "a gradient", "a square"),
}
"""What a network of clips, or of images, is compared on."""

ABOUT = "selfsup.json"
"""Name of the file inside a `.pt2` that says what the program is and eats."""


@dataclass(frozen=True)
class Agreement:
    """How far an output lies from the original: largest difference, and largest value of any input.

    `shape` is that of the output for one clip or image.
    """

    shape: tuple[int, ...]
    difference: float
    largest: float


@dataclass(frozen=True)
class Form:
    """The bytes of a file, the library that read them back, and what it made of each output."""

    data: bytes
    reader: str
    outputs: dict[str, Agreement]


# State dicts of other libraries


def as_state_dict(backbone: Backbone, library: str, *, pickled: bool = False) -> Form:
    """The state dict that the library's own network loads with `strict=True`.

    Safetensors, or with `pickled` what `torch.save` writes. One whose `colours` are normalised is
    given to the library's as it is, to be shown images that are normalised already. The backbone
    must be in evaluation mode; ValueError for a network that the library does not have,
    MachineError if it computes something else with these weights.
    """
    other = LIBRARIES[library]
    if not other.has(backbone.arch):
        raise ValueError(f"{library} has no network {backbone.arch}")
    prefix = other.prefix[backbone.input.kind]
    tensors = {
        name.removeprefix(prefix): value.detach().contiguous()
        for name, value in backbone.state_dict().items()
    }
    if pickled:
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        data = buffer.getvalue()
        loaded = torch.load(io.BytesIO(data), weights_only=True)  # noqa: TID251 (made right here)
    else:
        data = safetensors.torch.save(tensors, metadata={"format": "pt"})
        loaded = safetensors.torch.load(data)
    network = other.make(backbone)
    network.load_state_dict(loaded, strict=True, assign=True)
    network.eval()
    reader = f"{library} {_version(library)}"
    colours = backbone.colours or nn.Identity()
    found = _compare(backbone, [FORWARD], lambda x: {FORWARD: network(colours(x))}, reader)
    return Form(data, reader, found)


# Graphs


class _Taps(nn.Module):
    """`outputs` of a network from one pass through its layers, by name."""

    def __init__(self, network: Backbone, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(outputs)

    def found(self, x: Tensor) -> dict[str, Tensor]:
        network = self.network
        layers = {network.embedding if name == EMBEDDING else name for name in self.outputs}
        found: dict[str, Tensor] = {}
        if not all(hasattr(network, name) for name in network.layers):
            # Its layers are not its parts: what is asked for on the way, then all of it.
            found = network.features(x, [name for name in network.layers if name in layers])
            if FORWARD in self.outputs:
                found[FORWARD] = network(x)
        else:
            if network.input.kind == "image":
                x = network.arrange(x)
            for name in network.layers:
                if layers <= found.keys():
                    break
                x = found[name] = getattr(network, name)(x)
            if FORWARD in self.outputs:
                found[FORWARD] = network.summarize(x)
        if EMBEDDING in self.outputs:
            one = found[network.embedding]
            found[EMBEDDING] = one.mean(tuple(range(2, one.ndim)))
        return {name: found[name] for name in self.outputs}


class _ClipTaps(_Taps):
    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        return self.found(clips)


class _ImageTaps(_Taps):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.found(images)


def as_program(backbone: Backbone, outputs: Sequence[str], about: Mapping[str, Any]) -> Form:
    """A `torch.export` program (`.pt2`) that maps clips or images to a dict of `outputs`, in
    batches of any size.

    `about` is stored in it as the JSON file `ABOUT`. The backbone must be in evaluation mode.
    Raises MachineError if the program computes something else.
    """
    buffer = io.BytesIO()
    torch.export.save(_traced(backbone, outputs), buffer, extra_files={ABOUT: json.dumps(about)})
    data = buffer.getvalue()
    program = torch.export.load(io.BytesIO(data)).module()
    reader = f"torch.export of {_version('torch')}"
    return Form(data, reader, _compare(backbone, outputs, program, reader))


def as_onnx(backbone: Backbone, outputs: Sequence[str], about: Mapping[str, Any]) -> Form:
    """An ONNX model with the input `CLIPS` or `IMAGES` and `outputs` by name, any batch size.

    `about` becomes its metadata, values that are not text as JSON. The backbone must be in
    evaluation mode. Needs onnx, onnxscript and onnxruntime. Raises MachineError if onnxruntime
    computes something else.
    """
    import onnx
    import onnxruntime

    exported = torch.onnx.export(
        _traced(backbone, outputs),
        (),
        input_names=[name_of_input(backbone)],
        output_names=list(outputs),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None  # noqa: S101 (it is with dynamo)
    model = exported.model_proto
    _name_the_batch(model.graph)
    onnx.helper.set_model_props(
        model,
        {key: one if isinstance(one, str) else json.dumps(one) for key, one in about.items()},
    )
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> dict[str, Tensor]:
        found = session.run(list(outputs), {name_of_input(backbone): x.numpy()})
        return {name: torch.from_numpy(one) for name, one in zip(outputs, found, strict=True)}

    reader = f"onnxruntime {onnxruntime.__version__}"
    return Form(data, reader, _compare(backbone, outputs, run, reader))


def _traced(backbone: Backbone, outputs: Sequence[str]) -> torch.export.ExportedProgram:
    """The graph of a network in evaluation mode. It says nothing of this machine."""
    if backbone.training:
        raise ValueError("the backbone is in training mode")
    taps = _ClipTaps if backbone.input.kind == "video" else _ImageTaps
    x = torch.zeros(2, *backbone.input.shape)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(
            taps(backbone, outputs), (x,), dynamic_shapes={name_of_input(backbone): {0: batch}}
        )
    # Otherwise the file holds the input above, and where on this disk each line of code lies.
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def name_of_input(backbone: Backbone) -> str:
    """What the input of a graph is called."""
    return CLIPS if backbone.input.kind == "video" else IMAGES


def _name_the_batch(graph: Any) -> None:
    """Call the one size that is not fixed `batch`; the exporter numbers it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "batch"


# The comparison


def comparison_inputs(spec: InputSpec) -> Tensor:
    """What `COMPARED_ON` names, float32 `[3, 3, T, S, S]` or `[3, 3, S, S]` in [-1, 1]."""
    return comparison_clips(spec) if spec.kind == "video" else comparison_images(spec)


def comparison_images(spec: InputSpec) -> Tensor:
    """The images of `COMPARED_ON`, float32 `[3, 3, S, S]` in [-1, 1]."""
    s = spec.crop
    noise = torch.rand(3, s, s, generator=generator(0, "export", "noise")) * 2 - 1
    ramp = torch.linspace(-1, 1, s)
    down, across = ramp.view(s, 1).expand(s, s), ramp.view(1, s).expand(s, s)
    gradient = torch.stack([down, across, -down])
    square = torch.full((3, s, s), -1.0)
    square[:, s // 4 : s // 2, s // 3 : s // 3 + s // 4] = 1
    return torch.stack([noise, gradient, square])


def comparison_clips(spec: InputSpec) -> Tensor:
    """The clips of `COMPARED_ON`, float32 `[3, 3, T, S, S]` in [-1, 1]."""
    t, s = spec.frames, spec.crop
    noise = torch.rand(3, t, s, s, generator=generator(0, "export", "noise")) * 2 - 1
    gradient = torch.stack(
        [
            torch.linspace(-1, 1, length).view(shape).expand(t, s, s)
            for length, shape in ((t, (t, 1, 1)), (s, (1, s, 1)), (s, (1, 1, s)))
        ]
    )
    square = torch.full((3, t, s, s), -1.0)
    side = s // 4
    for frame in range(t):
        at = frame * (s - side) // max(t - 1, 1)
        square[:, frame, at : at + side, at : at + side] = 1
    return torch.stack([noise, gradient, square])


def _compare(
    backbone: Backbone,
    outputs: Sequence[str],
    other: Callable[[Tensor], Mapping[str, Tensor]],
    reader: str,
) -> dict[str, Agreement]:
    """Hold `other` against the backbone, for one clip or image and for several at once."""
    inputs = comparison_inputs(backbone.input)
    found: dict[str, Agreement] = {}
    for batch in (inputs[:1], inputs):
        with torch.no_grad():
            ours, theirs = _original(backbone, outputs, batch), other(batch)
        for name in outputs:
            here = _agreement(name, ours[name], theirs[name], reader)
            before = found.get(name, here)
            found[name] = Agreement(
                here.shape,
                max(here.difference, before.difference),
                max(here.largest, before.largest),
            )
    return found


def _agreement(name: str, ours: Tensor, theirs: Tensor, reader: str) -> Agreement:
    if not bool(ours.isfinite().all()):
        raise InputError(
            f"the network gives values that are not finite in {name}: its weights are unusable",
            kind="not-finite",
        )
    largest = float(ours.abs().max())
    same = ours.shape == theirs.shape
    difference = float((ours - theirs).abs().max()) if same else float("nan")
    # A comparison with NaN is false.
    if not difference <= TOLERANCE * largest + 1e-6:
        raise MachineError(
            f"{reader} computes something else than the network: {name} differs by up to "
            f"{difference:.2g} where values reach {largest:.2g}; nothing was written",
            kind="parity",
            hint="another version of that package may do better",
        )
    return Agreement(tuple(ours.shape[1:]), difference, largest)


def _original(backbone: Backbone, outputs: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    layers = [name for name in outputs if name not in OUTPUTS]
    found = backbone.features(x, layers) if layers else {}
    if EMBEDDING in outputs:
        found[EMBEDDING] = backbone.embed(x)
    if FORWARD in outputs:
        found[FORWARD] = backbone(x)
    return found


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
