"""Running the command, in this process and in one of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from selfsup_cli.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Said:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture
def selfsup(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        status = main(list(arguments))
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in a process of its own, in an empty folder."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        settings.setdefault("stdout", subprocess.PIPE)
        settings.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(
            [sys.executable, "-m", "selfsup_cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=tmp_path,
            text=True,
            timeout=600,
            **settings,
        )

    return run


@dataclass
class FakeJobs:
    """Stands in for the jobs: keeps how they were called, and does what `behave` does."""

    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    behave: Callable[..., Any] = lambda **settings: None

    def job(self, name: str) -> Callable[..., Any]:
        def call(resolved: Any, **settings: Any) -> Any:
            self.calls.append((name, resolved, settings))
            return self.behave(**settings)

        return call


@dataclass
class Outcome:
    """What a job returns, as the jobs declare it."""

    run_dir: Path | None = None
    report: Any = None
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """Replace every job by one that needs no torch."""
    fake = FakeJobs(behave=lambda **settings: Outcome())
    for name, function in (
        ("pretrain", "pretrain"),
        ("probe", "probe"),
        ("probe_images", "probe_images"),
        ("retrieve", "retrieve"),
        ("retrieve_images", "retrieve_images"),
        ("probe_tiles", "probe_tiles"),
        ("probe_sync", "probe_sync"),
        ("retrieve_sync", "retrieve_sync"),
        ("visualize", "pretext"),
        ("visualize_guided", "guided_backprop"),
        ("visualize_filters", "filters"),
        ("visualize_activations", "activations"),
        ("visualize_gradcam", "gradcam"),
        ("visualize_neighbours", "neighbours"),
        ("sample_artifacts", "artifacts"),
    ):
        module = ModuleType(f"selfsup_cli.jobs.{name}")
        setattr(module, function, fake.job(name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command decides what loggers show; other tests are not to notice."""
    loggers = [logging.getLogger(name) for name in ("selfsup", "py.warnings")]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    logging.captureWarnings(False)
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
