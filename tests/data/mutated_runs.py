"""The files of a run: how one is made, and by which commands it is read."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from mutants import Kind, said
from PIL import Image
from videos import picture

from selfsup_cli.errors import InputError
from selfsup_cli.runs.report import Curve, Finding, Picture, Report, accuracy
from selfsup_cli.runs.run import Run


def _begun(folder: Path, name: str) -> Run:
    os.environ["SELFSUP_RUNS"] = str(folder)
    return Run.create_or_continue(
        folder, name, preset={"version": 1, "seed": 3}, identity={"seed": 3}, command=["selfsup"],
        job="probe", seed=3, dataset={"name": "motion", "fingerprint": "f"}, parents=[],
    )  # fmt: skip


def _complete(name: str, folder: Path) -> Path:
    report = Report(
        job="probe",
        run="mutant",
        command="selfsup probe",
        created="2026-01-02T03:04:05.678+00:00",
        findings=[Finding(text="It learns.", verdict="good")],
        measurements=[
            accuracy(
                "linear probe", 30, 100, task="probe", subject="learned", dataset="motion",
                split="test", layer="conv1", chance=12.5, protocol={"epochs": 3, "flip": True},
            )
        ],
        curves=[Curve(name="loss", x_label="step", y_label="loss", points=[(0, 2.0), (1, 1.0)])],
        pictures=[Picture(file="pictures/sheet.png", caption="A sheet.")],
    )  # fmt: skip
    with _begun(folder, "mutant") as run:
        run.set_status("running", step=0)
        run.log(1, loss=2.0)
        run.record_bad("a.mp4", "is empty")
        Image.fromarray(picture(0, 16, 24)).save(run.picture("sheet.png"))
        run.write_report(report)
        run.finish(step=1)
    shutil.copytree(folder / "mutant", folder / "other")
    return folder / "mutant" / name


def _read_complete(path: Path) -> Any:
    """By every command that looks at a run, and whatever it finds in the others."""
    commands = (
        ("runs", "show", "mutant"),
        ("report", "mutant"),
        ("report", "mutant", "--format", "html"),
        ("report", "mutant", "other"),
        ("runs", "resume", "mutant", "--quiet"),
        ("runs", "verify", "mutant"),
    )
    status, listed = said("runs", "list", "--json")
    assert status == 0
    assert {one["name"] for one in json.loads(listed)["data"]["runs"]} >= {"other"}
    found = [said(*command) for command in commands]
    if found[-1][0]:
        raise InputError("it is damaged")
    return found


def _unfinished(name: str, folder: Path) -> Path:
    with _begun(folder, "mutant") as run:
        run.set_status("running", step=0)
        for step in range(1, 9):
            run.log(step, loss=1 / step)
        (folder / "mark").write_text(json.dumps(run.metrics_mark()))
        run.record_bad("a.mp4", "is empty")
        run.set_status("preempted", step=8)
    shutil.copytree(folder / "mutant", folder / "whole")
    return folder / "mutant" / name


def _read_unfinished(path: Path) -> Any:
    """Looked at, and gone on with; put back as it was before."""
    folder = path.parents[1]
    damaged = path.read_bytes()
    assert said("runs", "list")[0] == 0
    said("runs", "show", "mutant")
    verified, _ = said("runs", "verify", "mutant")
    try:
        with _begun(folder, "mutant") as run:
            run.truncate_metrics(8, json.loads((folder / "mark").read_text()))
            run.log(9, loss=0.1)
            run.record_bad("b.mp4", "is empty")
            steps = [row.get("step") for row in run.metrics()]
            assert steps[-1] == 9
            assert all(isinstance(step, int) for step in steps)
    finally:
        shutil.rmtree(folder / "mutant")
        shutil.copytree(folder / "whole", folder / "mutant")
        path.write_bytes(damaged)
    if verified:
        raise InputError("it is damaged, and was gone on with")
    return steps


RUNS: dict[str, Kind] = {
    **{
        f"{name} of a complete run": Kind(partial(_complete, name), _read_complete, exact=exact)
        for name, exact in {
            "run.json": True,
            "status.json": False,
            "metrics.jsonl": True,
            "report.json": True,
            "manifest.json": True,
            "preset.yaml": True,
            "quarantine.jsonl": True,
            "pictures/sheet.png": True,
        }.items()
    },
    **{
        f"{name} of an unfinished run": Kind(partial(_unfinished, name), _read_unfinished)
        for name in (
            "run.json",
            "status.json",
            "metrics.jsonl",
            "preset.yaml",
            "quarantine.jsonl",
        )
    },
}
