"""`selfsup shortcuts`: do local cues alone solve the pretext task of a run?"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from selfsup_cli.config.blocks import Machine
from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import METHODS
from selfsup_cli.config.shortcuts import DetectShortcuts, LocalProbes
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.shortcut_scores import NETWORK, ShortcutReport
from selfsup_cli.evaluation.shortcuts import detect
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images, open_parts
from selfsup_cli.jobs.method_weights import FILE, load_method
from selfsup_cli.methods.image_pretext import ImagePretext
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.report import Picture, Report
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir
from selfsup_cli.visualization import shares

CAPTION = (
    "How often each transformation is told from its counterpart by what is shown a local cue only, "
    "and by the whole network; outlined is what gives a transformation away."
)


def shortcuts(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train small probes of local cues on the pretext task of a run, and report what they solve.

    Raises InputError, MachineError and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, DetectShortcuts)  # noqa: S101 (command and preset belong together)
    origin = find_run(preset.subject.run, runs_dir(), needs=unfit)
    method = load_method(origin)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        data = data_of(preset.data, method.preset)
        train, heldout = open_parts(data, machine(preset.machine), progress, labels=False)
        if dry_run:
            return _rehearse(preset.shortcuts, origin, method, train, heldout)
        record = common.started_run(
            resolved,
            run,
            arch=method.backbone.arch,
            data=train.source.name,
            seed=preset.shortcuts.seed,
            command=command,
            dataset=common.describe_both(train, heldout),
            parents=[_parent(origin, method)],
        )
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, train, heldout)
            began = time.monotonic()
            method.to(hardware.device)
            found = detect(
                method, train.source, heldout.source, hardware, preset.shortcuts, progress, stop
            )
            seconds = time.monotonic() - began
            return _conclude(record, origin, found, train, heldout, seconds)


def draw(found: ShortcutReport, path: Path, title: str) -> None:
    """A table of what each cue and the network recognise, as a PNG."""
    cells = {}
    for score in found.scores:
        if score.kind is None:
            continue
        interval = score.interval
        cells[score.kind, score.subject] = shares.Share(
            score.value,
            None if interval is None else (interval.high - interval.low) / 2,
            score.chance,
            marked=score.subject != NETWORK and score.exceeds(found.margin) is True,
        )
    against = found.score(NETWORK, found.judged[0]).against
    shares.table(
        path,
        found.judged,
        [*found.cues, NETWORK],
        cells,
        title=title,
        note=f"Share of right answers when a transformation is told from {against}, on held-out "
        f"images, with 95 % intervals; chance is 0.50. Outlined: more than "
        f"{0.5 + found.margin:.2f}, interval and all.",
    )


def unfit(summary: RunSummary) -> str | None:
    """Why a run has no method that transforms images; None if it has."""
    verb, _, name = summary.job.partition("/")
    if verb != "pretrain" or name not in METHODS:
        return "it is no pretraining"
    if METHODS[name].kind != "image":
        return "it learned from videos, not from images"
    if not (summary.path / FILE).is_file():
        return f"it has no {FILE}"
    return None


def data_of(data: ImageData, trained: PretrainImages) -> ImageData:
    """The data that was asked for; those that were trained on where none was."""
    return trained.data if data.source is None else data


def machine(settings: OneMachine) -> Machine:
    """The same as the machine of other jobs."""
    return Machine(device=settings.device, workers=settings.workers)


def _parent(origin: Run, method: ImagePretext) -> dict[str, str]:
    weights = origin.path / "backbone.safetensors"
    return {"run": origin.name, "arch": method.backbone.arch, "sha256": file_sha256(weights)}


def _conclude(
    run: Run,
    origin: Run,
    found: ShortcutReport,
    train: Images,
    heldout: Images,
    seconds: float,
) -> Outcome:
    draw(found, run.picture("shortcuts.png"), f"Shortcuts: {origin.name} on {train.source.name}")
    report = Report(
        job="shortcuts",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=found.findings(),
        measurements=found.measurements(
            dataset=heldout.source.name, split=heldout.source.split_rule
        ),
        pictures=[Picture(file="pictures/shortcuts.png", caption=CAPTION)],
        data=common.describe_both(train, heldout),
        weights=file_sha256(origin.path / "backbone.safetensors"),
        cost={"seconds": round(seconds, 1)},
        **reports.left_out([*train.left_out, *heldout.left_out]),
    )
    run.write_report(report)
    run.finish()
    return Outcome(run.path, report)


def _rehearse(
    settings: LocalProbes, origin: Run, method: ImagePretext, train: Images, heldout: Images
) -> Outcome:
    learned, judged = (
        min(settings.images, len(train.source)),
        min(settings.heldout, len(heldout.source)),
    )
    text = (
        f"from: {origin.name} ({method.backbone.arch}), which tells {', '.join(method.kinds)}\n"
        f"data: {learned} of {len(train.source)} training images of {train.source.name}, "
        f"{judged} of {len(heldout.source)} held out ({heldout.source.split_rule})\n"
        f"work: {settings.steps} updates of the probes of four cues"
    )
    facts = {"from": origin.name, "kinds": list(method.kinds), "train": learned, "heldout": judged}
    return Outcome(text=text, data=facts)
