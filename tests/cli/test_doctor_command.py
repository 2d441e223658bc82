"""`selfsup doctor`: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from selfsup_cli.jobs import doctor
from selfsup_cli.jobs.doctor import Check

SOUND = [
    Check("versions", "Python", "ok", "3.11"),
    Check("data", "ucf101", "note", "belongs elsewhere", "set it"),
]
BROKEN = [*SOUND, Check("video", "h264", "broken", "does not decode\x1b[31m", "reinstall av")]


def test_the_real_one_in_a_process_of_its_own(process: Callable[..., Any]) -> None:
    told = process("doctor", "--json")
    assert told.returncode == 0, told.stderr
    checks = {one["name"]: one for one in json.loads(told.stdout)["data"]["checks"]}
    assert {"Python", "torch", "torchvision", "av", "h5py", "CPU", "h264", "runs"} <= set(checks)
    assert "FFmpeg" in checks["av"]["found"]
    assert "HDF5" in checks["h5py"]["found"]


def test_lines_for_people(selfsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: SOUND)
    told = selfsup("doctor")
    assert told.status == 0
    assert told.out.splitlines() == [
        "versions",
        "  ok       Python  3.11",
        "data",
        "  note     ucf101  belongs elsewhere; set it",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_broken_is_an_error(
    selfsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: BROKEN)
    told = selfsup("doctor", *(["--json"] if as_json else []))
    assert told.status == 3
    assert told.err.splitlines()[-1] == ("selfsup: error: h264: does not decode; reinstall av")
    if as_json:
        document = json.loads(told.out)
        assert document["ok"] is False
        assert [one["name"] for one in document["error"]["problems"]] == ["h264"]
        assert len(document["data"]["checks"]) == 3
    else:
        assert "  broken   h264    does not decode; reinstall av" in told.out.splitlines()
