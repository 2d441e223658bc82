"""Reports to show: with everything in them, and with names that mean harm."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsup_cli.runs.report import (
    Curve,
    Finding,
    LeftOut,
    Measurement,
    Picture,
    Published,
    Report,
    accuracy,
)
from selfsup_cli.runs.run import Run

EVIL = "<img src=x onerror=alert(1)>"
EVIL_LINK = "[click](javascript:alert(1)) `x` | </script><script>alert(2)</script> & \"q\" 'q'"
CREATED = "2026-01-02T03:04:05.678+00:00"
PROTOCOL: dict[str, Any] = {"epochs": 60, "flip": True, "pooling": "2×2×2"}
CLASSES = [f"{EVIL}: 12.5 %", "a|b: 100.0 %", "drift: 0.0 %"]
COMPARABLE = Published(value=60.6, where="thesis table 5.1", comparable=True)
OTHER = Published(value=50.2, where="thesis table 5.2", comparable=False, differs=["epochs: 5"])


def number(hits: int, subject: str = "learned", **more: Any) -> Measurement:
    """A probe's accuracy on 997 videos."""
    about = {
        "task": "probe", "layer": "conv4", "dataset": "motion", "split": "test", "chance": 100 / 7,
        "protocol": PROTOCOL, **more,
    }  # fmt: skip
    return accuracy("linear probe", hits, 997, subject=subject, **about)


def everything(**more: Any) -> Report:
    """A report in which everything that a report can have is there."""
    rate = Measurement(
        task="speed", name="clips per second", subject="learned", dataset="motion", split="test",
        metric="rate", unit="clips/s", value=1234.56789, n=3, protocol={"device": "cpu"},
    )  # fmt: skip
    facts: dict[str, Any] = {
        "job": "probe",
        "run": "first",
        "command": "selfsup probe --from x",
        "created": CREATED,
        "findings": [
            Finding(text=f"It learns {EVIL}.", verdict="good"),
            Finding(text=EVIL_LINK, verdict="bad"),
            Finding(text="Perhaps.", verdict="unclear"),
            Finding(text="By the way.", verdict="note"),
        ],
        "measurements": [
            number(451, published=COMPARABLE),
            number(
                452,
                metric="class-balanced accuracy",
                protocol={
                    **PROTOCOL, "per_class": CLASSES, "training_accuracy": 98.4375,
                    "validation_accuracy": 18.75,
                },
            ),
            number(150, "random weights", published=OTHER),
            number(120, control="still", protocol={**PROTOCOL, "epochs": 5}),
            number(997, layer="conv5", chance=None),
            rate,
        ],
        "curves": [
            Curve(name="loss", x_label="step", y_label="loss",
                  points=[(float(i), 4.0 / (i + 1)) for i in range(200)]),
            Curve(name="loss_speed", x_label="step", y_label="loss", points=[(0, 3.0), (9, 2.5)]),
            Curve(name=EVIL, x_label="step", y_label="rank", points=[(0, 1.0), (5, 1.0)]),
            Curve(name="once", x_label="step", y_label="once", points=[(7, 0.125)]),
            Curve(name="never", x_label="step", y_label="never", points=[]),
        ],
        "pictures": [
            Picture(file="pictures/curves.png", caption="Curves."),
            Picture(file="pictures/sheet.png", caption=f"A sheet {EVIL}"),
            Picture(file="pictures/gone.png", caption="Gone."),
        ],
        "left_out": [LeftOut(id=f"{EVIL}/{i}.avi", reason="cut | \x1b[31mred") for i in range(3)],
        "left_out_total": 40,
        "data": {
            "name": "motion",
            "train": {"name": "motion", "videos": 64, "split_rule": EVIL, "fingerprint": "ab" * 32},
            "test": {"name": "motion", "videos": 32, "split_rule": EVIL, "fingerprint": "cd" * 32},
        },
        "weights": "0123456789abcdef" * 4,
        "cost": {"seconds": 3723.0, "steps": 400.0},
    }  # fmt: skip
    return Report(**{**facts, **more})


def in_tables(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers as pages show them where they are of several layers: one metric after the other."""
    keys = [(m["task"], m["metric"]) for m in said]
    tasks = list(dict.fromkeys(task for task, _ in keys))
    return sorted(
        said, key=lambda m: (tasks.index(m["task"]), keys.index((m["task"], m["metric"])))
    )


def picture(width: int = 40, height: int = 30, *, noise: bool = False) -> bytes:
    """A PNG, which barely compresses if it is `noise`."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def begun(folder: Path, name: str = "first", **changes: Any) -> Run:
    """A run that is open for writing, with a picture in it."""
    settings: dict[str, Any] = {
        "preset": f"description: {EVIL}\n```\n",
        "identity": {"probe": {"epochs": 60}, "data": {"source": "motion"}},
        "command": ["selfsup", "probe", "--set", "a=b c", "--run", name],
        "job": "probe",
        "seed": 3,
        "dataset": {"name": "motion", "fingerprint": "f00"},
        "parents": [{"run": "parent", "arch": "c3d", "sha256": "ef" * 32}],
    }
    run = Run.create_or_continue(folder, name, **{**settings, **changes})
    run.picture("sheet.png").write_bytes(picture())
    return run


def finished(folder: Path, report: Report, name: str = "first", **changes: Any) -> Run:
    """A complete run with that report."""
    with begun(folder, name, **changes) as run:
        run.set_status("running")
        run.record_bad(f"{EVIL}.mp4", "is empty")
        run.write_report(report.model_copy(update={"run": name}))
        run.finish(step=9)
    return run
