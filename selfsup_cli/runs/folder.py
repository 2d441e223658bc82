"""A run directory: all that a job writes.

```
preset.yaml  run.json     what was asked, and with what it was made; written once
status.json  run.lock     how far it is; who is writing
metrics.jsonl  log.txt  quarantine.jsonl  events/  debug/      grow while it runs
checkpoints/  backbone.safetensors  pictures/                  results
report.json  report.html  report.md                            what they say
manifest.json             sizes and SHA-256 of all that is final; written last
```
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic, html, manifest, markdown, provenance, record
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.lock import RunLock
from selfsup_cli.runs.log import LogFile
from selfsup_cli.runs.metrics import JsonLines, Mark, Row, read_rows
from selfsup_cli.runs.record import Attempt, RunInfo, State, Status
from selfsup_cli.runs.report import Report, load_report, now

log = logging.getLogger("selfsup")

BACKBONE = "backbone.safetensors"
# What a job that was killed while its run was being made may have left.
_UNBORN = {"run.lock", "preset.yaml", "status.json", "run.json"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,149}")


class Run:
    """One run directory. `create_or_continue` opens it for writing, `open` for reading.

    Writing methods raise MachineError when the disk is full or refuses, and RuntimeError if the run
    is not open for writing. Only the process that holds the lock writes: in the other processes of
    a job, to which a run is sent by pickling, writing methods do nothing. As a context manager the
    run closes itself.
    """

    def __init__(self, path: Path, info: RunInfo, status: Status, lock: RunLock | None) -> None:
        self.path = path
        self.info = info
        self.status = status
        self.notices: list[str] = []
        self._lock = lock
        self._silent = False
        self._metrics = JsonLines(path / "metrics.jsonl")
        self._bad = JsonLines(path / "quarantine.jsonl")
        self._bad_paths: set[str] | None = None
        self._logs: list[LogFile] = []

    # -- making and opening

    @classmethod
    def create_or_continue(
        cls,
        runs_dir: Path,
        name: str,
        *,
        preset: str | dict[str, Any],
        identity: dict[str, Any],
        command: list[str],
        job: str,
        seed: int,
        dataset: dict[str, Any] | None,
        parents: list[dict[str, Any]],
    ) -> Run:
        """Make the run `name`, go on with it, or give it back as it is if it is complete.

        `preset` is the resolved preset, as YAML or as plain data. `identity` is what must be the
        same to go on; so must the `fingerprint` of `dataset` and the `sha256` (or else the `run`)
        of each parent, where both sides have them. `notices` of the run says what the user should
        know, such as that the attempt before was killed.

        Raises InputError if the name cannot be one, if the run differs (each difference is listed)
        or if another job is writing it.
        """
        path = runs_dir / checked_name(name)
        info = RunInfo(
            job=job,
            created=now(),
            command=command,
            seed=seed,
            arch=_text(next(iter(parents), {}), "arch") or _text(identity.get("network"), "arch"),
            data=_text(dataset, "name") or _text(identity.get("data"), "source"),
            identity=record.plain(identity),
            dataset=dataset,
            parents=parents,
        )
        _make_folder(path)
        if (path / "run.json").exists():
            old = _same(path, info)
            with suppress(InputError):  # a damaged status is made anew below, with the lock held
                status = record.read(path / "status.json", Status)
                if status.state == "complete":
                    return cls(path, old, status, None)
        else:
            _check_unborn(path)
        lock = RunLock(path / "run.lock")
        try:
            atomic.sweep(path)
            return cls._begin(path, info, lock, preset)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _begin(cls, path: Path, info: RunInfo, lock: RunLock, preset: str | dict[str, Any]) -> Run:
        """Open a run whose lock is held; whoever held it before may have made or ended it."""
        status = Status()
        notices: list[str] = []
        # JSON is YAML, too.
        text = preset if isinstance(preset, str) else json.dumps(preset, indent=2) + "\n"
        if (path / "run.json").exists():
            info = _same(path, info)
            status, mended = _status(path)
            if mended:
                notices.append(mended)
            if status.state == "complete":
                run = cls(path, info, status, None)
                run.notices += notices
                lock.release()
                return run
            if (wrong := _preset_problem(path, info)) is not None:
                info.preset_sha256 = atomic.write_text(path / "preset.yaml", text)
                record.write(path / "run.json", info)
                notices.append(f"{wrong}; written again, as it was asked for now")
        else:
            info.preset_sha256 = atomic.write_text(path / "preset.yaml", text)
            record.write(path / "status.json", status)
            info.versions = provenance.versions()
            info.code = provenance.revision()
            info.machine = provenance.machine()
            record.write(path / "run.json", info)
        # An attempt that was killed at the very end: what it listed may change again.
        (path / manifest.NAME).unlink(missing_ok=True)
        run = cls(path, info, status, lock)
        run.notices += notices
        last = status.attempts[-1] if status.attempts else None
        if last is not None:
            status.state, status.reason = "running", None
        if last is not None and last.end is None:
            where = "before its first step" if last.step is None else f"after step {last.step}"
            last.reason = "ended without closing (killed?)"
            run.notices.append(
                f"the previous attempt (process {last.pid} on {last.host}) ended without closing "
                f"{where}, probably killed (out of memory?); going on"
            )
        status.attempts.append(Attempt(host=platform.node(), pid=os.getpid(), start=now()))
        run._write_status()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the run at `path` for reading. Raises InputError if it is none or damaged."""
        if not (path / "run.json").is_file():
            raise InputError(f"{path} is not a run (it has no run.json)", kind="run")
        info = record.read(path / "run.json", RunInfo)
        return cls(path, info, record.read(path / "status.json", Status), None)

    @classmethod
    def _elsewhere(cls, path: Path) -> Run:
        run = cls.open(path)
        run._silent = True
        return run

    def __reduce__(self) -> tuple[Any, ...]:
        return Run._elsewhere, (self.path,)

    # -- what it is

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.path.absolute().name

    @property
    def complete(self) -> bool:
        """Whether the run has ended well, manifest and all."""
        return self.status.state == "complete"

    @property
    def attempts(self) -> list[Attempt]:
        """The processes that have worked on the run, oldest first."""
        return self.status.attempts

    @property
    def writable(self) -> bool:
        """Whether this process may write into the run."""
        return self._lock is not None and self._lock.held

    def report(self) -> Report | None:
        """The report, if there is one yet. Raises InputError if it is damaged."""
        path = self.path / "report.json"
        if not path.is_file():
            return None
        listed = manifest.checksum(self.path, path.name) if self.complete else None
        if listed is not None and atomic.file_sha256(path) != listed:
            raise InputError(f"{path} is damaged: it does not match its checksum", kind="run")
        return load_report(path)

    def preset(self) -> str:
        """The preset it was made with, as YAML. Raises InputError if that is damaged."""
        if (wrong := _preset_problem(self.path, self.info)) is not None:
            raise InputError(f"run {self.name} is damaged: {wrong}", kind="run")
        return (self.path / "preset.yaml").read_text(encoding="utf-8")

    def facts(self) -> Facts:
        """What the pages of a report say of the run itself."""
        return Facts.of(self.path, self.info, self.attempts)

    @property
    def backbone(self) -> Path | None:
        """The exported weights, if there are any yet."""
        path = self.path / BACKBONE
        return path if path.is_file() else None

    def metrics(self) -> list[Row]:
        """All rows of `metrics.jsonl`, in the order in which they were logged."""
        return list(read_rows(self.path / "metrics.jsonl"))

    def problems(self) -> list[str]:
        """What is damaged, one sentence each, by manifest or checksum; empty if all is well.

        Reads every file. Of a run that is not complete the preset and the structure of its lines
        are looked at; its checkpoints are the engine's.
        """
        if self.complete:
            return manifest.problems(self.path)
        found = []
        if (wrong := _preset_problem(self.path, self.info)) is not None:
            found.append(wrong)
        return found + [
            f"{file.path.name}: {damaged} of its lines cannot be read"
            for file in (self._metrics, self._bad)
            if (damaged := file.damaged())
        ]

    def require_identity(self, identity: dict[str, Any]) -> None:
        """Raise InputError, listing what differs, unless the run was made with `identity`."""
        _require_same(self.name, self.info.identity, record.plain(identity))

    # -- writing

    def set_status(
        self, state: State, *, step: int | None = None, reason: str | None = None
    ) -> None:
        """Note the state, durably; metrics logged so far are made durable before it."""
        if not self._writes():
            return
        self._metrics.sync()
        self.status.state = state
        self.status.step = self.status.step if step is None else step
        self.status.reason = reason
        attempt = self.status.attempts[-1]
        attempt.step = self.status.step
        attempt.reason = reason
        attempt.end = now() if state in record.ENDED else None
        self._write_status()

    def log(self, step: int, **values: Any) -> None:
        """Append a row to `metrics.jsonl`.

        Nothing is added to it (no time), so that a resumed run writes the same file. Numbers that
        are not finite become null and are named in the row's `nonfinite`.
        """
        if not self._writes():
            return
        self._metrics.append({"step": step, **values})

    def metrics_mark(self) -> Mark:
        """Size and checksum of the rows logged so far, for a checkpoint of this moment."""
        return self._metrics.mark()

    def truncate_metrics(self, step: int, mark: Mark | None = None) -> int:
        """Drop the rows of steps after `step` and damaged ones; gives how many were dropped.

        With the `mark` of that step the rest is checked; what is damaged there is said aloud.
        """
        if not self._writes():
            return 0
        if mark is not None and not self._metrics.begins_with(mark):
            log.warning(
                "%s is not as it was at step %d: damaged, or lines are lost; what can be read of "
                "it is kept, and the curves of this run may have holes",
                self._metrics.path,
                step,
            )
        return self._metrics.keep(
            lambda row: isinstance(row.get("step"), int) and row["step"] <= step
        )

    def record_bad(self, path: str, reason: str) -> bool:
        """Note in `quarantine.jsonl` that a file cannot be read; gives whether that was news."""
        if not self._writes():
            return False
        if self._bad_paths is None:
            self._bad_paths = {str(row.get("path")) for row in read_rows(self._bad.path)}
        if path in self._bad_paths:
            return False
        self._bad.append({"path": path, "reason": reason})
        self._bad_paths.add(path)
        return True

    def log_to_file(self, logger: logging.Logger, level: int = logging.INFO) -> None:
        """Also write what `logger` says into `log.txt`, until the run is closed."""
        if not self._writes():
            return
        self._logs.append(LogFile(self.path / "log.txt", logger, level))

    def picture(self, name: str) -> Path:
        """Where the picture `name` goes (`pictures/NAME`), its folder made."""
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} is not a plain file name")
        path = self.path / "pictures" / name
        if self._writes():
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise atomic.cannot_write(path, error) from error
        return path

    def write_report(self, report: Report) -> Path:
        """Write `report.json`, and drawn from it `report.html` and `report.md`; gives its path.

        The pages show the run's pictures, so these have to be there before.
        """
        path = self.path / "report.json"
        if self._writes():
            atomic.write_text(path, report.to_json() + "\n")
            # Of what was written, so that the pages come out the same when they are made again.
            written, facts = load_report(path), self.facts()
            atomic.write_text(self.path / "report.html", html.page(written, facts))
            atomic.write_text(self.path / "report.md", markdown.page(written, facts))
        return path

    def finish(self, *, step: int | None = None) -> None:
        """Write the manifest, then mark the run complete. Nothing may be written afterwards."""
        if not self._writes():
            return
        self._metrics.close()
        self._bad.close()
        manifest.write(self.path)
        self.set_status("complete", step=step)

    def close(self) -> None:
        """Close the files and free the lock. May be called twice."""
        for handler in self._logs:
            handler.detach()
        self._logs.clear()
        self._metrics.close()
        self._bad.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _writes(self) -> bool:
        """Whether to write; False in the silent processes of a job."""
        if not self.writable and not self._silent:
            raise RuntimeError(f"run {self.name} is not open for writing in this process")
        return not self._silent

    def _write_status(self) -> None:
        self.status.updated = now()
        record.write(self.path / "status.json", self.status)


def checked_name(name: str) -> str:
    """`name` if it can name a run. Raises InputError if not."""
    if name == "latest" or not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name a run: use up to 150 letters, digits, dots, dashes and "
            "underscores, begin with a letter or digit, and leave 'latest' to the newest run "
            "(the folder that holds all runs is set by SELFSUP_RUNS)",
            kind="run-name",
        )
    return name


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        atomic.sync_folder(path.parent)
    except FileExistsError:
        if not path.is_dir():
            raise InputError(
                f"{path} is in the way: a run needs a folder there", kind="run-name"
            ) from None
    except OSError as error:
        raise atomic.cannot_write(path, error) from error


def _check_unborn(path: Path) -> None:
    foreign = sorted(p.name for p in path.iterdir() if p.name not in _UNBORN and p.suffix != ".tmp")
    if foreign:
        raise InputError(
            f"{path} holds other things than a run ({foreign[0]}, …); choose another name",
            kind="run-name",
        )


def _status(path: Path) -> tuple[Status, str | None]:
    """The status of the run at `path`, made anew if it is damaged; and then a sentence on it."""
    try:
        return record.read(path / "status.json", Status), None
    except InputError as error:
        # The manifest is the last thing that is written, and removed before anything is changed.
        complete = (path / manifest.NAME).exists() and not manifest.problems(path)
        status = Status(state="complete" if complete else "running", updated=now())
        record.write(path / "status.json", status)
        return status, f"{error}; made anew ({status.state}), its history of attempts is lost"


def _preset_problem(path: Path, info: RunInfo) -> str | None:
    """What is wrong with the preset of a run, or None."""
    try:
        found = atomic.file_sha256(path / "preset.yaml")
    except OSError as error:
        return f"its preset.yaml cannot be read ({error.strerror})"
    if info.preset_sha256 is not None and found != info.preset_sha256:
        return "its preset.yaml does not match its checksum"
    return None


def _same(path: Path, new: RunInfo) -> RunInfo:
    """The record of the run at `path`. Raises InputError if `new` is not a continuation of it."""
    old = record.read(path / "run.json", RunInfo)
    _require_same(path.name, _identity(old, new), _identity(new, old))
    return old


def _require_same(name: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    found = record.differences(old, new)
    if found:
        raise InputError(
            f"run {name} exists and was made differently; give this one another name with "
            f"--run, or undo:{record.listed(found)}",
            kind="run-differs",
        )


def _identity(info: RunInfo, other: RunInfo) -> dict[str, Any]:
    """What has to be the same in `info` and `other`; what only one of them knows is not asked."""
    facts: dict[str, Any] = {"job": info.job, **info.identity}
    if info.dataset is not None and other.dataset is not None:
        facts["dataset"] = {"fingerprint": info.dataset.get("fingerprint")}
    if info.parents and other.parents:
        facts["parents"] = [one.get("sha256", one.get("run")) for one in info.parents]
    return facts


def _text(facts: Any, key: str) -> str | None:
    value = facts.get(key) if isinstance(facts, dict) else None
    return value if isinstance(value, str) else None
