"""`selfsup probe`: what each frozen layer knows, beside random weights and still videos."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from selfsup_cli.config.evaluation import Probe
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import processes, signals
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
from selfsup_cli.jobs.thesis import beside
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
    share: bool = False,
) -> Outcome:
    """Train linear classifiers on every layer and report them with their controls.

    Features are kept in the cache, so a run that was stopped goes on where it was. With
    `machine.devices > 1` that many processes extract them, of which each calls this with `share`:
    extract features together with the others, and do no more. Raises InputError, MachineError and
    Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, Probe)  # noqa: S101 (the command and the preset belong together)
    subject = load_subject(preset.subject, "video")
    layers = _layers(preset, subject.learned)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        train, test = common.open_labelled(preset.data, preset.machine, progress)
        if dry_run:
            return _rehearse(preset, subject, layers, train, test)
        extraction = _Extraction(preset, layers, train, test, hardware, progress, stop)
        wanted = _wanted(preset, subject)
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                for which in wanted:
                    extraction(*which)
        if share or processes.rank() > 0:
            return Outcome()
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
        if record.complete:  # a requeued job that gave it no name finds it here
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            common.list_bad(record, train, test)
            began = time.monotonic()
            if preset.machine.devices > 1 and not processes.launched():
                processes.launch(preset.machine.devices, _share, resolved)
            found: list[tuple[ProbeResult, list[Measurement]]] = []
            for name, network, control in wanted:
                found += _measure(extraction, name, network, control)
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


@dataclass
class _Extraction:
    """Features of both parts, from the cache as far as they are there."""

    preset: Probe
    layers: list[str]
    train: Videos
    test: Videos
    hardware: Hardware
    progress: Progress
    stop: StopFlag

    def __call__(
        self, name: str, network: Backbone, control: str | None
    ) -> tuple[Labelled, Labelled]:
        """Of one network: of the training and of the test part."""
        what = f"{name}{f', {control} videos' if control else ''}"
        clips = self.preset.clips
        training = self._part(network, control, self.train.source, f"{what}, train", clips.train)
        testing = self._part(network, control, self.test.source, f"{what}, test", clips.test)
        return training, testing

    def _part(
        self, network: Backbone, control: str | None, source: ClipSource, what: str, count: int
    ) -> Labelled:
        clips = ClipProtocol(
            network.input.frames,
            self.preset.clips.max_skip,
            count,
            control="still" if control == STILL else None,
        )
        counter = self.progress.counting(f"features ({what}): videos")

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        features = extract(
            network,
            source,
            clips,
            hardware=self.hardware,
            layers=self.layers,
            grid=self.preset.probe.grid,
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=told,
        )
        if source.labels is None or source.classes is None:
            raise InputError(f"{source.name} has no labels to probe with", kind="unlabelled")
        return Labelled(features, source.labels, source.classes, source.ids)


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    probe(resolved, share=True)


def _measure(
    extraction: _Extraction, name: str, network: Backbone, control: str | None
) -> list[tuple[ProbeResult, list[Measurement]]]:
    """Extract one network's features of both parts and probe its layers."""
    preset, train, test = extraction.preset, extraction.train, extraction.test
    what = f"{name}{f', {control} videos' if control else ''}"
    training, testing = extraction(name, network, control)
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
    for layer in extraction.layers:
        extraction.progress.update(f"probing {layer} ({what})", force=True)
        result = probe_layer(
            training, testing, layer, preset.probe, extraction.hardware, stop=extraction.stop
        )
        rows = measurements(
            result,
            subject=name,
            dataset=train.source.name,
            split=test.source.split_rule,
            protocol=protocol,
            control=control,
        )
        if name == LEARNED:
            task = "still" if control == STILL else "frozen"
            rows = [
                beside(task, row, network, layer=layer, classifier="one linear layer")
                for row in rows
            ]
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
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=[
            *findings.of_probe([(result, own[0]) for result, own in found]),
            *findings.seen_before(subject.learned.trained_on, test.source),
            *findings.shared_recordings(train.source, test.source),
        ],
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
