"""`selfsup probe` on images: what each frozen layer knows, beside random weights."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from selfsup_cli.config.image_evaluation import ProbeImages
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import unknown
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.features import extract
from selfsup_cli.evaluation.labelled import Labelled
from selfsup_cli.evaluation.multilabel import attribute_measurement, probe_attributes
from selfsup_cli.evaluation.pooling import Cells, Pooling, Unpooled, of_thesis
from selfsup_cli.evaluation.probe import measurements, probe_layer
from selfsup_cli.evaluation.views import ImageViews, shorter_side
from selfsup_cli.jobs import common, findings, images
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.repeats import mean_of
from selfsup_cli.jobs.subject import LEARNED, RANDOM, Subject, load_subject
from selfsup_cli.jobs.thesis import beside_layer
from selfsup_cli.models import Backbone
from selfsup_cli.models.unpadded import unpadded
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import bars

BATCH = 256
"""Views that pass through the network at once."""


@dataclass(frozen=True)
class Fold:
    """What is trained on: `among` int64 are its places in the training part, None all of it."""

    rule: str
    among: np.ndarray | None = None


@dataclass(frozen=True)
class Probed:
    """A layer of a network: its measurements, and how good it was on images held out."""

    validation: float | None
    rows: list[Measurement]


def probe_images(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    share: bool = False,
) -> Outcome:
    """Train linear classifiers on every layer and report them beside those on random weights.

    Images with several attributes get one classifier for each, and mean average precision. Features
    are kept in the cache, so a run that was stopped goes on where it was. With
    `machine.devices > 1` that many processes extract them, of which each calls this with `share`:
    extract features together with the others, and do no more. Raises InputError, MachineError and
    Stopped.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, ProbeImages)  # noqa: S101 (the command and the preset belong together)
    subject = _subject(preset)
    layers = _layers(preset, subject.learned)
    hardware = choose(preset.machine.device)
    tune_allocator()
    with signals.catching() as stop, Progress(quiet=quiet or processes.rank() > 0) as progress:
        train, test = images.open_labelled(preset.data, preset.machine, progress)
        folds = _folds(preset, train.source, progress)
        if dry_run:
            return _rehearse(preset, subject, layers, train, test)
        work = _Work(preset, layers, folds, train, test, hardware, progress, stop)
        if processes.launched():
            with processes.group(hardware.device.type), processes.mourning():
                for name, network in subject.networks():
                    work.extract(name, network)
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
            found: list[Probed] = []
            for name, network in subject.networks():
                found += work.measure(name, network)
            seconds = time.monotonic() - began
            return _conclude(record, preset, subject, found, train, test, seconds)


def _share(resolved: Resolved) -> None:
    """One process of several, which extract features together."""
    probe_images(resolved, share=True)


def _subject(preset: ProbeImages) -> Subject:
    """The networks; with `views.unpadded` as they see larger images."""
    subject = load_subject(preset.subject, "image")
    crop = preset.views.unpadded
    if crop is None:
        return subject
    resize = round(crop * 256 / 227)
    random = None if subject.random is None else unpadded(subject.random, crop, resize)
    return replace(subject, learned=unpadded(subject.learned, crop, resize), random=random)


def _layers(preset: ProbeImages, backbone: Backbone) -> list[str]:
    for layer in preset.probe.layers:
        if layer not in backbone.layers:
            raise unknown("layer", layer, list(backbone.layers))
    return list(preset.probe.layers or backbone.layers)


def _folds(preset: ProbeImages, whole: ImageSource, progress: Progress) -> list[Fold]:
    """The folds to train on one by one, or the whole training part."""
    if not preset.folds:
        return [Fold(whole.split_rule)]
    places = {identifier: place for place, identifier in enumerate(whole.ids)}
    out = []
    for number in preset.folds:
        source = images.open_fold(
            preset.data,
            number,
            whole,
            "--folds",
            labels=True,
            machine=preset.machine,
            progress=progress,
        ).source
        among = np.sort(np.array([places[identifier] for identifier in source.ids], np.int64))
        out.append(Fold(source.split_rule, among))
    return out


@dataclass
class _Work:
    """Features of both parts, and the probes on them."""

    preset: ProbeImages
    layers: list[str]
    folds: list[Fold]
    train: Images
    test: Images
    hardware: Hardware
    progress: Progress
    stop: StopFlag

    def __post_init__(self) -> None:
        count = self.preset.views.train
        self.train_views = ImageViews("random", count, self.preset.views.seed)
        if count == 0:
            self.train_views = ImageViews()
        self.test_views = ImageViews(self.preset.views.test)

    def extract(self, name: str, network: Backbone) -> tuple[Labelled, Labelled]:
        """All layers of a network in one pass: of the training and of the test part."""
        return (
            self._part(network, self.train.source, self.train_views, f"{name}, train"),
            self._part(network, self.test.source, self.test_views, f"{name}, test"),
        )

    def _part(
        self, network: Backbone, source: ImageSource, views: ImageViews, what: str
    ) -> Labelled:
        counter = self.progress.counting(f"features ({what}): images")

        def told(done: int, total: int) -> None:
            if self.stop:
                raise self.stop.stopped("the features extracted so far")
            counter(done, total)

        features = extract(
            network,
            source,
            views,
            hardware=self.hardware,
            layers=self.layers,
            pooling=self._pooling(network),
            batch=BATCH,
            workers=loader_workers(self.preset.machine.workers, processes.members()),
            progress=told,
        )
        names = source.classes if source.attributes is None else source.attributes
        if source.labels is None or names is None:
            raise InputError(f"{source.name} has no labels to probe with", kind="unlabelled")
        return Labelled(features, source.labels, names, source.ids)

    def _pooling(self, network: Backbone) -> Pooling:
        match self.preset.probe.pooling:
            case "grid":
                return Cells(self.preset.probe.grid, "height and width")
            case "none":
                return Unpooled()
            case "thesis":
                return of_thesis(network)

    def measure(self, name: str, network: Backbone) -> list[Probed]:
        """Probe the layers of a network, on every fold."""
        training, testing = self.extract(name, network)
        probed = []
        for layer in self.layers:
            found = []
            for number, fold in enumerate(self.folds, 1):
                of = f", fold {number} of {len(self.folds)}" if len(self.folds) > 1 else ""
                self.progress.update(f"probing {layer} ({name}{of})", force=True)
                found.append(self._layer(name, network, training, testing, layer, fold))
            probed.append(self._beside(self._together(found), network, training, layer))
        return probed

    def _layer(
        self,
        name: str,
        network: Backbone,
        training: Labelled,
        testing: Labelled,
        layer: str,
        fold: Fold,
    ) -> Probed:
        preset = self.preset
        about = training.features.about
        protocol: dict[str, ProtocolValue] = {
            "training_views": self.train_views.told(),
            "test_views": self.test_views.told(),
            "crop": f"{network.input.crop} pixels of images whose shorter side is "
            f"{shorter_side(network.input)}",
            "pooling": str(about["pooling"]),
            "features": training.features.dims[layer],
            "epochs": preset.probe.epochs,
            "batch_size": preset.probe.batch_size,
            "training_images": len(training.labels) if fold.among is None else len(fold.among),
            "weights": str(about["weights"])[:16],
            "seed": preset.probe.seed,
        }
        split = self.test.source.split_rule if fold.among is None else fold.rule
        if training.labels.ndim == 2:
            attributes = probe_attributes(
                training,
                testing,
                layer,
                preset.probe,
                self.hardware,
                among=fold.among,
                stop=self.stop,
            )
            row = attribute_measurement(
                attributes,
                subject=name,
                dataset=self.train.source.name,
                split=split,
                protocol=protocol,
            )
            return Probed(attributes.validation, [row])
        classes = probe_layer(
            training,
            testing,
            layer,
            preset.probe,
            self.hardware,
            many="images",
            among=fold.among,
            stop=self.stop,
        )
        rows = measurements(
            classes,
            subject=name,
            dataset=self.train.source.name,
            split=split,
            protocol=protocol,
            medium="images",
        )
        return Probed(classes.validation, rows)

    def _together(self, found: list[Probed]) -> Probed:
        """One probe, or the mean of those on each fold."""
        if len(found) == 1:
            return found[0]
        told = [one.validation for one in found if one.validation is not None]
        split = f"mean over the official folds {', '.join(map(str, self.preset.folds))}"
        means = []
        for k, first in enumerate(found[0].rows):
            mean = mean_of([one.rows[k] for one in found])
            protocol = {
                **{name: first.protocol[name] for name in ("weights", "seed")},
                **mean.protocol,
                "folds": mean.protocol["runs"],
            }
            del protocol["runs"]
            means.append(mean.model_copy(update={"split": split, "protocol": protocol}))
        return Probed(fmean(told) if len(told) == len(found) else None, means)

    def _beside(self, one: Probed, network: Backbone, training: Labelled, layer: str) -> Probed:
        """The same, with the numbers of the thesis."""
        crops = "ten crops" if self.preset.views.test == "ten" else "single centre crop"
        rows = [
            beside_layer(
                row,
                network,
                classifier=f"one linear layer trained for {self.preset.probe.epochs} epochs",
                pooling=str(training.features.about["pooling"]),
                crop=network.input.crop,
                crops=crops,
            )
            for row in one.rows
        ]
        return replace(one, rows=rows)


def _conclude(
    run: Run,
    preset: ProbeImages,
    subject: Subject,
    found: list[Probed],
    train: Images,
    test: Images,
    seconds: float,
) -> Outcome:
    first = [(one, one.rows[0]) for one in found]
    metric, chance = first[0][1].metric, first[0][1].chance_is
    title = f"linear probes, {train.source.name}"
    bars.layers(run.picture("layers.png"), [row for _, row in first], title=title)
    report = Report(
        job="probe-images",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=[
            *findings.of_probe(first),
            *_deepest(subject, first),
            *_spread(preset, first),
            *findings.seen_before(subject.learned.trained_on, test.source),
            *_notes(test.source),
        ],
        measurements=[row for one in found for row in one.rows],
        pictures=[
            Picture(
                file="pictures/layers.png",
                caption=f"{metric[:1].upper()}{metric[1:]} of linear probes by layer, with 95 % "
                f"intervals; the dashed line is {chance}.",
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


def _deepest(subject: Subject, first: Sequence[tuple[Probed, Measurement]]) -> list[Finding]:
    """Learned beside random weights at the embedding's layer, unless that is the best one."""
    layer = subject.learned.embedding
    best = findings.best(first, LEARNED)
    own = {row.subject: row for _, row in first if row.layer == layer}
    if best is None or best[1].layer == layer or not {LEARNED, RANDOM} <= own.keys():
        return []
    return [findings.compare(f"linear probe of {layer}", own[LEARNED], own[RANDOM])]


def _spread(preset: ProbeImages, first: Sequence[tuple[Probed, Measurement]]) -> list[Finding]:
    """Mean and standard deviation over the folds, of the layer that validation chose."""
    best = findings.best(first, first[0][1].subject)
    if len(preset.folds) < 2 or best is None:
        return []
    row = best[1]
    values = row.protocol["values"]
    assert isinstance(values, list)  # noqa: S101 (`mean_of` put it there)
    text = (
        f"{row.layer} over {len(preset.folds)} folds: {row.value:.1f} % ± "
        f"{row.protocol['standard_deviation']:.1f} (standard deviation); each fold by itself "
        f"{', '.join(f'{value:.1f}' for value in values)}"
    )
    return [Finding(text=text, verdict="note")]


def _notes(source: ImageSource) -> list[Finding]:
    return [Finding(text=f"{source.name}: {note}", verdict="note") for note in source.notes]


def _rehearse(
    preset: ProbeImages, subject: Subject, layers: list[str], train: Images, test: Images
) -> Outcome:
    passes = len(subject.networks())
    each = (max(1, preset.views.train), len(ImageViews(preset.views.test)))
    views = passes * (len(train.source) * each[0] + len(test.source) * each[1])
    source = train.source
    several = source.attributes is not None
    names = source.attributes if several else source.classes
    folds = max(1, len(preset.folds))
    text = (
        f"from: {subject.run} ({subject.learned.arch}), layers {', '.join(layers)}\n"
        f"data: {len(source)} training and {len(test.source)} test images of {source.name} with "
        f"{len(names or ())} {'attributes' if several else 'classes'} ({test.source.split_rule}); "
        f"{len(train.left_out) + len(test.left_out)} left out\n"
        f"work: {views} views through the network in {passes} passes, "
        f"{passes * len(layers) * folds} probes"
    )
    facts = {"views": views, "layers": layers, "from": subject.run, "weights": subject.weights}
    return Outcome(text=text, data=facts)
