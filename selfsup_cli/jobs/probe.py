"""`selfsup probe`: what each frozen layer knows, beside random weights and still videos."""

from __future__ import annotations

import time
from collections.abc import Sequence

from selfsup_cli.config.evaluation import Probe
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import extract
from selfsup_cli.evaluation.probe import Labelled, ProbeResult, measurements, probe_layer
from selfsup_cli.jobs import common, findings
from selfsup_cli.jobs.common import Outcome, Videos
from selfsup_cli.jobs.subject import LEARNED, Subject, load_subject
from selfsup_cli.models import Backbone
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Measurement, Picture, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import bars

STILL = "still"


def probe(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train linear classifiers on every layer and report them with their controls.

    Features are kept in the cache, so a run that was stopped goes on where it was. Raises
    InputError, MachineError and Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, Probe)  # noqa: S101 (the command and the preset belong together)
    subject = load_subject(preset.subject, "video")
    layers = _layers(preset, subject.learned)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        train, test = common.open_labelled(preset.data, preset.machine, progress)
        if dry_run:
            return _rehearse(preset, subject, layers, train, test)
        record = common.started_run(
            resolved,
            run,
            arch=subject.learned.arch,
            data=train.source.name,
            seed=preset.probe.seed,
            command=command,
            dataset=common.describe_both(train, test),
            parents=subject.parents,
        )
        with common.ending(record):
            record.set_status("running")
            began = time.monotonic()
            found: list[tuple[ProbeResult, list[Measurement]]] = []
            for name, network, control in _wanted(preset, subject):
                found += _measure(
                    preset, name, network, control, layers, train, test, hardware, progress, stop
                )
            seconds = time.monotonic() - began
            return _conclude(record, preset, subject, found, train, test, seconds)


def _wanted(preset: Probe, subject: Subject) -> list[tuple[str, Backbone, str | None]]:
    """Whose features are probed, and on which videos: the still ones are a control of ours."""
    wanted: list[tuple[str, Backbone, str | None]] = [
        (name, network, None) for name, network in subject.networks()
    ]
    if preset.probe.still:
        wanted.append((LEARNED, subject.learned, STILL))
    return wanted


def _layers(preset: Probe, backbone: Backbone) -> list[str]:
    for layer in preset.probe.layers:
        if layer not in backbone.layers:
            raise unknown("layer", layer, list(backbone.layers))
    return list(preset.probe.layers or backbone.layers)


def _measure(
    preset: Probe,
    name: str,
    network: Backbone,
    control: str | None,
    layers: list[str],
    train: Videos,
    test: Videos,
    hardware: Hardware,
    progress: Progress,
    stop: StopFlag,
) -> list[tuple[ProbeResult, list[Measurement]]]:
    """Extract one network's features of both parts and probe its layers."""
    what = f"{name}{f', {control} videos' if control else ''}"

    def labelled(source: ClipSource, part: str, count: int) -> Labelled:
        clips = ClipProtocol(
            network.input.frames,
            preset.clips.max_skip,
            count,
            control="still" if control == STILL else None,
        )
        counter = progress.counting(f"features ({what}, {part}): videos")

        def told(done: int, total: int) -> None:
            if stop:
                raise stop.stopped("the features extracted so far")
            counter(done, total)

        features = extract(
            network,
            source,
            clips,
            hardware=hardware,
            layers=layers,
            grid=preset.probe.grid,
            workers=loader_workers(preset.machine.workers),
            progress=told,
        )
        if source.labels is None or source.classes is None:
            raise InputError(f"{source.name} has no labels to probe with", kind="unlabelled")
        return Labelled(features, source.labels, source.classes, source.ids)

    training = labelled(train.source, "train", preset.clips.train)
    testing = labelled(test.source, "test", preset.clips.test)
    protocol: dict[str, reports.ProtocolValue] = {
        "training_clips": preset.clips.train,
        "test_clips": preset.clips.test,
        "frames": network.input.frames,
        "largest_skip": preset.clips.max_skip,
        "crop": network.input.pixels,
        "pooling": str(training.features.about["pooling"]),
        "epochs": preset.probe.epochs,
        "batch_size": preset.probe.batch_size,
        "training_videos": len(train.source),
        "weights": str(training.features.about["weights"])[:16],
        "seed": preset.probe.seed,
    }
    out = []
    for layer in layers:
        progress.update(f"probing {layer} ({what})", force=True)
        result = probe_layer(training, testing, layer, preset.probe, hardware, stop=stop)
        rows = measurements(
            result,
            subject=name,
            dataset=train.source.name,
            split=test.source.split_rule,
            protocol=protocol,
            control=control,
        )
        out.append((result, rows))
    return out


def _conclude(
    run: Run,
    preset: Probe,
    subject: Subject,
    found: list[tuple[ProbeResult, list[Measurement]]],
    train: Videos,
    test: Videos,
    seconds: float,
) -> Outcome:
    rows = [row for _, own in found for row in own]
    picture = run.picture("layers.png")
    bars.layers(picture, [own[0] for _, own in found], title=f"linear probes, {train.source.name}")
    report = Report(
        job="probe",
        run=run.name,
        command=" ".join(run.info.command),
        created=reports.now(),
        findings=findings.of_probe([(result, own[0]) for result, own in found]),
        measurements=rows,
        pictures=[
            Picture(
                file="pictures/layers.png",
                caption="Top-1 accuracy of linear probes by layer, with 95 % intervals; "
                "the dashed line is the best constant answer.",
            )
        ],
        data=common.describe_both(train, test),
        weights=subject.weights,
        cost={"seconds": round(seconds, 1)},
        **reports.left_out([*train.left_out, *test.left_out]),
    )
    run.write_report(report)
    run.finish()
    return Outcome(run.path, report)


def _rehearse(
    preset: Probe, subject: Subject, layers: list[str], train: Videos, test: Videos
) -> Outcome:
    passes = len(_wanted(preset, subject))
    clips = passes * (len(train.source) * preset.clips.train + len(test.source) * preset.clips.test)
    text = (
        f"from: {subject.run} ({subject.learned.arch}), layers {', '.join(layers)}\n"
        f"data: {len(train.source)} training and {len(test.source)} test videos of "
        f"{train.source.name} in {len(train.source.classes or ())} classes "
        f"({test.source.split_rule}); {len(train.left_out) + len(test.left_out)} left out\n"
        f"work: {clips} clips through the network in {passes} passes, "
        f"{passes * len(layers)} layers probed"
    )
    facts = {"clips": clips, "layers": layers, "from": subject.run, "weights": subject.weights}
    return Outcome(text=text, data=facts)
