"""`selfsup retrieve sync`: views that a network takes for synchronised (figures 6.5 and 6.6)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.multiview import RATE
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.synchrony import RetrieveSync, SyncSearch
from selfsup_cli.data.view_pairs import Stretch, at_rate
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.view_features import Moment, Viewer
from selfsup_cli.evaluation.view_retrieval import (
    Timing,
    by_pose,
    closeness,
    timing_measurements,
)
from selfsup_cli.jobs import common, findings
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.multiview import (
    Compared,
    background_for,
    data_for,
    divide,
    find_comparing,
    name_of,
    open_views,
    require_unseen,
)
from selfsup_cli.jobs.probe_sync import describe_views
from selfsup_cli.randomness import generator
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization.retrieved_views import Shown, view_sheet

if TYPE_CHECKING:
    from selfsup_cli.data.multiview import Views


@dataclass(frozen=True)
class Query:
    """A frame that is looked for: who and when, by which camera, and where else it is sought."""

    moment: Moment
    subject: str
    other_camera: int


@dataclass(frozen=True)
class Answer:
    """The best candidate for a query, and its logit."""

    moment: Moment
    logit: float


def retrieve_sync(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Look for frames that go with those of unseen subjects: other people's, other cameras'.

    Raises InputError, MachineError and Stopped, each a sentence for the user.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, RetrieveSync)  # noqa: S101 (command and preset belong together)
    compared = find_comparing(preset.subject.run)
    compared.require("sync")
    data = data_for(preset.data, compared)
    hardware = choose(preset.machine.device)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        views = open_views(data, preset.machine, progress)
        division = divide(views, data)
        require_unseen(compared, views, division, data)
        queries = chosen_queries(views, division.test, preset.search)
        if dry_run:
            return _rehearse(preset, compared, views, queries)
        name = name_of(data)
        about = describe_views(views, name, division.rule)
        record = common.started_run(
            resolved,
            run,
            arch=compared.network.backbone.arch,
            data=name,
            seed=preset.search.seed,
            command=command,
            dataset=about,
            parents=list(compared.parents),
        )
        if record.complete:
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            began = time.monotonic()
            background = background_for(preset.subject.background, compared)
            viewer = Viewer(compared.network, views, hardware, background=background)
            split = f"queries: {division.rule}"
            protocol: dict[str, ProtocolValue] = {
                "background": background,
                "side": data.side,
                "seed": preset.search.seed,
            }
            counted = progress.counting("views")
            timing = other_camera(viewer, queries, preset.search, counted)
            rows = timing_measurements(timing, name, split, protocol, preset.search.step)
            if stop:
                raise stop.stopped("other cameras")
            matches = other_subjects(viewer, queries, preset.search, counted)
            rows += _by_pose(views, matches, preset.search, name, split, protocol)
            pictures = _pictures(record, viewer, queries, timing, matches, preset.search.sheet)
            report = Report(
                job="retrieve-sync",
                run=record.name,
                command=shlex.join(record.info.command),
                created=reports.now(),
                findings=found(rows),
                measurements=rows,
                pictures=pictures,
                data=about,
                weights=compared.weights,
                cost={"seconds": round(time.monotonic() - began, 1)},
            )
            record.write_report(report)
            record.finish()
            return Outcome(record.path, report)


def chosen_queries(views: Views, stretches: Sequence[Stretch], settings: SyncSearch) -> list[Query]:
    """Frames evenly spread over stretches, their cameras drawn. They are among the candidates of
    another camera, which are `step` frames apart."""
    total = sum(map(len, stretches))
    places = np.linspace(0, total - 1, min(settings.queries, total)).round().astype(int)
    ends = np.cumsum([len(one) for one in stretches])
    out = []
    for number, place in enumerate(np.unique(places).tolist()):
        which = int(np.searchsorted(ends, place, side="right"))
        stretch = stretches[which]
        frame = place - int(ends[which]) + len(stretch)
        frame = stretch.first + frame // settings.step * settings.step
        recording = views.recordings[stretch.recording]
        cameras = len(recording.cameras)
        if cameras < 2:
            raise InputError(
                f"{recording.id} was seen by one camera; another one is what is searched",
                kind="one-camera",
            )
        g = generator(settings.seed, number, "query")
        one = int(torch.randint(cameras, (), generator=g))
        two = (one + 1 + int(torch.randint(cameras - 1, (), generator=g))) % cameras
        out.append(Query((stretch.recording, one, frame), recording.subject, two))
    return out


def other_camera(
    viewer: Viewer, queries: Sequence[Query], settings: SyncSearch, counted: Any = None
) -> list[Timing]:
    """Of the same recording, the frame of another camera that goes best with each query."""
    out = []
    for number, query in enumerate(queries):
        recording, _, frame = query.moment
        here = viewer.views.recordings[recording]
        frames = np.arange(frame % settings.step, here.frames, settings.step)
        candidates = viewer.features((recording, query.other_camera, int(t)) for t in frames)
        own = viewer.features([query.moment])
        logits = viewer.scores(own, candidates)[0].numpy()
        best = int(logits.argmax())
        out.append(
            Timing(
                recording=recording,
                frame=frame,
                found=int(frames[best]),
                logit=float(logits[best]),
                apart=at_rate(1, here.rate) * (frames - frame),
                best=best,
            )
        )
        if counted is not None:
            counted(number + 1, len(queries))
    return out


def gallery(views: Views, subject: str, most: int) -> list[Moment]:
    """Up to `most` views of a subject, evenly spread over its recordings, cameras and time."""
    whole = [
        (number, camera, one.frames)
        for number, one in enumerate(views.recordings)
        if one.subject == subject
        for camera in range(len(one.cameras))
    ]
    total = sum(count for _, _, count in whole)
    places = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
    ends = np.cumsum([count for _, _, count in whole])
    out = []
    for place in places.tolist():
        which = int(np.searchsorted(ends, place, side="right"))
        number, camera, count = whole[which]
        out.append((number, camera, place - int(ends[which]) + count))
    return out


@dataclass(frozen=True)
class Matches:
    """For a query the best view of every other subject, by name, and where it was looked for."""

    query: Query
    best: dict[str, Answer]
    galleries: dict[str, list[Moment]]


def other_subjects(
    viewer: Viewer, queries: Sequence[Query], settings: SyncSearch, counted: Any = None
) -> list[Matches]:
    """Of every other subject, the view that goes best with each query."""
    views = viewer.views
    subjects = list(dict.fromkeys(one.subject for one in views.recordings))
    galleries = {name: gallery(views, name, settings.gallery) for name in subjects}
    own = viewer.features([one.moment for one in queries])
    best: list[dict[str, Answer]] = [{} for _ in queries]
    for name, moments in galleries.items():
        asking = [k for k, one in enumerate(queries) if one.subject != name]
        if not asking:
            continue
        logits: Tensor = viewer.scores(own[asking], viewer.features(moments, counted))
        for k, row in zip(asking, logits, strict=True):
            place = int(row.argmax())
            best[k][name] = Answer(moments[place], float(row[place]))
    return [Matches(q, one, galleries) for q, one in zip(queries, best, strict=True)]


def _by_pose(
    views: Views,
    matches: Sequence[Matches],
    settings: SyncSearch,
    dataset: str,
    split: str,
    protocol: dict[str, ProtocolValue],
) -> list[Measurement]:
    """How alike the poses of queries and of what was found are, where poses are known."""
    pairs, drawn = [], []
    for number, one in enumerate(matches):
        for name, answer in one.best.items():
            g = generator(settings.seed, number, name, "random view")
            others = one.galleries[name]
            pairs.append((one.query.moment, answer.moment))
            drawn.append(
                (one.query.moment, others[int(torch.randint(len(others), (), generator=g))])
            )
    found, control = closeness(views, pairs), closeness(views, drawn)
    if found is None or control is None:
        return []
    told = {**protocol, "gallery": f"at most {settings.gallery} views of each other subject"}
    return by_pose(found, control, dataset, split, told)


def found(rows: Sequence[Measurement]) -> list[Finding]:
    """Whether the time is found by another camera, and poses like the query's by other people."""
    out = []
    within = next((row for row in rows if row.name.startswith("time found")), None)
    if within is not None:
        told = findings.against_chance(f"other cameras, {within.name}", within)
        out += [] if told is None else [told]
    poses = {row.subject: row for row in rows if row.metric == "PMPJPE"}
    if len(poses) == 2:
        learned, random = poses["learned"], poses["random view"]
        text = (
            f"poses of the best views of other subjects differ from the query's by "
            f"{learned.value:.0f} mm, of random views by {random.value:.0f} mm (PMPJPE): "
        )
        low, high = learned.interval, random.interval
        if low is not None and high is not None and low.high < high.low:
            out.append(Finding(text=text + "nearer by more than both intervals", verdict="good"))
        else:
            out.append(Finding(text=text + "no difference is shown", verdict="unclear"))
    return out


def _pictures(
    run: Run,
    viewer: Viewer,
    queries: Sequence[Query],
    timing: Sequence[Timing],
    matches: Sequence[Matches],
    count: int,
) -> list[Picture]:
    if not count:
        return []
    views = viewer.views
    places = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round())
    chosen = [int(place) for place in places]

    def shown(moment: Moment, said: str) -> Shown:
        recording, camera, frame = moment
        here = views.recordings[recording]
        where = f"{here.id}, {here.cameras[camera].name}, {frame}"
        return Shown(viewer.images(recording, camera, [frame])[0], where, said)

    subjects = list(dict.fromkeys(name for k in chosen for name in matches[k].best))
    rows = []
    for k in chosen:
        row: list[Shown | None] = [shown(queries[k].moment, "query")]
        for name in subjects:
            answer = matches[k].best.get(name)
            row.append(None if answer is None else shown(answer.moment, _sure(answer.logit)))
        rows.append(row)
    people = "For each query the view of every other subject that the network is surest of."
    view_sheet(
        run.picture("subjects.png"),
        rows,
        columns=["query", *subjects],
        title="Found among other subjects",
        note=f"{people} (figure 6.6)",
    )
    rows = []
    for k in chosen:
        one, query = timing[k], queries[k]
        recording, _, frame = query.moment
        other = query.other_camera
        late = float(one.apart[one.best])
        rows.append(
            [
                shown(query.moment, "query"),
                shown((recording, other, one.found), f"{late:+.0f} frames, {_sure(one.logit)}"),
                shown((recording, other, frame), "true"),
            ]
        )
    cameras = (
        "For each query the frame of another camera that the network is surest of, with how many "
        f"frames at {RATE} Hz it is late, and the true one."
    )
    view_sheet(
        run.picture("cameras.png"),
        rows,
        columns=["query", "found", "true"],
        title="Found by another camera",
        note=f"{cameras} (figure 6.5)",
    )
    return [
        Picture(file="pictures/subjects.png", caption=people),
        Picture(file="pictures/cameras.png", caption=cameras),
    ]


def _sure(logit: float) -> str:
    return f"{1 / (1 + np.exp(-logit)):.0%}"


def _rehearse(
    preset: RetrieveSync, compared: Compared, views: Views, queries: Sequence[Query]
) -> Outcome:
    subjects = list(dict.fromkeys(one.subject for one in views.recordings))
    frames = {
        (one.moment[0], one.other_camera): views.recordings[one.moment[0]].frames for one in queries
    }
    count = sum(frames.values()) // preset.search.step + preset.search.gallery * len(subjects)
    text = (
        f"from: {compared.run} ({compared.network.backbone.arch})\n"
        f"queries: {len(queries)} frames of {', '.join(sorted({one.subject for one in queries}))}\n"
        f"work: at most {count} images through the network"
    )
    facts: dict[str, Any] = {
        "from": compared.run,
        "weights": compared.weights,
        "queries": len(queries),
        "images": count,
    }
    return Outcome(text=text, data=facts)
