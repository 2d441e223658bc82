"""`selfsup score`: how near a generator's samples, or any images, come to real ones."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfsup_cli.config.generated import Score
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import Resolved
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.gan_pixels import Reals, Samples, image_generator, one_side, some
from selfsup_cli.evaluation.gan_scores import Reference, Scores, measurement, score_all, warning
from selfsup_cli.evaluation.judges import FEATURES, Judge, Pixels, exact, see
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.generators import Origin, find_generators, weights_of
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.judges import load_judges
from selfsup_cli.jobs.shortcuts import machine
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Curve, Finding, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import curves, gan_sheets

SCORES = "scores.json"
_UNFINISHED = ".features"
_SHOWN = 64
_BATCH = 100


@dataclass(frozen=True)
class Candidate:
    """Images that are scored: those of a generator at `step`, or None of no generator."""

    step: int | None
    pixels: Pixels


@dataclass(frozen=True)
class Subject:
    """What is scored: its name, the candidates in order of their steps, and what is said of it."""

    name: str
    arch: str
    side: int
    candidates: list[Candidate]
    protocol: dict[str, ProtocolValue]
    parents: list[dict[str, Any]]
    data: ImageData


def score(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Score the newest generators of a run, or images, by every network that is named.

    What has been scored stays, and so do features of real images (in the cache) and of the samples
    at hand, so that a run that was stopped goes on where it was. Raises InputError, MachineError
    and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, Score)  # noqa: S101 (command and preset belong together)
    hardware = choose(preset.machine.device)
    tune_allocator()
    judges = load_judges(preset.judges, hardware.device)
    with signals.catching() as stop, Progress(quiet=quiet) as progress, exact():
        subject = _subject(preset, hardware.device, progress)
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


def _subject(preset: Score, device: torch.device, progress: Progress) -> Subject:
    if preset.subject.images is not None:
        return _images(preset, progress)
    origin = find_generators(preset.subject)
    settings = preset.samples
    steps = sorted(origin.files)[-preset.subject.checkpoints :]
    candidates: list[Candidate] = []
    for step in steps:
        _, found = origin.at(step)
        network, weights = weights_of(found, preset.subject.weights)
        side = image_generator(network, origin.name).size
        sampler = Sampler(
            network, batch_norm=settings.batch_norm, batch=settings.batch, device=device
        )
        latents = Latents(settings.seed, network.latent, settings.truncation)
        key = f"{found.sha256}/{weights}"
        candidates.append(Candidate(step, Samples(sampler, latents, settings.count, key)))
    protocol: dict[str, ProtocolValue] = {
        "weights": weights,
        "batch_norm": sampler.told,
        "truncation": "none" if settings.truncation is None else settings.truncation,
        "seed": settings.seed,
    }
    parents = [{"run": origin.name, "arch": "dfgan", "sha256": found.sha256}]
    data = _data(origin, preset)
    return Subject(origin.name, "dfgan", side, candidates, protocol, parents, data)


def _data(origin: Origin, preset: Score) -> ImageData:
    data = origin.data(preset.data)
    if data.source is None:
        raise InputError("say which real images to compare with: --data", kind="no-data")
    return data


def _images(preset: Score, progress: Progress) -> Subject:
    name = str(preset.subject.images)
    if preset.subject.run is not None:
        raise InputError("either --from or --images is scored, not both", kind="usage")
    if preset.data.source is None:
        raise InputError(
            "--images: images of no run have no data of their own to be compared with; say which "
            "with --data",
            kind="no-data",
        )
    asked = ImageData(source=name, max_bad=preset.data.max_bad)
    source = open_images(
        asked, "all", labels=False, machine=machine(preset.machine), progress=progress
    ).source
    chosen = some(source, preset.samples.count, preset.samples.seed)
    side = one_side(source)
    pixels = Reals(chosen, side, workers=loader_workers(preset.machine.workers))
    protocol: dict[str, ProtocolValue] = {"weights": "images as given", "seed": preset.samples.seed}
    parents = [{"images": name, "sha256": source.fingerprint}]
    return Subject(
        source.name, "images", side, [Candidate(None, pixels)], protocol, parents, preset.data
    )


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
        return next(
            (s for s in self.done if (s.judge, s.step) == (judge.name, candidate.step)), None
        )

    def _score(self, judge: Judge, candidate: Candidate, reference: Reference) -> Scores:
        step = candidate.step
        what = f"{judge.name}, samples" + ("" if step is None else f" of step {step}")
        folder = self.run.path / _UNFINISHED
        seen = see(judge, candidate.pixels, folder=folder, progress=self._telling(what))
        self.progress.update(f"{what}: measuring", force=True)
        seed = self.preset.samples.seed
        one = score_all(judge, seen, reference, self.preset.measures, step=step, seed=seed)
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
        if len(several) > 1:
            lines += [_line(several, which) for which in range(len(several[0].numbers))]
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
    run.finish()
    return Outcome(run.path, report)


def _headline(row: reports.Measurement, several: Sequence[Scores]) -> str:
    spread = ""
    if len(several) > 1:
        steps = [str(scores.step) for scores in several]
        spread = (
            f" ± {row.protocol['standard_deviation']:.3g} over {len(steps)} checkpoints "
            f"({steps[0]} to {steps[-1]})"
        )
    return (
        f"{row.metric} of {row.subject}: {row.value:.4g}{spread}, {row.n} samples beside "
        f"{row.protocol['real_images']} images of {row.dataset} ({row.split})"
    )


def _line(several: Sequence[Scores], which: int) -> Curve:
    name = several[0].numbers[which].name
    unit = several[0].numbers[which].unit
    points = [(float(scores.step or 0), scores.numbers[which].value) for scores in several]
    return Curve(
        name=name, x_label="step", y_label=f"{name}, {unit}" if unit else name, points=points
    )


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
    steps = [one.step for one in subject.candidates if one.step is not None]
    samples = len(subject.candidates[-1].pixels)
    text = (
        f"scored: {subject.name}"
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
        "samples": samples,
        "real_images": len(reals),
        "judges": [judge.name for judge in judges],
    }
    return Outcome(text=text, data=facts)
