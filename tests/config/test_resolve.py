"""Precedence, origins, names and mistakes of presets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config.evaluation import Probe
from selfsup_cli.config.presets import (
    Resolved,
    copy_preset,
    default_preset,
    dump,
    identity,
    job_of,
    list_presets,
    resolve,
)
from selfsup_cli.config.problems import PresetError
from selfsup_cli.config.temporal import PretrainTemporal
from selfsup_cli.errors import InputError, MachineError

JOB = "pretrain/temporal"
HEAD = "version: 1\nmethod: temporal\n"


def pretrain(**arguments: Any) -> PretrainTemporal:
    preset = resolve(JOB, **{"env": {}, **arguments}).preset
    assert isinstance(preset, PretrainTemporal)
    return preset


def refused(job: str = JOB, **arguments: Any) -> PresetError:
    with pytest.raises(PresetError) as caught:
        resolve(job, **{"env": {}, **arguments})
    return caught.value


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, body: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + body, encoding="utf-8")
        return str(path)

    return write


# Precedence


def test_each_layer_beats_the_one_below(write: Any) -> None:
    write("base.yaml", "optim: {lr: 0.1, momentum: 0.1, name: sgd}\nmachine: {workers: 1}\n")
    top = write(
        "top.yaml", "extends: ./base.yaml\noptim: {lr: 0.2}\nmachine: {workers: 2, device: cpu}\n"
    )
    env = {"SELFSUP_WORKERS": "3", "SELFSUP_DEVICE": "cuda:1"}
    found = resolve(JOB, preset=top, options={"machine.workers": 4}, sets=["train.seed=5"], env=env)
    preset = found.preset
    assert isinstance(preset, PretrainTemporal)
    assert preset.optim.lr == 0.2
    assert (preset.optim.momentum, preset.optim.name) == (0.1, "sgd")
    assert preset.machine.workers == 4
    assert preset.machine.device == "cuda:1"
    assert preset.train.seed == 5
    assert preset.train.epochs == PretrainTemporal().train.epochs
    # Without the layers above, the ones below show.
    assert pretrain(preset=top, env=env).machine.workers == 3
    assert pretrain(preset=top).machine.workers == 2
    assert pretrain(preset=top).machine.device == "cpu"


def test_every_value_says_where_it_came_from(write: Any) -> None:
    base = write("base.yaml", "optim:\n  momentum: 0.1\n")
    top = write("top.yaml", f"extends: {base}\noptim:\n  lr: 0.2\n")
    found = resolve(
        JOB,
        preset=top,
        options={"train.compile": False, "data.source": "motion", "time.kinds": "speed,warp"},
        sets=["optim.name=sgd"],
        env={"SELFSUP_DEVICE": "cpu"},
    )
    assert found.name == top
    assert found.origin["optim.lr"] == f"{top}: line 5"
    assert found.origin["optim.momentum"] == f"extends {base}: line 4"
    assert found.origin["optim.name"] == "--set"
    assert found.origin["optim.weight_decay"] == "default"
    assert found.origin["train.compile"] == "--no-compile"
    assert found.origin["data.source"] == "--data"
    assert found.origin["time.kinds"] == "--transformations"
    assert found.origin["machine.device"] == "$SELFSUP_DEVICE"


def test_origins_name_every_leaf_and_nothing_else() -> None:
    found = resolve(JOB, preset="temporal/r3d-kinetics", env={})

    def paths(data: Any, prefix: str) -> list[str]:
        if isinstance(data, dict):
            return [leaf for key, item in data.items() for leaf in paths(item, f"{prefix}{key}.")]
        if isinstance(data, list) and data and isinstance(data[0], dict):
            return [leaf for i, item in enumerate(data) for leaf in paths(item, f"{prefix}{i}.")]
        return [prefix[:-1]]

    assert sorted(found.origin) == sorted(paths(found.preset.model_dump(mode="json"), ""))
    assert found.origin["time.kinds"].startswith("extends temporal/base: line ")
    assert found.origin["network.arch"].startswith("extends temporal/r3d: line ")
    assert found.origin["train.epochs"].startswith(
        "presets/pretrain/temporal/r3d-kinetics.yaml: line "
    )
    # Inside a block of the file, but not written there.
    assert found.origin["cost.disk_mb"] != "default"
    assert resolve("probe", env={}).origin["cost.disk_mb"] == "default"


def test_lists_are_replaced_and_blocks_merged(write: Any) -> None:
    write("base.yaml", "time: {kinds: [speed, random, warp], speeds: 2}\npaper: {title: T}\n")
    top = write("top.yaml", "extends: ./base.yaml\ntime: {kinds: [speed]}\npaper: {reference: R}\n")
    preset = pretrain(preset=top)
    assert preset.time.kinds == ["speed"]
    assert preset.time.speeds == 2
    assert preset.paper is not None
    assert (preset.paper.title, preset.paper.reference) == ("T", "R")


# Extending


def test_four_presets_may_stand_below_one_another_and_not_five(write: Any) -> None:
    write("p0.yaml", "train: {seed: 7}\n")
    for i in range(1, 6):
        write(f"p{i}.yaml", f"extends: p{i - 1}.yaml\n")
    assert pretrain(preset=write("top.yaml", "extends: p3.yaml\n")).train.seed == 7
    error = refused(preset=write("top.yaml", "extends: p4.yaml\n"))
    assert "more than 4 presets" in str(error)


def test_extending_oneself_is_refused(write: Any) -> None:
    one = write("one.yaml", "extends: two.yaml\n")
    write("two.yaml", "extends: ./one.yaml\n")
    (problem,) = refused(preset=one).problems
    assert (problem.line, problem.path) == (3, "extends")
    assert "leads back" in problem.message


@pytest.mark.parametrize(
    ("value", "words"),
    [("temporal/bse", "did you mean 'temporal/base'"), ("[a, b]", "one preset"), ("''", "unknown")],
)
def test_extending_what_is_not_there(write: Any, value: str, words: str) -> None:
    error = refused(preset=write("a.yaml", f"extends: {value}\n"))
    assert error.problems[0].line == 3
    assert words in str(error)


def test_a_mistake_in_an_extended_preset_is_told_with_its_file(write: Any) -> None:
    base = write("base.yaml", "optim:\n  lr: fast\n")
    top = write("top.yaml", f"extends: {base}\ntrain: {{epochs: 0}}\n")
    assert [(p.file, p.line, p.path) for p in refused(preset=top).problems] == [
        (base, 4, "optim.lr"),
        (top, 4, "train.epochs"),
    ]
    # Corrected above, it is no mistake.
    assert pretrain(preset=write("top.yaml", f"extends: {base}\noptim: {{lr: 1}}")).optim.lr == 1


# Options and --set


def test_options_are_read_as_their_fields(write: Any) -> None:
    preset = pretrain(
        options={
            "machine.workers": "2",
            "time.kinds": "speed, warp",
            "train.precision": "32",
            "optim.lr": 1,
            "data.source": Path("some") / "folder",
            "train.epochs": None,
        }
    )
    assert preset.machine.workers == 2
    assert preset.time.kinds == ["speed", "warp"]
    assert preset.train.precision == "32"
    assert preset.optim.lr == 1
    assert preset.data.source == "some/folder"
    probe = resolve("probe", options={"probe.layers": "conv4"}, env={}).preset
    assert isinstance(probe, Probe)
    assert probe.probe.layers == ["conv4"]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optim.lr=1e-4", "optim.lr", 1e-4),
        ("time.kinds=[speed, warp]", "time.kinds", ["speed", "warp"]),
        ("time.kinds.3=random", None, None),
        ("optim.betas.0=0.5", "optim.betas", (0.5, 0.99)),
        ("train.precision=32", "train.precision", "32"),
        ("description=NO", "description", "NO"),
        ("description='1'", "description", "1"),
        ("train.compile=true", "train.compile", True),
        ("paper=null", "paper", None),
        ("data.root=a=b", "data.root", "a=b"),
        ("paper.title=New", "paper.title", "New"),
    ],
)
def test_set_reads_values_as_files_do(text: str, path: str | None, value: Any) -> None:
    if path is None:
        assert "listed twice" in str(refused(sets=[text]))
        return
    found: Any = pretrain(preset="temporal/c3d", sets=[text])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("optim.lrr=1", "--set optim.lrr: unknown key 'lrr' (did you mean 'lr'?)"),
        ("optm.lr=1", "--set optm.lr: unknown key 'optm' (did you mean 'optim'?)"),
        ("lr=1", "--set lr: unknown key 'lr' (did you mean 'optim.lr'?)"),
        ("optim.lr=-1", "--set optim.lr: must be a number greater than 0; got -1"),
        ("optim.lr=.nan", "--set optim.lr: must be a number greater than 0; got nan"),
        ("optim.lr=yes", "--set optim.lr: must be a number greater than 0; got 'yes'"),
        ("train.epochs=1.5", "--set train.epochs: must be a whole number of at least 1; got 1.5"),
        ("train.epochs.x=1", "--set train.epochs.x: train.epochs is no block, it holds 100"),
        ("time.kinds.4=warp", "--set time.kinds.4: time.kinds is a list, numbered 0 to 3"),
        ("time.kinds.x=warp", "--set time.kinds.x: time.kinds is a list, numbered 0 to 3"),
        ("optim", "--set: write it as --set field.path=value; got 'optim'"),
        ("=1", "--set: write it as --set field.path=value; got '=1'"),
        ("a..b=1", "--set: write it as --set field.path=value; got 'a..b=1'"),
        ("description=&a x", "--set description: anchors (&a) are not used in presets"),
        (
            "optim={lr: 1}",
            "--set optim: takes one value; set each field of a block by itself; got '{lr: 1}'",
        ),
    ],
)
def test_a_wrong_set_is_one_sentence_that_names_it(text: str, line: str) -> None:
    assert str(refused(preset="temporal/c3d", sets=[text])) == line


def test_an_option_and_a_set_must_agree() -> None:
    error = refused(options={"optim.lr": 0.1}, sets=["optim.lr=0.2"])
    assert str(error) == "optim.lr: --lr and --set optim.lr disagree: 0.1 and 0.2"
    assert pretrain(options={"optim.lr": 0.1}, sets=["optim.lr=1e-1"]).optim.lr == 0.1
    assert "disagree" in str(refused(sets=["train.seed=1", "train.seed=2"]))
    assert "disagree" in str(refused(sets=["train.compile=true", "train.compile=1"]))
    assert "disagree" in str(refused(sets=["optim.betas=[0.5, 0.9]", "optim.betas.0=0.6"]))
    assert pretrain(sets=["optim.betas=[0.5, 0.9]", "optim.betas.0=0.5"]).optim.betas == (0.5, 0.9)


def test_the_environment_is_checked_too() -> None:
    error = refused(env={"SELFSUP_WORKERS": "many", "SELFSUP_DEVICE": "gpu"})
    assert sorted(str(error).splitlines()) == [
        "$SELFSUP_DEVICE: machine.device: must be auto, cpu, cuda or cuda:N; got 'gpu'",
        "$SELFSUP_WORKERS: machine.workers: must be a whole number from 0 to 256 or auto; "
        "got 'many'",
    ]
    assert pretrain(env={"SELFSUP_WORKERS": " ", "SELFSUP_DEVICE": ""}).machine.workers == "auto"
    assert pretrain(env={"SELFSUP_WORKERS": "auto"}).machine.workers == "auto"


# Mistakes


def test_all_mistakes_come_at_once_sorted_by_line(write: Any) -> None:
    path = write(
        "a.yaml",
        "train:\n  epochs: 1.5\noptim:\n  nam: sgd\n  lr: '3'\nnetwork: {arch: c4d}\n"
        "data: {source: kinetcs}\ntime: {kinds: [speed, wrap]}\nmonitor:\nexpect: [{metric: m}]\n",
    )
    error = refused(preset=path, options={"train.seed": -1})
    assert str(error).splitlines() == [
        f"{path}:4: train.epochs: must be a whole number of at least 1; got 1.5",
        f"{path}:6: optim.nam: unknown key 'nam' (did you mean 'name'?)",
        f"{path}:7: optim.lr: must be a number greater than 0; got '3'",
        f"{path}:8: network.arch: unknown network 'c4d' (did you mean 'c3d'?); known are c3d, r3d, "
        "r2plus1d, r3d_18, mc3_18, r2plus1d_18",
        f"{path}:9: data.source: unknown dataset 'kinetcs' (did you mean 'kinetics'?); known are "
        "motion, ucf101, hmdb51, kinetics, and a folder or CSV file of your own by its path",
        f"{path}:10: time.kinds.1: must be one of speed, random, periodic, warp; got 'wrap' "
        "(did you mean 'warp'?)",
        f"{path}:11: monitor: must be a block with the keys every_epochs, videos, draws, "
        "knn_videos, knn_k; got nothing",
        f"{path}:12: expect.0.value: is missing; it must be a number",
        f"{path}:12: expect.0.tolerance: is missing; it must be a number of at least 0",
        "--seed: train.seed: must be a whole number of at least 0; got -1",
    ]
    assert error.exit_status == 2
    assert [(p.file, p.line, p.path) for p in error.problems][1] == (path, 6, "optim.nam")


def test_twenty_lines_are_enough(write: Any) -> None:
    path = write("a.yaml", "".join(f"wrong{i}: 1\n" for i in range(40)))
    error = refused(preset=path)
    lines = str(error).splitlines()
    assert len(lines) == 20
    assert lines[-1] == "… and 21 more"
    assert len(error.problems) == 40
    exactly = refused(preset=write("b.yaml", "".join(f"wrong{i}: 1\n" for i in range(20))))
    assert len(str(exactly).splitlines()) == 20
    assert "more" not in str(exactly).splitlines()[-1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("time: {kinds: [random, warp]}", "time.kinds: 'speed' must be among"),
        ("time: {kinds: [speed], speed_loss: false}", "time.kinds: with speed alone"),
        ("time: {kinds: [speed, speed]}", "time.kinds: a transformation is listed twice"),
        ("time: {speeds: 1}", "time.speeds: with one speed"),
        ("time: {frames: 32}", "time.min_frames: must be at least"),
        ("augment: {crop: 129}", "augment.crop: 129 does not fit into frames of 128×171"),
        ("augment: {scale: [0.9, 0.8]}", "augment.scale: the lower bound"),
        ("train: {accumulate: 29}", "train.accumulate: a batch of 28"),
        ("machine: {device: 'cuda:x'}", "machine.device: must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_values_must_fit_each_other(write: Any, body: str, words: str) -> None:
    assert words in str(refused(preset=write("a.yaml", body)))


def test_what_follows_from_a_line_of_broken_yaml_is_not_told_again(write: Any) -> None:
    (problem,) = refused(preset=write("a.yaml", "optim: {lr: *x}\n")).problems
    assert "aliases" in problem.message


def test_a_newer_format_asks_for_a_newer_selfsup(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("version: 2\nmethod: temporal\n", encoding="utf-8")
    assert "upgrade selfsup" in str(refused(preset=str(path)))
    path.write_text("method: temporal\n", encoding="utf-8")
    assert str(refused(preset=str(path))) == f"{path}:1: version: is missing; write `version: 1`"
    path.write_text("version: 1\n", encoding="utf-8")
    assert "method: is missing; write `method: temporal`" in str(refused(preset=str(path)))


def test_a_preset_of_another_job_is_refused_in_words() -> None:
    said = "'temporal' is a preset of `selfsup pretrain temporal`, not of `selfsup probe`"
    assert said in str(refused("probe", preset="temporal/c3d"))
    assert "`selfsup probe`, not of `selfsup retrieve`" in str(
        refused("retrieve", preset="probe/temporal")
    )


def test_messages_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        HEAD + 'description: ["\\e[31m\\u202e\\n"]\n"\\e]0;x\\a": 1\n', encoding="utf-8"
    )
    error = refused(preset=str(path))
    assert len(str(error).splitlines()) == len(error.problems) == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", str(error))


# Names and places


@pytest.mark.parametrize("name", ["c3d", "temporal/c3d", "pretrain/temporal/c3d"])
def test_the_ways_to_name_a_preset(name: str) -> None:
    assert resolve(JOB, preset=name, env={}).name == "temporal/c3d"


def test_the_users_own_folder_comes_before_the_built_in_presets(write: Any, tmp_path: Path) -> None:
    write("own/pretrain/temporal/c3d.yaml", "train: {seed: 11}\n")
    write("own/pretrain/temporal/mine.yaml", "extends: temporal/r3d\ndescription: Mine\n")
    env = {"SELFSUP_PRESET_PATH": f"/nonexistent:{tmp_path / 'own'}"}
    assert pretrain(preset="temporal/c3d", env=env).train.seed == 11
    assert pretrain(env=env).train.seed == 11
    assert pretrain(preset="temporal/mine", env=env).network.arch == "r3d"
    infos = {info.name: info for info in list_presets(env)}
    assert infos["temporal/mine"].description == "Mine"
    assert infos["temporal/c3d"].path == tmp_path / "own/pretrain/temporal/c3d.yaml"
    assert infos["temporal/r3d"].job == JOB


def test_a_broken_preset_does_not_spoil_the_list(write: Any, tmp_path: Path) -> None:
    write("own/pretrain/temporal/broken.yaml", "optim: [")
    infos = list_presets({"SELFSUP_PRESET_PATH": str(tmp_path / "own"), "SELFSUP_DEVICE": "no"})
    broken = {info.name: info.problem for info in infos if info.problem}
    assert list(broken) == ["temporal/broken"]
    assert "not valid YAML" in str(broken["temporal/broken"])


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("temporal/c3", "did you mean 'temporal/c3d'"),
        ("./none.yaml", "no such file"),
        ("../../nothing/here", "no such file"),
        ("temporal/../../x", "unknown preset"),
        ("/etc/passwd", "/etc/passwd:1: holds no `key: value` lines"),
        ("", "unknown preset"),
        (".", "unknown preset"),
        ("/etc", "folder"),
        ("x" * 5000, "unknown preset"),
        ("a\0b.yaml", "cannot be read"),
        ("~nobody-there/x", "no such file"),
    ],
)
def test_unknown_presets(reference: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(JOB, preset=reference, env={})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "temporal/c3d"),
        ({"network.arch": "r2plus1d"}, "temporal/r2plus1d"),
        ({"network.arch": "r2plus1d", "data.source": "kinetics"}, "temporal/r2plus1d-kinetics"),
        ({"data.source": "motion"}, "temporal/c3d-motion"),
        ({"data.source": "hmdb51"}, "temporal/c3d"),
        ({"data.source": "./motion"}, "temporal/c3d"),
        ({"data.source": "/data/actions", "network.arch": "r3d_18"}, "temporal/r3d_18"),
        ({"network.arch": "unheard-of"}, "temporal/base"),
        ({"network.arch": "../c3d"}, "temporal/base"),
    ],
)
def test_the_most_specific_preset_is_the_default(options: dict[str, str], name: str) -> None:
    assert default_preset(JOB, options, {}) == name


def test_the_default_preset_follows_set_too() -> None:
    assert resolve(JOB, sets=["network.arch=r3d"], env={}).name == "temporal/r3d"
    assert resolve("probe", env={}).name == "probe/temporal"
    assert resolve("retrieve", env={}).name == "retrieve/temporal"


def test_the_job_of_a_preset_is_read_from_it(write: Any, tmp_path: Path) -> None:
    assert job_of("temporal/c3d", {}) == JOB
    assert job_of("pretrain/temporal/table-5.1/speed", {}) == JOB
    assert job_of("probe/temporal", {}) == "probe"
    assert job_of(write("a.yaml", ""), {}) == JOB
    path = tmp_path / "b.yaml"
    path.write_text("version: 1\n", encoding="utf-8")
    with pytest.raises(PresetError, match="does not say which job"):
        job_of(str(path), {})


def test_names_are_offered_whatever_their_case() -> None:
    assert "did you mean 'ucf101'" in str(refused(options={"data.source": "UCF101"}))
    assert "did you mean 'r3d_18'" in str(refused(options={"network.arch": "R3D_18"}))


def test_an_unknown_job_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'retrieve'"):
        resolve("retreive", env={})


# What presets become


def test_a_resolved_preset_repeats_itself(tmp_path: Path) -> None:
    first = resolve(
        JOB,
        options={"network.arch": "r3d", "train.precision": "32"},
        sets=["optim.lr=1e-5"],
        env={},
    )
    path = tmp_path / "preset.yaml"
    path.write_text(dump(first.preset), encoding="utf-8")
    assert resolve(JOB, preset=str(path), env={}).preset == first.preset


def test_identity_leaves_out_what_cannot_change_the_result() -> None:
    plain = pretrain()
    same = pretrain(
        sets=[
            "machine.workers=2",
            "machine.device=cpu",
            "train.checkpoint_steps=5",
            "train.keep=9",
            "data.max_bad=0.5",
            "description=other",
            "paper=null",
        ]
    )
    assert plain != same
    assert identity(plain) == identity(same)
    assert json.loads(json.dumps(identity(plain))) == identity(plain)
    assert "machine" not in identity(plain)
    for change in ("optim.lr=1", "data.source=motion", "time.speeds=2", "train.seed=1"):
        assert identity(plain) != identity(pretrain(preset="temporal/c3d", sets=[change]))


def test_a_copy_is_the_users_own(tmp_path: Path) -> None:
    copy = copy_preset("temporal/c3d", tmp_path, {})
    assert copy == tmp_path / "c3d.yaml"
    first, rest = copy.read_text(encoding="utf-8").split("\n", 1)
    schema = Path(first.removeprefix("# yaml-language-server: $schema="))
    assert json.loads(schema.read_text(encoding="utf-8"))["definitions"]
    assert "yaml-language-server" not in rest
    assert pretrain(preset=str(copy)) == pretrain(preset="temporal/c3d")
    copy.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        copy_preset("temporal/c3d", copy, {})
    assert copy.read_text(encoding="utf-8") == "mine"
    with pytest.raises(MachineError, match="cannot write"):
        copy_preset("temporal/c3d", tmp_path / "none" / "c3d.yaml", {})


def test_a_resolved_job_cannot_be_changed() -> None:
    found: Resolved = resolve(JOB, env={})
    with pytest.raises(ValueError, match="frozen"):
        found.preset.description = "x"
