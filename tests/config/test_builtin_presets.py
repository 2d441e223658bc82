"""The presets that come along: sound, documented, and faithful to the thesis."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

import selfsup_cli
from selfsup_cli.config.document import read
from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.presets import list_presets, resolve
from selfsup_cli.config.registry import archs
from selfsup_cli.config.schema import schema
from selfsup_cli.config.temporal import PretrainTemporal

INFOS = list_presets({})
# What lies in paper/ is an experiment, and no preset.
FILES = sorted({*builtin_root().rglob("*.yaml")} - {*builtin_root().glob("paper/*")})
IDS = [path.relative_to(builtin_root()).as_posix() for path in FILES]

# Table 5.1, from the thesis: transformations, and whether the speed loss is used.
TABLE_5_1 = [
    ("S", True),
    ("SR", False),
    ("SP", False),
    ("SW", False),
    ("SR", True),
    ("SP", True),
    ("SW", True),
    ("SRP", False),
    ("SRW", False),
    ("SPW", False),
    ("SRP", True),
    ("SRW", True),
    ("SPW", True),
    ("SRPW", False),
    ("SRPW", True),
]


def pretrain(name: str) -> PretrainTemporal:
    preset = resolve("pretrain/temporal", preset=name, env={}).preset
    assert isinstance(preset, PretrainTemporal)
    return preset


def test_every_file_is_in_the_list() -> None:
    assert sorted(info.path for info in INFOS) == FILES
    assert len({info.name for info in INFOS}) == len(FILES) >= 31


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_presets_are_sound_and_say_what_they_are(info: Any) -> None:
    assert info.problem is None
    assert info.description
    assert info.paper
    resolved = resolve(info.job, preset=info.name, env={})
    assert resolved.name == info.name
    # A cost says on what machine, and an estimate calls itself one.
    cost = resolved.preset.cost
    if info.name != "temporal/base":
        assert cost is not None
        assert re.match(r"estimate, not measured: |measured: ", cost.machine)


@pytest.fixture(scope="module")
def validators() -> list[Any]:
    rules = schema()
    return [draft(rules) for draft in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator)]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_presets_fit_the_schema_in_both_drafts(path: Path, validators: list[Any]) -> None:
    document = read(path)
    assert not document.problems
    for validator in validators:
        assert [error.message for error in validator.iter_errors(document.data)] == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_first_line_leads_editors_to_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    target = os.path.normpath(path.parent / name)
    assert target == str(builtin_root() / "schema.json")


def of(method: str) -> list[Path]:
    return [path for path in FILES if path.is_relative_to(builtin_root() / "pretrain" / method)]


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in FILES
        if "pretrain" in path.parts
        and path not in (*of("dfgan"), *of("artifacts"), *of("bilevel"), *of("multiview"))
    ],
    ids=lambda path: path.stem,
)
def test_weight_decay_is_explicit_and_follows_from_the_authors(path: Path) -> None:
    """The authors' AdamW subtracts 1e-4 · w in each step, PyTorch's lr · weight_decay · w."""
    said = read(path).data["optim"]
    assert said["weight_decay"] * said["lr"] == pytest.approx(1e-4, rel=1e-12)
    assert "rule R1" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", of("artifacts"), ids=lambda path: path.stem)
def test_the_decay_of_chapter_3_is_coupled(path: Path) -> None:
    """5e-5 · w in the gradient; the author's code has it on one of two devices that average."""
    said = read(path).data["optim"]
    assert said["weight_decay"] == (2.5e-5 if path.stem == "as_released" else 5e-5)
    resolved: Any = resolve("pretrain/artifacts", preset=str(path), env={}).preset
    assert resolved.optim.name == "adam"


def test_table_5_1_is_complete() -> None:
    letters = {"speed": "S", "random": "R", "periodic": "P", "warp": "W"}
    found = []
    for info in INFOS:
        if "table-5.1" in info.name:
            preset = pretrain(info.name)
            assert (preset.train.epochs, preset.network.arch) == (50, "c3d")
            assert (preset.data.source, preset.data.split) == ("ucf101", 1)
            kinds = "".join(letters[kind] for kind in preset.time.kinds)
            found.append((kinds, preset.time.speed_loss))
            assert preset.paper is not None
            words = " + ".join(kind.capitalize() for kind in preset.time.kinds)
            loss = "YES" if preset.time.speed_loss else "NO"
            assert preset.paper.reference == f"thesis, table 5.1, row {words}, speed loss {loss}"
    assert sorted(found) == sorted(TABLE_5_1)


@pytest.mark.parametrize(
    ("name", "arch", "data", "epochs", "videos"),
    [
        ("c3d", "c3d", "ucf101", 100, 7),
        ("c3d-kinetics", "c3d", "kinetics", 15, 7),
        ("r3d", "r3d", "ucf101", 200, 16),
        ("r3d-kinetics", "r3d", "kinetics", 15, 16),
        ("r2plus1d", "r2plus1d", "ucf101", 200, 16),
        ("r2plus1d-kinetics", "r2plus1d", "kinetics", 15, 16),
        ("c3d-released", "c3d", "ucf101", 100, 6),
        ("r3d-released", "r3d", "ucf101", 200, 16),
    ],
)
def test_the_recipes_of_section_5_2_3(
    name: str, arch: str, data: str, epochs: int, videos: int
) -> None:
    preset = pretrain(f"temporal/{name}")
    assert (preset.network.arch, preset.data.source) == (arch, data)
    assert (preset.train.epochs, preset.train.batch_size) == (epochs, videos)
    optim = preset.optim
    assert (optim.name, optim.lr, optim.betas) == ("adamw", 3e-4, (0.9, 0.99))
    assert (optim.schedule, optim.final_factor, optim.decay_all) == ("cosine", 1e-3, False)
    augment = preset.augment
    if arch == "c3d":
        assert (augment.resize, augment.crop, augment.color) == ((128, 171), 112, "none")
    else:
        assert (augment.resize, augment.crop, augment.color) == ((256, 256), 128, "frame")
    released = name.endswith("released")
    assert preset.time.speed_on_periodic is released
    assert preset.time.periodic == ("released" if released else "thesis")
    assert preset.network.shortcut == ("projected" if name == "r3d-released" else "standard")
    if arch != "c3d":
        assert augment.scale == ((1.0, 1.0) if released else (0.5, 1.0))


@pytest.mark.parametrize("arch", archs("video"))
def test_every_network_has_a_preset_of_its_name(arch: str) -> None:
    assert pretrain(f"temporal/{arch}").network.arch == arch


def test_expectations_are_the_numbers_of_the_thesis_and_no_others() -> None:
    published = {1: 26.1, 5: 48.5, 10: 59.1, 20: 69.6, 50: 82.8}
    expected = {
        (info.name, item.metric): item.value
        for info in INFOS
        for item in resolve(info.job, preset=info.name, env={}).preset.expect
    }
    assert expected == {
        **{
            ("temporal/r3d-kinetics", f"retrieval top-{k} %"): value
            for k, value in published.items()
        },
        ("probe-images/stl10", "top-1 accuracy"): 73.7,  # table 4.2, conv5
        ("probe-images/celeba", "mean average precision"): 69.2,  # table 4.3, conv5
        ("probe-images/imagenet", "top-1 accuracy"): 43.1,  # table 4.5, conv4
        ("probe-images/places", "top-1 accuracy"): 39.5,  # table 4.6, conv4
        ("transfer/classify/resnet34-stl10", "top-1 accuracy"): 91.8,  # table 4.7
        ("transfer/classify/artifacts-stl10", "top-1 accuracy"): 81.06,  # table 3.1 (i)
        ("transfer/classify/voc2007", "mean average precision"): 74.5,  # table 4.4, after 69.8
        ("transfer/segment/voc2012", "mean intersection over union"): 38.1,  # table 3.3
    }


def test_the_small_presets_are_small() -> None:
    motion, actions = pretrain("temporal/c3d-motion"), pretrain("temporal/actions-small")
    assert motion.data.source == "motion"
    assert actions.data.source is None
    for preset in (motion, actions):
        assert preset.network.width <= 0.5
        assert max(preset.augment.resize) <= 96


def test_an_installed_package_brings_its_presets(tmp_path: Path) -> None:
    """Laid out as the wheel lays it out, away from the checkout."""
    package = Path(selfsup_cli.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__", "_data")
    shutil.copytree(package / "config", tmp_path / "selfsup_cli" / "config", ignore=ignore)
    for name in ("__init__.py", "errors.py", "version.py"):
        shutil.copy(package / name, tmp_path / "selfsup_cli")
    shutil.copytree(builtin_root(), tmp_path / "selfsup_cli" / "_data" / "presets")
    program = (
        "from selfsup_cli.config import presets, finding\n"
        "print(finding.builtin_root())\n"
        "print(len(presets.list_presets({})), presets.resolve('probe', env={}).name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.splitlines() == [
        str(tmp_path / "selfsup_cli" / "_data" / "presets"),
        f"{len(FILES)} probe/temporal",
    ], done.stderr
