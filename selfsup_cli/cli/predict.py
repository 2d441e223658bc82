"""`selfsup predict PATH`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, Entry, LazyGroup, command, group

if TYPE_CHECKING:
    from collections.abc import Mapping

ABOUT = (
    "Label videos with a network of 'selfsup transfer action', or images with one of 'selfsup "
    "transfer classify', 'segment' (masks) or 'detect' (boxes).\n\nDATA is a video or image, a "
    "folder of them, a CSV file or a registered dataset. Files that cannot be read are named, "
    "counted and left out."
)


POSES = (
    "Estimate 3D poses with a network of 'selfsup transfer pose': 17 joints in mm from the pelvis, "
    "for each picture.\n\nDATA is a video or image, or a folder of them, that show one person. "
    "Files that cannot be read are named, counted and left out."
)


SPOTTED = (
    "Say of images what looks damaged to a network of 'selfsup pretrain artifacts'.\n\nDATA is an "
    "image, a folder of them, a CSV file or a registered dataset. Files that cannot be read are "
    "named, counted and left out. docs/visualize.md says what it can find, and what not."
)


def load() -> Any:
    """The group; what is no command of it is the DATA of the first one."""
    return group(
        Predict, "predict", "Label videos or images, mark what looks damaged, or estimate poses."
    )


def _labels() -> Any:
    return command(_parse, "labels", ABOUT)


def _artifacts() -> Any:
    return command(_parse_artifacts, "artifacts", SPOTTED)


def _pose() -> Any:
    return command(_parse_pose, "pose", POSES)


def _option(flag: str, metavar: str | None, help_: str, **rules: Any) -> Any:
    return typer.Option(*flag.split(","), metavar=metavar, help=help_, show_default=False, **rules)


def _parse(
    path: Annotated[str, typer.Argument(metavar="DATA", help="What to label.")],
    subject: Annotated[
        str,
        _option(
            "--from",
            "RUN",
            "Run of 'selfsup transfer action', 'classify', 'segment' or 'detect', or its "
            "model.safetensors; latest is the newest finished one of the first two, for what DATA "
            "holds. [default: latest]",
        ),
    ] = "latest",
    out: Annotated[
        str,
        _option("--out", "FILE", "Where labels go: .csv or .json. [default: predictions.csv here]"),
    ] = "predictions.csv",
    pictures: Annotated[
        str | None, _option("--pictures", "DIR", "Also draw each with its labels, here.")
    ] = None,
    clips: Annotated[
        int | None,
        _option(
            "--clips",
            "N",
            "Clips of each video that are averaged. [default: as many as in its test]",
            min=1,
            max=64,
        ),
    ] = None,
    crops: Annotated[
        Literal["center", "ten"] | None,
        _option(
            "--test-crops",
            "center|ten",
            "Crops of each image that are averaged. [default: as in its test]",
        ),
    ] = None,
    top: Annotated[
        int, _option("--top", "N", "Classes told of each in JSON. [default: 5]", min=1)
    ] = 5,
    device: Annotated[
        str, _option("--device", "DEVICE", "Device: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = "auto",
    workers: Annotated[
        int | None,
        _option("--workers", "N", "Processes that decode. [default: auto]", min=0, max=256),
    ] = None,
    force: Annotated[bool, _option("--force", None, "Replace a file that exists.")] = False,
    as_json: Annotated[
        bool, _option("--json", None, "Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet,-q", None, "Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose,-v", None, "Say also what was decided and why.")
    ] = False,
) -> Action:
    def start() -> None:
        work.listen(-1 if quiet else int(verbose))
        with contextlib.redirect_stdout(sys.stderr):
            from selfsup_cli.jobs.predict import predict

            outcome = predict(
                path,
                subject,
                out=Path(out).expanduser(),
                pictures=None if pictures is None else Path(pictures).expanduser(),
                clips=clips,
                crops=crops,
                top=top,
                device=device,
                workers=workers,
                force=force,
                quiet=quiet,
            )
        _show(outcome, as_json=as_json)

    return start


def _parse_artifacts(
    path: Annotated[str, typer.Argument(metavar="DATA", help="What to look at.")],
    subject: Annotated[
        str,
        _option(
            "--from",
            "RUN",
            "Run of 'selfsup pretrain artifacts'; latest is the newest finished one. "
            "[default: latest]",
        ),
    ] = "latest",
    out: Annotated[
        str, _option("--out", "FILE", "Where scores go: .csv. [default: artifacts.csv here]")
    ] = "artifacts.csv",
    pictures: Annotated[
        str | None, _option("--pictures", "DIR", "Also draw each image and its map, here.")
    ] = None,
    maps: Annotated[
        str | None,
        _option("--maps", "FILE", "Also write how likely each pixel is damaged: .npz or .h5."),
    ] = None,
    threshold: Annotated[
        float,
        _option("--threshold", "X", "From which on a pixel looks damaged. [default: 0.5]"),
    ] = 0.5,
    replicate: Annotated[
        bool | None,
        _option(
            "--replicate/--as-they-are",
            None,
            "Send images through the autoencoder first, or not. [default: as in training]",
        ),
    ] = None,
    device: Annotated[
        str, _option("--device", "DEVICE", "Device: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = "auto",
    workers: Annotated[
        int | None,
        _option("--workers", "N", "Processes that decode. [default: auto]", min=0, max=256),
    ] = None,
    force: Annotated[bool, _option("--force", None, "Replace a file that exists.")] = False,
    as_json: Annotated[
        bool, _option("--json", None, "Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet,-q", None, "Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose,-v", None, "Say also what was decided and why.")
    ] = False,
) -> Action:
    def start() -> None:
        work.listen(-1 if quiet else int(verbose))
        with contextlib.redirect_stdout(sys.stderr):
            from selfsup_cli.jobs.predict_artifacts import artifacts

            outcome = artifacts(
                path,
                subject,
                out=Path(out).expanduser(),
                pictures=None if pictures is None else Path(pictures).expanduser(),
                maps=None if maps is None else Path(maps).expanduser(),
                threshold=threshold,
                replicate=replicate,
                device=device,
                workers=workers,
                force=force,
                quiet=quiet,
            )
        _show(outcome, as_json=as_json)

    return start


def _parse_pose(
    path: Annotated[str, typer.Argument(metavar="DATA", help="What to look at.")],
    subject: Annotated[
        str,
        _option(
            "--from",
            "RUN",
            "Run of 'selfsup transfer pose', or its model.safetensors; latest is the newest "
            "finished one. [default: latest]",
        ),
    ] = "latest",
    out: Annotated[
        str, _option("--out", "FILE", "Where poses go: .csv or .h5. [default: poses.csv here]")
    ] = "poses.csv",
    pictures: Annotated[
        str | None, _option("--pictures", "DIR", "Also draw some with their poses, here.")
    ] = None,
    camera: Annotated[
        Literal["fixed", "moving"] | None,
        _option(
            "--camera",
            "fixed|moving",
            "By a fixed camera the person is what stands out from the empty scene; otherwise they "
            "are in the middle of each image. [default: fixed for videos, moving for images]",
        ),
    ] = None,
    device: Annotated[
        str, _option("--device", "DEVICE", "Device: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = "auto",
    force: Annotated[bool, _option("--force", None, "Replace a file that exists.")] = False,
    as_json: Annotated[
        bool, _option("--json", None, "Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet,-q", None, "Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose,-v", None, "Say also what was decided and why.")
    ] = False,
) -> Action:
    def start() -> None:
        work.listen(-1 if quiet else int(verbose))
        with contextlib.redirect_stdout(sys.stderr):
            from selfsup_cli.jobs.predict_pose import predict_pose

            outcome = predict_pose(
                path,
                subject,
                out=Path(out).expanduser(),
                pictures=None if pictures is None else Path(pictures).expanduser(),
                camera=camera,
                device=device,
                force=force,
                quiet=quiet,
            )
        _show(outcome, as_json=as_json)

    return start


def _show(outcome: Any, *, as_json: bool) -> None:
    if as_json:
        document.success(outcome.data)
    else:
        console.emit(console.plain(outcome.text, lines=True))


class Predict(LazyGroup):
    """`selfsup predict`: labels, where nothing else is named."""

    what = "prediction"
    metavar = "[WHAT] DATA"
    default = "labels"
    entries: ClassVar[Mapping[str, Entry]] = {
        "labels": Entry("Label videos or images with a transferred network.", _labels),
        "artifacts": Entry("Mark what of images looks damaged.", _artifacts),
        "pose": Entry("Estimate where the joints of a person are in space.", _pose),
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is no command is DATA of the first one."""
        if args and args[0] not in (*self.entries, *ctx.help_option_names):
            args = ["labels", *args]
        return super().parse_args(ctx, args)
