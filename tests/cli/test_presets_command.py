"""`selfsup presets`: what there is, what it says, whether it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.presets import list_presets, resolve


def test_list_names_every_preset(selfsup: Callable[..., Any]) -> None:
    told = selfsup("presets", "list")
    assert told.status == 0
    names = [line.split()[0] for line in told.out.splitlines()[1:]]
    assert names == [one.name for one in list_presets()]
    data = json.loads(selfsup("presets", "list", "--json").out)["data"]
    assert [one["name"] for one in data["presets"]] == names
    assert {one["job"] for one in data["presets"]} == set(JOBS)


def test_a_preset_of_ones_own_is_listed_and_one_that_is_wrong_says_so(
    selfsup: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / "mine.yaml").write_text("version: 1\ntask: probe\nprobe:\n  epochs: 0\n")
    monkeypatch.setenv("SELFSUP_PRESET_PATH", str(tmp_path))
    [line] = [one for one in selfsup("presets", "list").out.splitlines() if "probe/mine" in one]
    assert "mine.yaml:4" in line


def test_show_is_a_preset_again(selfsup: Callable[..., Any], tmp_path: Path) -> None:
    told = selfsup("presets", "show", "temporal/c3d", "--set", "optim.lr=0.25")
    again = tmp_path / "again.yaml"
    again.write_text(told.out)
    expected = resolve("pretrain/temporal", preset="temporal/c3d", sets=["optim.lr=0.25"])
    assert resolve("pretrain/temporal", preset=str(again)).preset == expected.preset
    data = json.loads(selfsup("presets", "show", "temporal/c3d", "--json").out)["data"]
    assert data["preset"]["network"]["arch"] == "c3d"
    assert data["origin"]["machine.devices"] == "default"


def test_origin_says_of_each_value_where_it_comes_from(
    selfsup: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("SELFSUP_DEVICE", "cpu")
    told = selfsup("presets", "show", "temporal/c3d", "--set", "optim.lr=0.25", "--origin")
    said = {}
    for line in told.out.splitlines():
        value, _, origin = line.rpartition("  # ")
        path, _, value = value.partition(" = ")
        said[path] = (value.strip(), origin)
    assert said["optim.lr"] == ("0.25", "--set")
    assert said["machine.device"] == ('"cpu"', "$SELFSUP_DEVICE")
    assert said["machine.devices"] == ("1", "default")
    assert said["network.arch"][0] == '"c3d"'
    assert "temporal/c3d.yaml: line " in said["network.arch"][1]
    assert said["time.kinds"][1].startswith("extends temporal/base")
    found = resolve("pretrain/temporal", preset="temporal/c3d")
    assert list(said) == list(found.origin)


def test_validate(selfsup: Callable[..., Any], tmp_path: Path) -> None:
    for preset in ("probe/temporal", str(builtin_root() / "retrieve" / "temporal.yaml")):
        told = selfsup("presets", "validate", preset)
        assert told.status == 0
        assert told.out.startswith(f"{preset}: a valid preset of ")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\ntask: probe\nprobe:\n  epoch: 3\n  lrs: []\n")
    told = selfsup("presets", "validate", str(wrong))
    assert (told.status, told.out) == (2, "")
    first, second = told.err.splitlines()
    assert first.startswith(f"selfsup: error: {wrong}:4: probe.epoch: unknown key 'epoch'")
    assert second.startswith(f"selfsup: error: {wrong}:5: probe.lrs: ")


def test_copy_never_overwrites(
    selfsup: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert selfsup("presets", "copy", "temporal/c3d").out == "c3d.yaml\n"
    assert selfsup("presets", "validate", "c3d.yaml").status == 0
    (tmp_path / "c3d.yaml").write_text("mine")
    told = selfsup("presets", "copy", "temporal/c3d")
    assert told.status == 2
    assert "c3d.yaml exists already" in told.err
    assert (tmp_path / "c3d.yaml").read_text() == "mine"
    told = selfsup("presets", "copy", "temporal/c3d", "other.yaml", "--json")
    assert json.loads(told.out)["data"] == {"file": "other.yaml"}
    assert selfsup("presets", "copy", "temporal/c3d", "no/folder/x.yaml").status == 3


def test_schema_is_the_committed_one(selfsup: Callable[..., Any]) -> None:
    assert selfsup("presets", "schema").out == (builtin_root() / "schema.json").read_text()
