"""How jobs open synchronised views, divide them by subject, and find a network that compares."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup_cli.config.blocks import Machine
from selfsup_cli.config.figures import SUBJECTS
from selfsup_cli.config.multiview import FIGURES, MultiviewData, PretrainMultiview, ViewSource
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.registry import DATASETS, datasets, nearest
from selfsup_cli.data.view_pairs import Stretch
from selfsup_cli.data.view_selection import SomeCameras
from selfsup_cli.engine.devices import loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.method_weights import FILE, read_method
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.models import load_backbone
from selfsup_cli.models.siamese import Siamese
from selfsup_cli.models.weights import fill
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir

if TYPE_CHECKING:
    from selfsup_cli.data.multiview import Views

log = logging.getLogger("selfsup")

JOB = "pretrain/multiview"

# Subjects that a dataset tests on by itself.
_TESTED = {FIGURES: ("S9", "S11"), "human36m": ("S9", "S11")}
_OFFICIAL = "mpi_inf_3dhp"


@dataclass(frozen=True)
class Division:
    """What is learned from and what is held out, by whose rule; `by_time` where all of it is of
    the same subject."""

    train: tuple[Stretch, ...]
    test: tuple[Stretch, ...]
    rule: str
    by_time: bool = False


def open_views(
    data: MultiviewData,
    machine: Machine,
    progress: Progress,
    subjects: Sequence[str] | None = None,
    *,
    least_cameras: int = 2,
) -> Views:
    """Open the views that `data` names: of the `subjects`, or of those that it asks for, or of all.

    Each recording needs as many cameras as `least_cameras`. They are prepared once, into the cache
    folder. Raises InputError for what the user has to mend, and MachineError where the cache cannot
    be written.
    """
    if data.source is None:
        raise InputError(
            "no data: name synchronised views with --data: figures, human36m, or a folder "
            "SUBJECT/SEQUENCE/CAMERA of your own",
            kind="no-data",
        )
    other = DATASETS.get(data.source)
    if other is not None and other.kind != "view":
        raise InputError(
            f"{data.source} is a dataset of {other.kind}s, and this command reads synchronised "
            f"views: {', '.join(datasets('view'))}, or a folder of your own",
            kind="other-medium",
        )
    named = tuple(subjects or _wanted(data))
    told = progress.counting("preparing views")
    views: Views
    if data.source == FIGURES:
        from selfsup_cli.data.figures import open_figures

        views = open_figures(
            data.figures,
            data.side,
            subjects=named or SUBJECTS,
            workers=loader_workers(machine.workers, machine.devices),
            told=told,
        )
    else:
        from selfsup_cli.data.multiview_layouts import open_recordings

        views = open_recordings(
            data, subjects=named or None, told=told, least_cameras=least_cameras
        )
    return SomeCameras(views, data.cameras) if data.cameras else views


def _wanted(data: MultiviewData) -> tuple[str, ...]:
    """The subjects that are learned from and held out, as far as their names say; () is all.

    Where only those to learn from are named, the dataset's own are held out; where only those held
    out are named, or the dataset has none of its own, the rest is learned from or held out.
    """
    own = _TESTED.get(data.source or "", ())
    held_out = data.test_subjects or [one for one in own if one not in data.train_subjects]
    if not data.train_subjects or not held_out:
        return ()
    return (*data.train_subjects, *held_out)


def name_of(data: MultiviewData) -> str:
    """What the data is called in reports."""
    return Path(data.source or "data").name


def divide(views: Views, data: MultiviewData) -> Division:
    """Divide recordings by subject, or those of a single subject by time.

    Raises InputError for subjects that there are not, and where nothing is left to learn from.
    """
    known = list(dict.fromkeys(one.subject for one in views.recordings))
    for name in (*data.train_subjects, *data.test_subjects):
        if name not in known:
            raise InputError(
                f"there is no subject '{name}' in {name_of(data)}{nearest(name, known)}; there are "
                f"{', '.join(known)}",
                kind="unknown-subject",
            )
    if len(known) == 1 and not data.test_subjects:
        return _by_time(views, data)
    test, rule = _held_out(known, data)
    free = [one for one in known if one not in test]
    # What a dataset tests on is not learned from unasked.
    train = data.train_subjects or [one for one in free if one not in _tested(known, data)] or free
    if not train or not test:
        raise InputError(
            f"all subjects of {name_of(data)} ({', '.join(known)}) are "
            f"{'held out' if test else 'learned from'}; leave some to "
            f"{'learn from' if test else 'hold out'} (--train-subjects, --test-subjects)",
            kind="subjects",
        )
    parts = [
        tuple(
            Stretch(number, 0, one.frames)
            for number, one in enumerate(views.recordings)
            if one.subject in chosen
        )
        for chosen in (train, test)
    ]
    return Division(parts[0], parts[1], rule)


def _held_out(known: Sequence[str], data: MultiviewData) -> tuple[list[str], str]:
    """The subjects that are held out, and by whose rule."""
    if data.test_subjects:
        return list(data.test_subjects), f"subjects {', '.join(data.test_subjects)} held out"
    own = [one for one in _tested(known, data) if one not in data.train_subjects]
    if own:
        return own, f"official, subjects {', '.join(own)} held out"
    free = [one for one in known if one not in data.train_subjects]
    count = len(free) if data.train_subjects else math.ceil(data.test_share * len(free))
    chosen = free[len(free) - min(count, len(known) - 1) :]
    return chosen, f"the last subjects by name held out: {', '.join(chosen)}"


def _tested(known: Sequence[str], data: MultiviewData) -> list[str]:
    """The subjects that the dataset tests on by itself."""
    if data.source == _OFFICIAL:
        return [one for one in known if one.startswith("TS")]
    return [one for one in known if one in _TESTED.get(data.source or "", ())]


def _by_time(views: Views, data: MultiviewData) -> Division:
    """The end of every recording is held out."""
    train, test = [], []
    for number, one in enumerate(views.recordings):
        turn = one.frames - max(1, round(data.test_share * one.frames))
        train.append(Stretch(number, 0, turn))
        test.append(Stretch(number, turn, one.frames))
    subject = views.recordings[0].subject
    log.warning(
        "%s shows one subject (%s): the last %.0f %% of each recording are held out, which says "
        "nothing about other people",
        name_of(data),
        subject,
        100 * data.test_share,
    )
    rule = f"the last {data.test_share:.0%} of each recording held out, same subject"
    return Division(tuple(train), tuple(test), rule, by_time=True)


# Networks that compare


@dataclass(frozen=True)
class Compared:
    """A trained network that compares views, on the CPU in evaluation mode, and its preset.

    `run` is its run's name, `weights` the SHA-256 of its backbone.
    """

    network: Siamese
    preset: PretrainMultiview
    run: str
    weights: str

    @property
    def parents(self) -> list[dict[str, str]]:
        """For provenance."""
        arch = self.network.backbone.arch
        return [{"run": self.run, "arch": arch, "sha256": self.weights}]

    def require(self, question: str) -> None:
        """Raise InputError unless the network has learned to answer a question."""
        if question not in self.network.questions:
            raise InputError(
                f"{self.run} has not learned to tell synchronised views from others (it was "
                "pretrained with --signals flip); name another run with --from",
                kind="run-unfit",
            )


def find_comparing(name: str) -> Compared:
    """The network of a run of `pretrain multiview`, or of the newest finished one ("latest").

    Raises InputError where there is none, or its files are damaged.
    """
    run = find_run(name, runs_dir(), needs=_unfit)
    return Compared(
        load_siamese(run),
        _preset_of(run),
        run.name,
        file_sha256(run.path / "backbone.safetensors"),
    )


def load_siamese(run: Run) -> Siamese:
    """The network of a finished run, on the CPU in evaluation mode."""
    preset = _preset_of(run)
    # What it began with does not matter, and need not be there any more.
    network = preset.network.model_copy(update={"weights": None, "init": "random"})
    method = Multiview(preset.model_copy(update={"network": network}))
    backbone = load_backbone(run.path / "backbone.safetensors")
    path = run.path / FILE
    own = {f"recogniser.backbone.{name}": value for name, value in backbone.state_dict().items()}
    fill(path, method, own | read_method(path), "the method")
    method.backbone.trained_on = backbone.trained_on
    return method.plain.eval()


def _preset_of(run: Run) -> PretrainMultiview:
    if run.info.job != JOB:
        raise InputError(f"{run.name} is no {JOB} but {run.info.job}", kind="run-unfit")
    preset = resolve(JOB, preset=str(run.path / "preset.yaml"), env={}).preset
    assert isinstance(preset, PretrainMultiview)  # noqa: S101 (what the job asks for)
    return preset


def _unfit(summary: RunSummary) -> str | None:
    if summary.job != JOB:
        return "it did not learn to compare views (selfsup pretrain multiview does)"
    return None if (summary.path / FILE).is_file() else f"it has no {FILE}"


def data_for(data: ViewSource, compared: Compared) -> MultiviewData:
    """What a network is looked at with: `data`, or without a source what it learned from and held
    out; in crops of the size that it learned from."""
    own = compared.preset.data
    if data.source is None:
        told = {
            name: getattr(data, name) for name in ("cameras", "train_subjects", "test_subjects")
        }
        changed = own.model_copy(update={name: value for name, value in told.items() if value})
        both = sorted(set(changed.train_subjects) & set(changed.test_subjects))
        if both:
            raise InputError(
                f"{', '.join(both)} cannot be held out and learned from at once (run "
                f"{compared.run}: {', '.join(own.train_subjects) or 'all others'} learned from, "
                f"{', '.join(own.test_subjects) or 'those of the dataset'} held out)",
                kind="subjects",
            )
        return changed
    given = data.model_dump(mode="json")
    return MultiviewData.model_validate_json(json.dumps({**given, "side": own.side}))


def require_unseen(
    compared: Compared, views: Views, division: Division, data: MultiviewData
) -> None:
    """Raise InputError where subjects that are held out are of those that the network has learned
    from; `views` were opened for `data`."""
    own = compared.preset.data
    if division.by_time or (own.source, own.root) != (data.source, data.root):
        return
    known = list(dict.fromkeys(one.subject for one in views.recordings))
    learned = own.train_subjects
    if not learned:
        # Which of a folder's own subjects are the last by name, only all of them say.
        if not (own.test_subjects or _tested(known, own)) and _wanted(data):
            return
        held_out, _ = _held_out(known, own)
        learned = [one for one in known if one not in (*held_out, *_tested(known, own))]
    test = dict.fromkeys(views.recordings[one.recording].subject for one in division.test)
    both = [name for name in test if name in learned]
    if both and len(known) > 1:
        raise InputError(
            f"{', '.join(both)} cannot be judged as unseen: {compared.run} has learned from "
            f"{', '.join(learned)}; name others with --test-subjects",
            kind="subjects",
        )


def background_for(asked: str, compared: Compared) -> str:
    """What becomes of backgrounds where a network is looked at: "remove" or "keep"."""
    if asked != "auto":
        return asked
    learned = compared.preset.pairs.background
    return "keep" if learned in ("keep", "substitute") else "remove"
