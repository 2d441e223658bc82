"""Options are the fields of presets: none is missing, none is made up, all say their default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer

from selfsup_cli.cli.app import app
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import options_of
from selfsup_cli.jobs.kinds import jobs_of

WORK = {"--preset", "--set", "--json", "--quiet", "-q", "--verbose", "-v", "--help", "-h"}
COMMANDS = {
    "pretrain temporal": ("pretrain/temporal", {"--run", "--dry-run"}),
    "visualize pretext temporal": ("pretrain/temporal", {"--out", "--count"}),
    "visualize guided-backprop": ("visualize/guided-backprop", {"--out"}),
    "probe layers": ("probe", {"--run", "--dry-run"}),
    "probe sync": ("probe-sync", {"--run", "--dry-run"}),
    "retrieve neighbours": ("retrieve", {"--run", "--dry-run"}),
    "retrieve sync": ("retrieve-sync", {"--run", "--dry-run"}),
}


def flags_of(line: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    with command.make_context("selfsup", []) as context:
        for name in line.split():
            command = command.get_command(context, name)
        with command.make_context(line, [], parent=context) as inner:
            parameters = command.get_params(inner)
    return {
        flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_the_options_of_a_command_are_the_fields_of_its_preset(line: str) -> None:
    job, own = COMMANDS[line]
    fields = {
        flag for one in jobs_of(job) for option in options_of(JOBS[one]) for flag in option.flags
    }
    assert flags_of(line) == fields | WORK | own


@pytest.mark.parametrize("line", COMMANDS)
def test_help_shows_each_field_with_default_and_unit(
    selfsup: Callable[..., Any], line: str
) -> None:
    # Lines are broken at hyphens too, so spaces do not count.
    text = "".join(selfsup(*line.split(), "--help").out.split())
    for option in [o for job in jobs_of(COMMANDS[line][0]) for o in options_of(JOBS[job])]:
        assert option.help
        unit = f" {option.unit}" if option.unit else ""
        said = f"{option.help} [default: {option.default_text or 'none'}{unit}]"
        at = text.index("".join(said.split()))
        shown = text[text.rindex(option.flags[0], 0, at) : at]
        assert all(flag in shown for flag in option.flags)
        assert all(choice in shown for choice in option.choices)


def test_options_reach_the_preset_with_their_spelling(
    selfsup: Callable[..., Any], jobs: Any
) -> None:
    told = selfsup(
        "pretrain", "temporal", "--dataset", "motion", "--arch", "r3d", "--lr", "1e-3",
        "--transformations", "speed,random", "--transformations", "warp", "--no-speed-loss",
        "--set", "augment.crop=64", "--workers", "2", "--batch-size=4",
    )  # fmt: skip
    assert told.status == 0, told.err
    [(_, resolved, _)] = jobs.calls
    preset = resolved.preset
    assert preset.data.source == "motion"
    assert preset.network.arch == "r3d"
    assert preset.optim.lr == 1e-3
    assert preset.time.kinds == ["speed", "random", "warp"]
    assert preset.time.speed_loss is False
    assert preset.augment.crop == 64
    assert preset.machine.workers == 2
    assert preset.train.batch_size == 4
    assert resolved.origin["optim.lr"] == "--lr"
    assert resolved.origin["time.speed_loss"] == "--no-speed-loss"
    assert resolved.origin["augment.crop"] == "--set"


def test_data_and_dataset_are_one_option(selfsup: Callable[..., Any], jobs: Any) -> None:
    for flag in ("--data", "--dataset"):
        for line in COMMANDS:
            assert selfsup(*line.split(), flag, "motion").status == 0
    assert {resolved.preset.data.source for _, resolved, _ in jobs.calls} == {"motion"}


def test_what_is_not_given_is_left_to_the_preset(selfsup: Callable[..., Any], jobs: Any) -> None:
    assert selfsup("pretrain", "temporal", "--preset", "temporal/c3d").status == 0
    [(_, resolved, _)] = jobs.calls
    assert resolved.name == "temporal/c3d"
    assert not {origin for origin in resolved.origin.values() if origin.startswith("--")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "probe --data scenes --train-clips 4 --no-still",
            "--train-clips, --no-still are for videos, and this is about images: scenes has images",
        ),
        (
            "probe --data motion --pooling none",
            "--pooling is for images, and this is about videos: motion has videos",
        ),
        (
            "probe --preset probe-images/base --test-clips 4",
            "--test-clips is for videos, and this is about images: so says the preset probe-images",
        ),
        (
            "retrieve --clips 4 --data facelike",
            "--clips is for videos, and this is about images: facelike has images",
        ),
        ("probe --test-views ten", "and this is about videos: nothing says that it is about ima"),
    ],
)
def test_an_option_of_the_other_kind_is_told(
    selfsup: Callable[..., Any], jobs: Any, line: str, said: str
) -> None:
    told = selfsup(*line.split())
    assert told.status == 2
    assert told.err.startswith("selfsup: error: ")
    assert said in told.err
    assert jobs.calls == []


def test_one_command_for_videos_and_images(selfsup: Callable[..., Any], jobs: Any) -> None:
    assert selfsup("probe", "--data", "motion", "--train-clips", "3", "--epochs", "7").status == 0
    assert selfsup("probe", "--data", "scenes", "--train-views", "3", "--epochs", "7").status == 0
    (first, video, _), (second, image, _) = jobs.calls
    assert (first, video.job, video.preset.clips.train) == ("probe", "probe", 3)
    assert (second, image.job, image.preset.views.train) == ("probe_images", "probe-images", 3)
    assert video.preset.probe.epochs == image.preset.probe.epochs == 7
    assert image.name == "probe-images/scenes"
    # A spelling that only one of them has is the same option.
    assert selfsup("probe", "--data", "stl10", "--fold", "2").status == 0
    assert jobs.calls[-1][1].preset.data.split == 2
