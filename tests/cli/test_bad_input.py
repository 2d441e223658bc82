"""Bad input ends in one clear sentence: exit status 2, nothing written, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.run import Run
from selfsup_cli.runs.seal import opened, sealed

Selfsup = Callable[..., Any]
PRETRAIN = ("pretrain", "temporal", "--data", "motion")


def refused(told: Any, *expected: str) -> str:
    """Check that a command line was refused as it should be; gives the sentence."""
    if isinstance(told, subprocess.CompletedProcess):
        status, out, err = told.returncode, str(told.stdout), str(told.stderr)
    else:
        status, out, err = told.status, str(told.out), str(told.err)
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("selfsup: error: ")]
    assert len(errors) == 1, err
    for part in expected:
        assert part in errors[0]
    return errors[0]


def nothing_written() -> bool:
    runs = Path(os.environ["SELFSUP_RUNS"])
    return not runs.exists() or list(runs.iterdir()) == []


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small backbone as pretraining leaves it."""
    path = tmp_path / "weights" / "backbone.safetensors"
    path.parent.mkdir()
    backbone = build("c3d", width=0.125, crop=32, resize=(40, 40), seed=0)
    save_backbone(path, backbone, {"data": "motion"})
    return path


# Names, types, ranges


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pretrain", "temporl"), ("unknown method 'temporl'", "did you mean 'temporal'?")),
        (("prob",), ("unknown command 'prob'", "did you mean 'probe'?")),
        ((*PRETRAIN, "--archh", "c3d"), ("unknown option '--archh'", "'--arch'")),
        ((*PRETRAIN, "--arch", "r2plus1"), ("--arch", "'r2plus1'", "did you mean 'r2plus1d'?")),
        (("probe", "--layer", "convv4"), ("--layer", "'convv4'", "did you mean 'conv4'?")),
        (("probe", "--dataset", "ucf11"), ("unknown dataset 'ucf11'", "did you mean 'ucf101'?")),
        ((*PRETRAIN, "--preset", "temporal/c3"), ("'temporal/c3'", "mean 'temporal/c3d'?")),
        ((*PRETRAIN, "--set", "optim.lrr=1"), ("optim.lrr: unknown key 'lrr'", "'lr'?")),
        ((*PRETRAIN, "--lr", "fast"), ("optim.lr: must be a number", "'fast'")),
        ((*PRETRAIN, "--epochs", "0"), ("train.epochs: must be", "at least 1; got 0")),
        ((*PRETRAIN, "--crop", "7"), ("augment.crop: must be", "from 16 to 512; got 7")),
        ((*PRETRAIN, "--precision", "fp17"), ("one of auto, 32, bf16, fp16", "'fp16'?")),
        ((*PRETRAIN, "--transformations", "warp"), ("'speed' must be among",)),
        ((*PRETRAIN, "--run", "../mine"), ("'../mine' cannot name a run",)),
        ((*PRETRAIN, "--split", "0"), ("data.split: must be",)),
    ],
)
def test_wrong_names_types_and_ranges(
    selfsup: Selfsup, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    refused(selfsup(*arguments), *said)
    assert nothing_written()


def test_all_mistakes_are_told_at_once_and_as_json(selfsup: Selfsup) -> None:
    told = selfsup(*PRETRAIN, "--lr", "-1", "--epochs", "x", "--set", "a.b=1", "--json")
    assert told.status == 2
    document = json.loads(told.out)
    assert (document["ok"], document["run"], document["error"]["code"]) == (False, None, 2)
    assert told.err.count("selfsup: error: ") == 3
    assert nothing_written()


def test_a_layer_of_another_network(selfsup: Selfsup, weights: Path) -> None:
    for command in ("probe", "retrieve"):
        told = selfsup(command, "--from", str(weights), "--data", "motion", "--layer", "layer4")
        refused(told, "unknown layer 'layer4'", "conv1, conv2, conv3, conv4, conv5, fc1, fc2")
    assert nothing_written()


# Data


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("ucf101", ("CLASS/v_CLASS_gXX_cYY.avi", "trainlist0N.txt")),
        ("hmdb51", ("CLASS/*.avi", "CLASS_test_splitN.txt")),
        ("kinetics", ("train.csv", "youtube_id", "train/[LABEL/]ID_000010_000020.mp4")),
    ],
)
def test_a_dataset_that_is_not_there(
    selfsup: Selfsup,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    layout: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrain = ("pretrain", "temporal", "--arch", "r2plus1d", "--data", name)
    refused(selfsup(*pretrain), f"folder {name} of $SELFSUP_DATA, which is not set", *layout)
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    refused(selfsup(*pretrain), str(tmp_path / name), *layout)
    (tmp_path / name).mkdir()
    refused(selfsup(*pretrain), str(tmp_path / name), *layout)
    assert nothing_written()


def test_a_labelled_command_names_missing_data_before_anything_else(
    selfsup: Selfsup, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = selfsup("probe", "--layer", "conv4", "--dataset", "ucf101", "--from", str(weights))
    refused(told, "folder ucf101 of $SELFSUP_DATA", "trainlist0N.txt")
    assert nothing_written()


def test_folders_without_a_usable_video(selfsup: Selfsup, tmp_path: Path) -> None:
    here = tmp_path / "videos"
    refused(selfsup("pretrain", "temporal", "--data", str(here)), "there is no folder", str(here))
    here.mkdir()
    refused(selfsup("pretrain", "temporal", "--data", str(here)), "no video files", "it is empty")
    (here / "notes.txt").write_text("not a video")
    refused(selfsup("pretrain", "temporal", "--data", str(here)), "found instead: 1 .txt")
    for number in range(3):
        (here / f"empty{number}.mp4").touch()
        (here / f"text{number}.avi").write_text("not a video")
    said = refused(selfsup("pretrain", "temporal", "--data", str(here)), "can be read")
    assert "the file is empty" in said
    assert nothing_written()


def test_labels_that_are_not_there_or_differ(
    selfsup: Selfsup, weights: Path, tmp_path: Path
) -> None:
    probe = ("probe", "--from", str(weights), "--data")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(4):
        (flat / f"{number}.mp4").touch()
    refused(selfsup(*probe, str(flat)), "has no labels", "class folders (CLASS/video.mp4)")
    parted = tmp_path / "parted"
    for name in ("train/run", "train/walk", "test/run", "test/jump"):
        (parted / name).mkdir(parents=True)
        (parted / name / "clip.mp4").touch()
    differ = ("differ between train and test", "testing alone has 'jump'", "'walk'")
    refused(selfsup(*probe, str(parted)), *differ)
    rows = "path,label,split\ntrain/run/clip.mp4,run,train\ntrain/walk/clip.mp4,walk,train\n"
    table = parted / "list.csv"
    table.write_text(rows + "test/jump/clip.mp4,jump,test\n")
    refused(selfsup(*probe, str(table)), *differ)
    table.write_text("path\ntrain/run/clip.mp4\n")
    refused(selfsup(*probe, str(table)), f"{table}:1", "no column 'label'")
    assert nothing_written()


# Weights


class Code:
    """Runs when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_weights_that_are_not_what_they_should_be(
    selfsup: Selfsup, weights: Path, tmp_path: Path
) -> None:
    sidecar = weights.with_name(weights.name + ".json")
    good, facts = weights.read_bytes(), sidecar.read_text()

    def retrieve(path: Path = weights) -> Any:
        return selfsup("retrieve", "--data", "motion", "--from", str(path))

    weights.write_bytes(good[:20_000])
    refused(retrieve(), str(weights), "is truncated: 20,000 of")
    weights.write_bytes(good[:-4] + b"abcd")
    refused(retrieve(), str(weights), "does not have the SHA-256")
    weights.write_bytes(good)
    for arch, said in (
        ("r3d", ("does not hold the weights of r3d", "missing: stem.conv.weight")),
        ("c4d", (str(sidecar), "'c4d'", "did you mean 'c3d'?")),
    ):
        other = opened(json.loads(facts))
        other["spec"]["arch"] = arch
        sidecar.write_text(json.dumps(sealed(other)))
        refused(retrieve(), *said)
    sidecar.write_text(facts.replace('"c3d"', '"r3d"'))
    refused(retrieve(), str(sidecar), "is damaged")
    sidecar.write_text(facts[:40])
    refused(retrieve(), str(sidecar))
    sidecar.unlink()
    refused(retrieve(), "lacks its sidecar")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"layer.weight": torch.zeros(3)}, foreign)
    refused(retrieve(foreign), "lacks its sidecar")
    refused(retrieve(tmp_path / "none.safetensors"), "there are no weights at")
    assert nothing_written()


def test_pickled_code_is_not_run(selfsup: Selfsup, weights: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    sidecar = weights.with_name(weights.name + ".json")
    for name in ("zip.pt", "zip.ckpt", "zip.safetensors", "zip.bin"):
        torch.save({"state": Code(trace)}, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "zip.pt") as archive:
        inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        plain = archive.read(inside)
    for name in ("plain.pkl", "plain.safetensors"):
        (tmp_path / name).write_bytes(plain)
    for path in sorted(tmp_path.glob("*.*")):
        for beside in (False, True):
            if beside:
                shutil.copy(sidecar, path.with_name(path.name + ".json"))
            told = selfsup("retrieve", "--data", "motion", "--from", str(path))
            refused(told, str(path), "is a pickle", "never read")
    assert not trace.exists()
    assert nothing_written()


# Runs


def make_run(name: str, *, finished: bool, arch: str = "c3d") -> Path:
    run = Run.create_or_continue(
        Path(os.environ["SELFSUP_RUNS"]), name, preset="", identity={"network": {"arch": arch}},
        command=["selfsup"], job="pretrain/temporal", seed=0,
        dataset={"name": "motion", "fingerprint": "f"}, parents=[],
    )  # fmt: skip
    with run:
        run.set_status("preempted", step=4)
        if finished:
            run.finish(step=8)
    return run.path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_that_do_not_fit(selfsup: Selfsup) -> None:
    probe = ("probe", "--data", "motion")
    refused(selfsup(*probe), "there are no runs in", "selfsup pretrain")
    half = make_run("half", finished=False)
    make_run("bare", finished=True)
    before = contents(half.parent)
    refused(selfsup(*probe, "--from", "half"), "run half is not finished (preempted at step 4)")
    refused(selfsup(*probe, "--from", "hal"), "there is no run 'hal'", "did you mean 'half'?")
    told = selfsup(*probe)
    refused(told, "no run in", "fits")
    assert "half: preempted at step 4" in told.err
    assert "bare: it has no backbone" in told.err
    refused(selfsup("runs", "show", "hal"), "did you mean 'half'?")
    refused(selfsup("runs", "resume", "hal"), "did you mean 'half'?")
    assert contents(half.parent) == before


# Processes of their own


def test_it_is_so_in_a_process_of_its_own(
    process: Callable[..., subprocess.CompletedProcess[str]], weights: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    environment = {"SELFSUP_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "broken.mp4").write_bytes(b"broken")
    (tmp_path / "one" / "empty.mp4").touch()
    weights.write_bytes(weights.read_bytes()[:1000])
    for arguments, said in (
        (("pretrain", "temporal", "--data", "one"), "can be read"),
        (("retrieve", "--data", "motion", "--from", str(weights)), "is truncated"),
        (("pretrain", "temporal", "--arch", "r2plus1d", "--data", "kinetics"), "$SELFSUP_DATA"),
    ):
        refused(process(*arguments, env=environment), said)
    assert not runs.exists()
    assert list((tmp_path / "one").iterdir()) != []
