"""A mistake in the command line is one line that names it, and the nearest right word."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from selfsup_cli.cli import app
from selfsup_cli.config import environment
from selfsup_cli.version import __version__


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pretrian", "unknown command 'pretrian' (did you mean 'pretrain'?)"),
        ("zzz", "unknown command 'zzz'; known are: pretrain, transfer, predict, probe, "),
        ("transfer", "missing task; known are: action, sync, order"),
        ("transfer acton", "unknown task 'acton' (did you mean 'action'?)"),
        ("predict", "missing argument 'DATA'"),
        ("--vresion", "unknown option '--vresion' (did you mean '--version'?)"),
        ("pretrain", "missing method; known are: temporal"),
        ("pretrain temporl", "unknown method 'temporl' (did you mean 'temporal'?)"),
        ("pretrain temp", "unknown method 'temp'"),
        ("pretrain --arch c3d temporal", "unknown option '--arch'"),
        ("pretrain temporal --arhc c3d", "unknown option '--arhc' (did you mean '--arch'?)"),
        ("pretrain temporal --no-compil", "unknown option '--no-compil' (did you mean '--no-comp"),
        ("pretrain temporal --epoch 1", "unknown option '--epoch' (did you mean '--epochs'?)"),
        ("pretrain temporal --lr", "option '--lr' requires an argument"),
        ("pretrain temporal ucf101", "unexpected extra argument"),
        ("pretrain temporal --arch c3dd", "--arch: network.arch: unknown network 'c3dd' (did you"),
        (
            "pretrain temporal --data kinetic",
            "unknown dataset 'kinetic' (did you mean 'kinetics'?)",
        ),
        ("pretrain temporal --epochs 1.5", "--epochs: train.epochs: must be a whole number"),
        ("pretrain temporal --lr fast", "--lr: optim.lr: must be a number"),
        (
            "pretrain temporal --set optim.lrr=1",
            "--set optim.lrr: unknown key 'lrr' (did you mean 'lr'",
        ),
        ("pretrain temporal --set optim.lr", "write it as --set field.path=value"),
        ("pretrain temporal --lr 1 --set optim.lr=2", "--lr and --set optim.lr disagree"),
        ("pretrain temporal --preset temporal/c3e", "(did you mean 'temporal/c3d'?)"),
        ("pretrain temporal --preset nowhere.yaml", "nowhere.yaml: there is no such file"),
        ("probe --layer conv44", "unknown layer 'conv44' (did you mean 'conv4'?)"),
        ("probe --layer conv4 --layer conv55", "unknown layer 'conv55'"),
        ("probe --json=1", "does not take a value"),
        ("visualize pretxt", "unknown picture 'pretxt' (did you mean 'pretext'?)"),
        ("visualize pretext --cuont 3", "unknown option '--cuont' (did you mean '--count'?)"),
        ("visualize pretext --count many", "--count"),
        ("visualize pretext --count 0", "--count must be at least 1; got 0"),
        (
            "runs shwo",
            "unknown command 'shwo' (did you mean 'show'?); known are: list, show, resume",
        ),
        ("runs show", "missing argument 'RUN'"),
        ("runs resume never", "there is no run 'never'"),
        ("presets", "missing command; known are: list, show, validate, copy, schema"),
        ("presets show probe/tempora", "(did you mean 'probe/temporal'?)"),
    ],
)
def test_mistakes(selfsup: Callable[..., Any], line: str, said: str) -> None:
    told = selfsup(*line.split())
    assert told.status == 2
    assert told.out == ""
    first, *hints = told.err.splitlines()
    assert first.startswith("selfsup: error: ")
    assert said in first
    assert all(hint.startswith("selfsup: hint: ") for hint in hints)


def test_an_option_before_the_method_is_explained(selfsup: Callable[..., Any]) -> None:
    told = selfsup("pretrain", "--arch", "c3d", "temporal")
    assert "options follow the method" in told.err


def test_usage_errors_are_documents_too(selfsup: Callable[..., Any]) -> None:
    told = selfsup("pretrain", "temporl", "--json")
    assert json.loads(told.out)["error"]["kind"] == "unknown-method"
    told = selfsup("probe", "--layr", "conv4", "--json")
    found = json.loads(told.out)
    assert found["error"]["kind"] == "usage"
    assert "'selfsup probe layers --help'" in found["error"]["hint"]


def test_selfsup_alone_shows_how_to_begin(selfsup: Callable[..., Any]) -> None:
    told = selfsup()
    assert (told.status, told.out) == (2, "")
    assert sum(line.startswith("  selfsup ") for line in told.err.splitlines()) == 3


def test_version(selfsup: Callable[..., Any]) -> None:
    told = selfsup("--version")
    assert (told.status, told.out, told.err) == (0, f"selfsup {__version__}\n", "")


@pytest.mark.parametrize(
    "line",
    ["", "pretrain", "pretrain temporal", "probe", "retrieve", "visualize", "visualize pretext",
     "visualize pretext temporal", "visualize guided-backprop", "runs", "runs list", "runs show",
     "runs resume", "presets", "presets list", "presets show", "presets validate", "presets copy",
     "presets schema", "doctor", "completion"],
)  # fmt: skip
def test_help_anywhere(selfsup: Callable[..., Any], line: str) -> None:
    long, short = selfsup(*line.split(), "--help"), selfsup(*line.split(), "-h")
    assert (long.status, long.err) == (0, "")
    assert long == short
    assert long.out.startswith(f"Usage: selfsup {line}".rstrip())


def test_the_help_tells_statuses_variables_and_every_command(selfsup: Callable[..., Any]) -> None:
    text = selfsup("--help").out
    for status in ("0", "1", "2", "3", "4", "75", "130, 143", "141"):
        assert f"\n    {status} " in text
    assert {"pretrain", "probe", "runs", "doctor", "completion"} <= set(app.Root.entries)
    for name in (*app.Root.entries, *environment.VARIABLES, "NO_COLOR", "FORCE_COLOR"):
        assert f"\n  {name} " in text or f"\n    {name} " in text


def test_unknown_variables_are_warned_of(
    selfsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DEVIC", "cpu")
    told = selfsup("runs", "list")
    assert told.status == 0
    assert "selfsup: warning: " in told.err
    assert "(did you mean 'SELFSUP_DEVICE'?)" in told.err
