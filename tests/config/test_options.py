"""Options come from the fields of presets, and from nowhere else."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from selfsup_cli.config.blocks import Optim, Preset
from selfsup_cli.config.evaluation import Probe, Retrieve
from selfsup_cli.config.fields import expected
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import Option, flag_for, options_of
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.temporal import PretrainTemporal


def by_path(model: type[Preset]) -> dict[str, Option]:
    return {option.path: option for option in options_of(model)}


def test_an_option_is_its_field() -> None:
    lr = by_path(PretrainTemporal)["optim.lr"]
    info = Optim.model_fields["lr"]
    assert lr.flags == ("--lr",)
    assert (lr.type, lr.default, lr.default_text) == (float, 3e-4, "0.0003")
    assert lr.help == info.description
    assert lr.wanted == "a number greater than 0"
    assert not lr.is_bool
    assert not lr.is_list


def test_kinds_of_options() -> None:
    options = by_path(PretrainTemporal)
    assert options["train.compile"].flags == ("--compile", "--no-compile")
    assert options["train.compile"].is_bool
    assert options["train.compile"].default_text == "no"
    kinds = options["time.kinds"]
    assert kinds.is_list
    assert (kinds.type, kinds.choices) == (str, ("speed", "random", "periodic", "warp"))
    assert kinds.default_text == "speed,random,periodic,warp"
    assert options["data.source"].flags == ("--data", "--dataset")
    assert options["data.source"].names == "datasets"
    assert (options["machine.workers"].type, options["machine.workers"].choices) == (str, ())
    assert options["train.max_steps"].type is int
    assert options["train.precision"].choices == ("auto", "32", "bf16", "fp16")
    assert options["augment.crop"].unit == "pixels"
    assert by_path(Probe)["probe.layers"].is_list
    assert not by_path(Retrieve)["neighbours.layer"].is_list


@pytest.mark.parametrize("job", JOBS)
def test_no_flag_is_declared_twice_in_a_job(job: str) -> None:
    flags = [flag for option in options_of(JOBS[job]) for flag in option.flags]
    assert len(flags) == len(set(flags))
    assert all(re.fullmatch(r"--[a-z][a-z0-9-]*", flag) for flag in flags)


@pytest.mark.parametrize("job", JOBS)
def test_every_option_has_help_and_sets_its_field(job: str) -> None:
    base: Any = resolve(job, env={}).preset
    for option in options_of(JOBS[job]):
        assert option.help.endswith(".")
        found: Any = base
        for part in option.path.split("."):
            found = getattr(found, part)
        given = resolve(job, options={option.path: found}, env={}).preset
        if option.path not in ("network.arch", "data.source"):
            assert given == base
        if option.choices:
            value = option.choices[-1]
            if option.path == "time.kinds":
                value = "speed,warp"
            if option.path == "train.precision":
                value = "bf16"  # some steps cannot be taken in fp16
            origin = resolve(job, options={option.path: value}, env={}).origin
            assert origin[option.path] == option.flags[0]


def test_the_flag_of_a_value() -> None:
    assert flag_for(PretrainTemporal, "train.compile", True) == "--compile"
    assert flag_for(PretrainTemporal, "train.compile", False) == "--no-compile"
    assert flag_for(PretrainTemporal, "optim.momentum", 1) == "--set optim.momentum"


def test_what_a_field_takes_in_words() -> None:
    said = {
        name: expected(info.annotation, info.metadata) for name, info in Optim.model_fields.items()
    }
    assert said["name"] == "one of adamw, adam, sgd"
    assert said["momentum"] == "a number of at least 0 and less than 1"
    assert said["final_factor"] == "a number from 0 to 1"
    assert said["warmup_steps"] == "a whole number of at least 0"
    assert said["betas"] == "a list of 2, each a number from 0 to 1"
    assert said["clip_grad"] == "a number greater than 0"
    assert said["decay_all"] == "true or false"
    assert len(get_args(Optim.model_fields["betas"].annotation)) == 2
