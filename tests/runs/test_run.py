"""The run directory: made once, gone on with, refused when different, whole at the end."""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs import lock as locks
from selfsup_cli.runs.metrics import read_rows
from selfsup_cli.runs.report import Report, now
from selfsup_cli.runs.run import Run, new_name

IDENTITY: dict[str, Any] = {
    "network": {"arch": "c3d", "width": 1.0},
    "optim": {"lr": 3e-4, "betas": [0.9, 0.99]},
    "data": {"source": "motion"},
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a lock."""
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.05)


def begin(runs: Path, name: str = "mine", **changes: Any) -> Run:
    settings: dict[str, Any] = {
        "preset": "optim:\n  lr: 3e-4\n",
        "identity": IDENTITY,
        "command": ["selfsup", "pretrain", "temporal"],
        "job": "pretrain/temporal",
        "seed": 3,
        "dataset": {"name": "motion", "fingerprint": "f00"},
        "parents": [],
    }
    return Run.create_or_continue(runs, name, **{**settings, **changes})


def report(text: str = "learned") -> Report:
    return Report(
        job="probe", run="mine", command="selfsup", created=now(),
        findings=[{"text": text, "verdict": "good"}],  # type: ignore[list-item]
    )  # fmt: skip


def finished(runs: Path, name: str = "mine", **changes: Any) -> Run:
    with begin(runs, name, **changes) as run:
        run.log(1, loss=0.5)
        run.write_report(report())
        (run.path / "backbone.safetensors").write_bytes(b"weights")
        run.picture("curves.png").write_bytes(b"png")
        run.finish(step=1)
    return run


# -- made


def test_a_new_run_says_where_it_comes_from(tmp_path: Path) -> None:
    parents = [{"run": "older", "sha256": "ab", "arch": "r3d"}]
    with begin(tmp_path / "a" / "runs", parents=parents) as run:
        assert (run.name, run.path) == ("mine", tmp_path / "a" / "runs" / "mine")
        assert (run.status.state, run.complete, run.notices) == ("created", False, [])
        assert (run.path / "preset.yaml").read_text() == "optim:\n  lr: 3e-4\n"
        plain = json.loads((run.path / "run.json").read_text())
        assert plain["schema"] == "selfsup.run/1"
        assert plain["command"] == ["selfsup", "pretrain", "temporal"]
        # What it started from is the network, not what its preset would have built from nothing.
        assert (plain["seed"], plain["arch"], plain["data"]) == (3, "r3d", "motion")
        assert plain["dataset"]["fingerprint"] == "f00"
        assert plain["parents"] == parents
        assert plain["identity"] == IDENTITY
        assert plain["machine"]["host"] == platform.node()
        assert plain["machine"]["python"] == platform.python_version()
        assert plain["versions"]["torch"]
        status = json.loads((run.path / "status.json").read_text())
        assert status["schema"] == "selfsup.status/1"
        [attempt] = status["attempts"]
        assert (attempt["pid"], attempt["end"]) == (os.getpid(), None)


def test_a_preset_may_be_plain_data(tmp_path: Path) -> None:
    with begin(tmp_path, preset={"optim": {"lr": 3e-4}}) as run:
        assert json.loads((run.path / "preset.yaml").read_text()) == {"optim": {"lr": 3e-4}}


@pytest.mark.parametrize(
    "name", ["", "latest", ".hidden", "a/b", "../x", "a b", "x\n", "-rf", "é", "n" * 151, "$(x)"]
)
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        begin(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_new_names_can_name_a_run(job: str, arch: str | None, data: str | None) -> None:
    from selfsup_cli.runs.folder import checked_name

    name = new_name("x" + job, arch, data)
    assert checked_name(name) == name
    assert new_name("x" + job, arch, data) != name


def test_a_requeued_job_finds_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    name = new_name("temporal", "c3d", "motion", {"seed": 0})
    assert name.startswith("temporal-c3d-motion-job4711-")
    assert new_name("temporal", "c3d", "motion", {"seed": 0}) == name
    assert new_name("temporal", "c3d", "motion", {"seed": 1}) != name
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert "-job4700_3-" in new_name("temporal", "c3d", "motion")
    monkeypatch.setenv("SLURM_JOB_ID", "../x")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert "job" not in new_name("temporal", "c3d", "motion")


def test_new_names_read_as_design_says() -> None:
    name = new_name("temporal", "c3d", "../data/actions/")
    method, arch, data, day, time, short = name.split("-")
    assert (method, arch, data) == ("temporal", "c3d", "actions")
    assert (len(day), len(time), len(short)) == (8, 6, 4)
    assert new_name("probe", None, "clips.v1.csv").startswith("probe-clips_v1-2")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is in the way"):
        begin(tmp_path, "file")
    with pytest.raises(InputError, match="Not a directory"):
        begin(tmp_path / "file" / "runs")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(InputError, match=r"other things than a run \(cat\.jpg"):
        begin(tmp_path, "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


# -- gone on with


def test_the_same_again_goes_on(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        run.log(1, loss=1.0)
        run.log(2, loss=0.5)
        run.set_status("preempted", step=2, reason="SIGTERM")
    first = (run.path / "run.json").read_bytes()
    with begin(tmp_path, command=["other", "words"], seed=3) as again:
        assert again.notices == []
        assert again.status.state == "running"
        assert (again.status.step, again.status.reason) == (2, None)
        assert [attempt.reason for attempt in again.attempts] == ["SIGTERM", None]
        assert again.attempts[0].end is not None
        again.truncate_metrics(1)
        again.log(2, loss=0.25)
    assert (run.path / "run.json").read_bytes() == first
    assert [row["loss"] for row in Run.open(run.path).metrics()] == [1.0, 0.25]


def test_a_complete_run_is_given_back_untouched(tmp_path: Path) -> None:
    done = finished(tmp_path)
    before = {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in done.path.rglob("*") if p.is_file()
    }
    run = begin(tmp_path)
    assert run.complete
    assert not run.writable
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in done.path.rglob("*") if p.is_file()}
    assert after == before
    with pytest.raises(RuntimeError, match="not open for writing"):
        run.log(2, loss=0.1)


def test_a_different_preset_is_refused_and_every_difference_listed(tmp_path: Path) -> None:
    finished(tmp_path)
    other = {
        "network": {"arch": "r3d", "width": 1},
        "optim": {"lr": 3e-4, "betas": [0.9, 0.999]},
        "data": {"source": "motion", "split": 2},
    }
    with pytest.raises(InputError) as caught:
        begin(tmp_path, identity=other)
    assert str(caught.value).splitlines()[1:] == [
        "  data.split: (not set) → 2",
        '  network.arch: "c3d" → "r3d"',
        "  optim.betas: [0.9, 0.99] → [0.9, 0.999]",
    ]
    with pytest.raises(InputError, match=r"network\.arch"):
        Run.open(tmp_path / "mine").require_identity(other)
    Run.open(tmp_path / "mine").require_identity(IDENTITY)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"dataset": {"name": "motion", "fingerprint": "bad"}},
            'dataset.fingerprint: "f00" → "bad"',
        ),
        ({"job": "probe"}, 'job: "pretrain/temporal" → "probe"'),
        ({"parents": [{"run": "b", "sha256": "2"}]}, 'parents: ["1"] → ["2"]'),
    ],
)
def test_other_data_jobs_and_parents_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    parents = [{"run": "a", "sha256": "1"}]
    begin(tmp_path, parents=parents).close()
    with pytest.raises(InputError) as caught:
        begin(tmp_path, **{"parents": parents, **changes})
    assert told in str(caught.value)
    begin(tmp_path, parents=[{"run": "renamed", "sha256": "1"}]).close()
    begin(tmp_path, dataset=None).close()


def test_a_job_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with begin(tmp_path):
        with pytest.raises(InputError, match="being written by process"):
            begin(tmp_path)
        assert not Run.open(tmp_path / "mine").writable
    begin(tmp_path).close()


def test_after_a_kill_the_next_attempt_says_so_and_sweeps(tmp_path: Path) -> None:
    ready = os.pipe()

    def child() -> None:
        run = begin(tmp_path)
        run.log(1, loss=1.0)
        run.set_status("running", step=7)
        (run.path / ".state.pt.tmp").write_bytes(b"half")
        (run.path / "metrics.jsonl").open("ab").write(b'{"step": 2, "lo')
        os.write(ready[1], b".")
        signal.pause()

    pid = children.fork(child)
    os.read(ready[0], 1)
    with pytest.raises(InputError, match=f"process {pid} on"):
        begin(tmp_path)
    children.kill(pid)
    with begin(tmp_path) as run:
        [notice] = run.notices
        assert f"process {pid} on {platform.node()}" in notice
        assert "after step 7, probably killed" in notice
        assert run.attempts[0].reason == "ended without closing (killed?)"
        assert not (run.path / ".state.pt.tmp").exists()
        run.log(2, loss=0.5)
        assert [row["step"] for row in run.metrics()] == [1, 2]
    for fd in ready:
        os.close(fd)


def dying_at_write(count: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, killed before its `count`-th flush to the disk."""
    left, real = count, os.fsync

    def fsync(fd: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd)

    def child() -> None:
        os.fsync = fsync  # type: ignore[assignment]
        work()

    return child


def test_a_kill_at_any_flush_of_a_run_leaves_one_that_can_be_ended(tmp_path: Path) -> None:
    for count in range(100):
        runs = tmp_path / str(count)
        status = children.run(dying_at_write(count, lambda runs=runs: finished(runs) and None))
        if status != 0:
            assert status == -signal.SIGKILL
            run = begin(runs)
            if not run.complete:
                assert not (run.path / "manifest.json").exists()
                run.truncate_metrics(0)
                run.close()
                finished(runs)
        found = Run.open(runs / "mine")
        assert found.complete
        assert found.problems() == []
        assert not [p for p in found.path.rglob("*") if p.name.endswith(".tmp")]
        if status == 0:
            break
    assert count > 10


def test_of_eight_jobs_with_one_name_one_makes_the_run(tmp_path: Path) -> None:
    start, won, end = os.pipe(), os.pipe(), os.pipe()

    def child() -> None:
        os.read(start[0], 1)
        try:
            run = begin(tmp_path)
        except InputError as error:
            assert "is being written by" in str(error)  # noqa: PT017
            os.write(won[1], b"-")
            return
        os.write(won[1], b"+")
        os.read(end[0], 1)
        run.close()

    pids = [children.fork(child) for _ in range(8)]
    os.write(start[1], b"." * 8)
    answers = b""
    while len(answers) < 8:
        answers += os.read(won[0], 8)
    os.write(end[1], b".")
    assert [children.end(pid) for pid in pids] == [0] * 8
    assert sorted(answers) == sorted(b"+-------")
    assert len(Run.open(tmp_path / "mine").attempts) == 1
    for fd in (*start, *won, *end):
        os.close(fd)


# -- written


def test_status_counts_attempts_and_ends(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        run.set_status("running")
        run.set_status("running", step=5)
        seen = Run.open(run.path)
        assert (seen.status.state, seen.status.step, seen.attempts[0].end) == ("running", 5, None)
        run.set_status("diverged", reason="loss is nan")
        seen = Run.open(run.path)
        assert (seen.status.state, seen.status.step) == ("diverged", 5)
        assert seen.attempts[0].end is not None
        assert seen.attempts[0].reason == "loss is nan"


def test_metrics_hold_nothing_but_what_was_logged(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        run.log(1, loss=0.5, order="ab")
        run.log(2, loss=float("nan"))
        run.log(3, loss=float("inf"))
        assert (run.path / "metrics.jsonl").read_text() == (
            '{"step": 1, "loss": 0.5, "order": "ab"}\n'
            '{"step": 2, "loss": null, "nonfinite": {"loss": "nan"}}\n'
            '{"step": 3, "loss": null, "nonfinite": {"loss": "inf"}}\n'
        )
        assert run.truncate_metrics(1) == 2
        assert [row["step"] for row in run.metrics()] == [1]
        assert run.truncate_metrics(0) == 1
        assert run.metrics() == []


def test_bad_files_are_listed_once(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        assert run.record_bad("a/b.avi", "no frames")
        assert not run.record_bad("a/b.avi", "no frames")
    with begin(tmp_path) as run:
        assert not run.record_bad("a/b.avi", "no frames")
        assert run.record_bad("c.avi", "truncated")
    assert list(read_rows(run.path / "quarantine.jsonl")) == [
        {"path": "a/b.avi", "reason": "no frames"},
        {"path": "c.avi", "reason": "truncated"},
    ]


def test_the_log_has_times_and_no_escape_sequences(tmp_path: Path) -> None:
    logger = logging.getLogger("tests.run")
    with begin(tmp_path) as run:
        run.log_to_file(logger)
        logger.warning("bad file %s", "\x1b[31mred\u202e.avi")
    logger.warning("after the end")
    with begin(tmp_path) as run:
        run.log_to_file(logger)
        logger.error("second attempt")
    lines = (run.path / "log.txt").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Z WARNING bad file \\x1b[31mred\\x202e.avi")
    assert lines[1].endswith("Z ERROR second attempt")
    assert logger.handlers == []


def test_pictures_stay_in_their_folder(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        assert run.picture("a.png") == run.path / "pictures" / "a.png"
        for name in ("../a.png", "x/y.png", ".a.png", ""):
            with pytest.raises(ValueError, match="plain file name"):
                run.picture(name)


def test_other_processes_of_a_job_write_nothing(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        rebuild, arguments = run.__reduce__()
        other: Run = rebuild(*arguments)
        assert other.path == run.path
        before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
        other.set_status("failed", reason="x")
        other.log(1, loss=1.0)
        assert other.truncate_metrics(0) == 0
        assert not other.record_bad("a", "b")
        other.write_report(report())
        other.picture("a.png")
        other.log_to_file(logging.getLogger("tests.other"))
        other.finish()
        other.close()
        assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
        assert not (run.path / "pictures").exists()
        assert run.writable


def test_a_closed_run_refuses_to_write(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.close()
    run.close()
    with pytest.raises(RuntimeError, match="run mine is not open for writing"):
        run.set_status("failed")


def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    def child() -> None:
        run = begin(tmp_path)
        run.write_report(report())
        old = (run.path / "report.json").read_bytes()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        with pytest.raises(MachineError, match=r"report\.json: File too large"):
            run.write_report(report("x" * 10_000))
        assert (run.path / "report.json").read_bytes() == old
        run.log(1, note="x" * 3000)
        with pytest.raises(MachineError, match=r"metrics\.jsonl: File too large"):
            run.log(2, note="x" * 3000)
        assert [row["step"] for row in run.metrics()] == [1]
        assert (run.path / "metrics.jsonl").read_bytes().endswith(b"}\n")
        run.set_status("failed", reason="disk")
        run.close()

    assert children.run(child) == 0
    assert Run.open(tmp_path / "mine").status.state == "failed"


# -- finished


def test_the_manifest_lists_all_and_notices_everything(tmp_path: Path) -> None:
    run = finished(tmp_path)
    assert run.complete
    record = json.loads((run.path / "manifest.json").read_text())
    assert set(record["files"]) == {
        "run.json", "preset.yaml", "report.json", "report.html", "report.md",
        "backbone.safetensors", "pictures/curves.png", "metrics.jsonl",
    }  # fmt: skip
    assert record["mutable"] == ["run.lock", "status.json"]
    assert run.problems() == []
    with (run.path / "log.txt").open("a") as log:
        log.write("more")
    assert run.problems() == []
    (run.path / "metrics.jsonl").write_text("")
    weights = run.path / "backbone.safetensors"
    weights.write_bytes(b"wEights")
    (run.path / "preset.yaml").write_text("")
    (run.path / "pictures" / "curves.png").unlink()
    assert run.problems() == [
        "backbone.safetensors does not match its checksum",
        "metrics.jsonl has 0 bytes instead of 25",
        "pictures/curves.png is missing",
        f"preset.yaml has 0 bytes instead of {len('optim:' + '  lr: 3e-4') + 2}",
    ]


DAMAGED = ["", "{}x", '{"schema": "selfsup.run/9"}', "[]"]


@pytest.mark.parametrize("name", ["run.json", "status.json"])
@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_records_are_named(tmp_path: Path, name: str, text: str) -> None:
    run = finished(tmp_path)
    (run.path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name} is damaged or of another version"):
        Run.open(run.path)
    if name == "run.json":
        with pytest.raises(InputError, match=r"run\.json is damaged or of another version"):
            begin(tmp_path)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_status_is_made_anew(tmp_path: Path, text: str) -> None:
    run = finished(tmp_path, "done")
    (run.path / "status.json").write_text(text)
    again = begin(tmp_path, "done")
    assert again.complete
    assert "status.json is damaged" in again.notices[0]
    assert Run.open(run.path).complete

    with begin(tmp_path, "half") as half:
        half.set_status("running", step=3)
    (half.path / "status.json").write_text(text)
    with begin(tmp_path, "half") as half:
        assert "status.json is damaged" in half.notices[0]
        assert half.status.state == "running"
        assert len(half.attempts) == 1


def test_any_flipped_bit_of_a_record_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        run.set_status("running", step=3)
    for name in ("run.json", "status.json"):
        path = run.path / name
        whole = path.read_bytes()
        before = json.loads(whole)
        for bit in random.Random(name).sample(range(8 * len(whole)), 150):
            path.write_bytes(flipped(whole, bit))
            try:
                Run.open(run.path)
            except InputError:
                continue
            assert json.loads(path.read_bytes()) == before, bit
        path.write_bytes(whole)


def test_a_damaged_preset_is_written_again(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        text = run.preset()
    (run.path / "preset.yaml").write_bytes(flipped(text.encode(), 40))
    with pytest.raises(InputError, match=r"preset\.yaml does not match its checksum"):
        Run.open(run.path).preset()
    assert "preset.yaml" in Run.open(run.path).problems()[0]
    with begin(tmp_path) as run:
        assert "preset.yaml does not match its checksum; written again" in run.notices[0]
        assert run.preset() == text
    assert Run.open(run.path).problems() == []


def test_damaged_metrics_are_said_aloud_where_the_mark_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with begin(tmp_path) as run:
        for step in (1, 2):
            run.log(step, loss=0.25)
        mark = run.metrics_mark()
        run.log(3, loss=0.25)
        assert run.truncate_metrics(2, mark) == 1
        assert run.metrics_mark() == mark
        assert not caplog.records
        path = run.path / "metrics.jsonl"
        path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35", 1))
        assert run.truncate_metrics(2, mark) == 0
        assert "metrics.jsonl is not as it was at step 2" in caplog.text
        path.write_bytes(path.read_bytes().replace(b"{", b"z", 1))
        assert "1 of its lines cannot be read" in run.problems()[0]


def test_a_damaged_report_is_noticed(tmp_path: Path) -> None:
    run = finished(tmp_path)
    path = run.path / "report.json"
    path.write_bytes(path.read_bytes().replace(b"learned", b"leArned"))
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        Run.open(run.path).report()


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_nothing_heavy_is_imported() -> None:
    import subprocess

    code = (
        "import sys, selfsup_cli.runs.run, selfsup_cli.runs.published\n"
        "print([n for n in ('torch', 'numpy', 'av', 'h5py', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
