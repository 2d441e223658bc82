"""`selfsup score`: how near a generator's samples, or any images, come to real ones."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from selfsup_cli.config.generated import Score
from selfsup_cli.config.presets import Resolved
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation.gan_pixels import Reals, some
from selfsup_cli.evaluation.gan_scores import (
    Reference,
    Scores,
    by_run,
    measurement,
    score_all,
    warning,
)
from selfsup_cli.evaluation.judges import FEATURES, Judge, exact, see
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.judges import load_judges
from selfsup_cli.jobs.score_subject import Candidate, Subject, check, open_subject
from selfsup_cli.jobs.shortcuts import machine
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Curve, Finding, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import curves, gan_sheets

SCORES = "scores.json"
_UNFINISHED = ".features"
_SHOWN = 64
_BATCH = 100
_TIME = "training time, s"
_OVER_TIME = ("Fréchet distance", "Inception Score")


def score(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Score the newest generators of a run, or images, by every network that is named.

    Of a run of several trainings (`--seeds`) the generators of each are, and the mean is over them.
    What has been scored stays, and so do features of real images (in the cache) and of the samples
    at hand, so that a run that was stopped goes on where it was. Raises InputError, MachineError
    and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, Score)  # noqa: S101 (command and preset belong together)
    check(resolved, preset)
    hardware = choose(preset.machine.device)
    tune_allocator()
    judges = load_judges(preset.judges, hardware.device)
    with signals.catching() as stop, Progress(quiet=quiet) as progress, exact():
        subject = open_subject(preset, hardware.device, progress)
        real = _real(preset, subject, progress)
        reals = Reals(real.source, subject.side, workers=loader_workers(preset.machine.workers))
        if dry_run:
            return _rehearse(preset, subject, judges, reals)
        record = common.started_run(
            resolved,
            run,
            arch=subject.arch,
            data=real.source.name,
            seed=preset.samples.seed,
            command=command,
            dataset=common.describe(real.source),
            parents=[*subject.parents, *(_parent(judge) for judge in judges)],
        )
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, real)
            began = time.monotonic()
            work = _Work(preset, record, subject, reals, hardware.device, progress, stop)
            found = [work.judged(judge) for judge in judges]
            return _conclude(work, real, judges, found, time.monotonic() - began)


def _parent(judge: Judge) -> dict[str, str]:
    return dict(judge.origin) or {"judge": judge.name, "sha256": judge.weights}


def _real(preset: Score, subject: Subject, progress: Progress) -> Images:
    settings = preset.reference
    found = open_images(
        subject.data,
        settings.part,
        labels=False,
        machine=machine(preset.machine),
        progress=progress,
    )
    return Images(some(found.source, settings.images, settings.seed), found.left_out)


@dataclass
class _Work:
    """One run: what is scored against what, and what of it is done."""

    preset: Score
    run: Run
    subject: Subject
    reals: Reals
    device: torch.device
    progress: Progress
    stop: StopFlag

    def __post_init__(self) -> None:
        self.done = _earlier(self.run.path / SCORES)

    def judged(self, judge: Judge) -> list[Scores]:
        """All candidates by one network, those that were scored before as they were then."""
        found = []
        reference: Reference | None = None
        for candidate in self.subject.candidates:
            one = self._earlier(judge, candidate)
            if one is None:
                if reference is None:
                    seen = see(judge, self.reals, progress=self._telling(f"{judge.name}, real"))
                    reference = Reference.of(seen, self.preset.measures, self.device)
                one = self._score(judge, candidate, reference)
            found.append(one)
        return found

    def _earlier(self, judge: Judge, candidate: Candidate) -> Scores | None:
        wanted = (judge.name, candidate.run, candidate.step)
        return next((s for s in self.done if (s.judge, s.run, s.step) == wanted), None)

    def _score(self, judge: Judge, candidate: Candidate, reference: Reference) -> Scores:
        step, run = candidate.step, candidate.run
        of = "" if run in (None, self.subject.name) else f"{run}, "
        what = f"{judge.name}, samples" + ("" if step is None else f" of {of}step {step}")
        folder = self.run.path / _UNFINISHED
        seen = see(judge, candidate.pixels, folder=folder, progress=self._telling(what))
        self.progress.update(f"{what}: measuring", force=True)
        seed = self.preset.samples.seed
        one = score_all(judge, seen, reference, self.preset.measures, step=step, run=run, seed=seed)
        self.done.append(one)
        atomic.write_json(
            self.run.path / SCORES, [scores.model_dump(mode="json") for scores in self.done]
        )
        shutil.rmtree(folder, ignore_errors=True)
        if self.stop:
            raise self.stop.stopped("the scores so far")
        return one

    def _telling(self, what: str) -> Callable[[int, int], None]:
        counter = self.progress.counting(f"features ({what}): images")

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        return told


def _earlier(path: Path) -> list[Scores]:
    """What an attempt before has scored; nothing where that cannot be read."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(list[Scores]).validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return []


def _conclude(
    work: _Work, real: Images, judges: Sequence[Judge], found: list[list[Scores]], seconds: float
) -> Outcome:
    run, subject, reals = work.run, work.subject, work.reals
    base: dict[str, ProtocolValue] = {
        "samples": len(subject.candidates[-1].pixels),
        "real_images": len(reals),
        "real_part": work.preset.reference.part,
        **subject.protocol,
        "size": f"{subject.side}×{subject.side}",
        "real_framing": reals.told,
        "bit_depth": 8,
        "precision": "32",
    }
    if work.preset.reference.images is not None:
        base["real_seed"] = work.preset.reference.seed
    rows, findings, lines = [], [], []
    for judge, several in zip(judges, found, strict=True):
        protocol = {
            **base,
            "network": judge.name,
            "network_weights": judge.weights[:16],
            "resize": judge.resize,
        }
        own = [
            measurement(
                several,
                which,
                subject=subject.name,
                dataset=real.source.name,
                split=real.source.split_rule,
                protocol=protocol,
            )
            for which in range(len(several[0].numbers))
        ]
        rows += own
        findings.append(Finding(text=_headline(own[0], several), verdict="note"))
        few = warning(several[-1], len(reals), judge.dims[FEATURES])
        findings += [
            Finding(text=said, verdict="bad") for said in (few, judge.said) if said is not None
        ]
        lines += _lines(subject, several)
    title = f"{subject.name} beside {real.source.name}"
    pictures = _pictures(work, title, lines)
    report = Report(
        job="score",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=findings,
        measurements=rows,
        curves=lines,
        pictures=pictures,
        data=common.describe(real.source),
        weights=str(subject.parents[0]["sha256"]),
        cost={"seconds": round(seconds, 1)},
        **reports.left_out(real.left_out),
    )
    run.write_report(report)
    # A kill between the last score and the end of its features leaves those behind.
    shutil.rmtree(run.path / _UNFINISHED, ignore_errors=True)
    run.finish()
    return Outcome(run.path, report)


def _headline(row: reports.Measurement, several: Sequence[Scores]) -> str:
    spread = ""
    runs = by_run(several)
    if len(several) > 1:
        steps = [str(scores.step) for scores in runs[0]]
        of = f"{len(steps)} checkpoints ({steps[0]} to {steps[-1]})"
        if len(runs) > 1:
            of = f"{len(runs)} trainings" + (f", each over {of}" if len(steps) > 1 else "")
        spread = f" ± {row.protocol['standard_deviation']:.3g} over {of}"
    return (
        f"{row.metric} of {row.subject}: {row.value:.4g}{spread}, {row.n} samples beside "
        f"{row.protocol['real_images']} images of {row.dataset} ({row.split})"
    )


def _lines(subject: Subject, several: Sequence[Scores]) -> list[Curve]:
    """Every number over the steps of each training, distance and score also over its time."""
    times = {(one.run, one.step): one.seconds for one in subject.candidates}
    parts = [part for part in by_run(several) if len(part) > 1]
    drawn = []
    for which, number in enumerate(several[0].numbers):
        label = f"{number.name}, {number.unit}" if number.unit else number.name
        for part in parts:
            of = f", {part[0].run}" if len(parts) > 1 else ""
            values = [scores.numbers[which].value for scores in part]
            steps = [float(scores.step or 0) for scores in part]
            seconds = [times[scores.run, scores.step] for scores in part]
            known = [one for one in seconds if one is not None]
            name = f"{number.name}{of}"
            drawn.append(
                Curve(
                    name=name, x_label="step", y_label=label,
                    points=list(zip(steps, values, strict=True)),
                )
            )  # fmt: skip
            if number.what in _OVER_TIME and len(known) == len(values):
                drawn.append(
                    Curve(
                        name=name, x_label=_TIME, y_label=f"{label} by {_TIME}",
                        points=list(zip(known, values, strict=True)),
                    )
                )  # fmt: skip
    return drawn


def _pictures(work: _Work, title: str, lines: Sequence[Curve]) -> list[Picture]:
    pixels = work.subject.candidates[-1].pixels
    count = min(_SHOWN, len(pixels))
    shown = torch.cat(list(pixels.read([(0, count)], _BATCH))).cpu()
    gan_sheets.grid(work.run.picture("samples.png"), shown, title=title)
    out = [Picture(file="pictures/samples.png", caption=f"The first {count} that were scored.")]
    if lines:
        curves.draw(work.run.picture("scores.png"), lines, title=title)
        out.append(
            Picture(file="pictures/scores.png", caption="The scores at each step that was kept.")
        )
    return out


def _rehearse(preset: Score, subject: Subject, judges: Sequence[Judge], reals: Reals) -> Outcome:
    found = (one.step for one in subject.candidates if one.step is not None)
    steps = list(dict.fromkeys(found))
    samples = len(subject.candidates[-1].pixels)
    runs = len({one.run for one in subject.candidates})
    text = (
        f"scored: {subject.name}"
        + (f", {runs} trainings" if runs > 1 else "")
        + (f", steps {', '.join(map(str, steps))}" if steps else "")
        + f", {samples} images each\n"
        f"beside: {len(reals)} images of {reals.source.name} ({reals.source.split_rule}), "
        f"{reals.told}\n"
        f"by: {', '.join(judge.name for judge in judges)}\n"
        f"work: {len(judges) * (len(subject.candidates) * samples + len(reals))} images through "
        "a network"
    )
    facts = {
        "steps": steps,
        "trainings": runs,
        "samples": samples,
        "real_images": len(reals),
        "judges": [judge.name for judge in judges],
    }
    return Outcome(text=text, data=facts)
