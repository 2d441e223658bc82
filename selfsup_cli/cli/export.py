"""`selfsup export FORMAT`: what was learned, as a file that others read."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from inspect import Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, Entry, LazyGroup, command, group
from selfsup_cli.jobs.kinds import jobs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ABOUT = """Write what was learned as a file that others read.

What the reader of a network's file makes of it is compared with the network before anything is
written, and the largest difference is stated. Beside FILE lies FILE.json, which says what it is."""

TABLE = (
    "A table of features: one row for each video or image of a folder or dataset, with its id, and "
    "its class or attributes where the data has any. --out says by its ending what is written: .h5 "
    "(HDF5), .parquet (needs the extra [parquet]) or .csv.\n\nA file that turns out unreadable "
    "while the data is indexed is named, counted and left out, as long as no more than --max-bad "
    "are; one that does so later ends the job until --quarantine lists it."
)


@dataclass(frozen=True)
class Weights:
    """A form of a network: a line about it, more, its default file, and if it has outputs."""

    line: str
    more: str
    file: str
    is_graph: bool = False


WEIGHTS = {
    "safetensors": Weights(
        "The weights with their sidecar, as --from takes them.",
        "The network is rebuilt from both; other tools read the weights alone.",
        "RUN.safetensors",
    ),
    "torchvision": Weights(
        "A state dict for torchvision's own network.",
        "It loads with strict=True where the classifier is an Identity. For networks that "
        "torchvision has (--arch r3d_18, mc3_18, r2plus1d_18, resnet18, resnet34, resnet50). An "
        "--out that ends in .pth is written by torch.save.",
        "RUN.torchvision.safetensors",
    ),
    "timm": Weights(
        "A state dict for timm's own network.",
        "It loads with strict=True into what timm.create_model makes with num_classes=0. For "
        "networks that were made by timm (--arch timm/NAME). An --out that ends in .pth is written "
        "by torch.save.",
        "RUN.timm.safetensors",
    ),
    "onnx": Weights(
        "An ONNX model, checked with onnxruntime.",
        "For batches of any size; its metadata say how clips or images are prepared. Needs the "
        "extra [onnx].",
        "RUN.onnx",
        is_graph=True,
    ),
    "program": Weights(
        "A program of torch.export (.pt2).",
        "For batches of any size; it gives a dict of its outputs, and needs PyTorch alone.",
        "RUN.pt2",
        is_graph=True,
    ),
}

FROM = work.parameter(
    "source",
    str,
    "latest",
    "--from",
    metavar="RUN",
    help="Run, run directory or backbone.safetensors to export; latest is the newest finished one "
    "that fits. [default: latest]",
)
LAYERS = work.parameter(
    "layers",
    list[str] | None,
    None,
    "--layer",
    metavar="OUTPUT,…",
    help="What comes out, by name: embedding (the embedding layer averaged over all places), "
    "forward (what a linear head eats), or layers; may be repeated. [default: embedding]",
)
FORCE = work.parameter("force", bool, False, "--force", help="Replace a file that exists.")
LAST = (
    work.parameter("as_json", bool, False, "--json", help="Print the result as one JSON document."),
    work.parameter(
        "quiet", bool, False, "--quiet", "-q", help="Only results, warnings and errors."
    ),
    work.parameter(
        "verbose", bool, False, "--verbose", "-v", help="Say also what was decided and why."
    ),
)


def _out(file: str) -> Any:
    about = f"Where it goes. [default: {file} in this folder]"
    return work.parameter("out", str | None, None, "--out", metavar="FILE", help=about)


def load() -> Any:
    """The group of formats."""
    return group(Export, "export", ABOUT)


def _weights(form: str) -> Any:
    told = WEIGHTS[form]

    def parse(**values: Any) -> Action:
        return partial(_start, form, values)

    mine = (FROM, _out(told.file), *((LAYERS,) if told.is_graph else ()), FORCE, *LAST)
    parse.__signature__ = Signature(list(mine))  # type: ignore[attr-defined]
    parse.__annotations__ = {}
    return command(parse, form, f"{told.line}\n\n{told.more}")


def _start(form: str, values: Mapping[str, Any]) -> None:
    work.listen(-1 if values["quiet"] else int(values["verbose"]))
    given = values.get("layers") or []
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.jobs.export import export

        outcome = export(
            form,
            values["source"],
            out=_path(values["out"]),
            outputs=[name for one in given for name in one.split(",") if name],
            force=values["force"],
        )
    if values["as_json"]:
        document.success(outcome.data)
    else:
        console.emit(console.plain(outcome.text, lines=True))


def _embeddings() -> Any:
    options = (_out("RUN-embeddings.h5"), FORCE)
    parse = work.parser(jobs_of("export/embeddings"), _start_table, options)
    about = f"{TABLE}\n\n{work.KINDS_NOTE}\n\n{work.DEFAULTS_NOTE}"
    return command(parse, "embeddings", about)


def _start_table(call: work.Call) -> None:
    outcome = work.perform(
        "export_embeddings",
        "embeddings",
        work.resolved(call),
        out=_path(call.more["out"]),
        force=call.more["force"],
        quiet=call.verbosity < 0,
    )
    work.show(outcome, call)


def _path(out: str | None) -> Path | None:
    return None if out is None else Path(out).expanduser()


class Export(LazyGroup):
    """`selfsup export`: its commands are the formats."""

    what = "format"
    metavar = "FORMAT"
    entries: ClassVar[Mapping[str, Entry]] = {
        **{form: Entry(told.line, partial(_weights, form)) for form, told in WEIGHTS.items()},
        "embeddings": Entry(
            "A table of features of videos or images: HDF5, Parquet, CSV.", _embeddings
        ),
    }
