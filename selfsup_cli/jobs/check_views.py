"""`selfsup data check` of recordings by several cameras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.data.multiview_layouts import find_recordings
from selfsup_cli.data.view_check import CameraCheck, PairCheck, ViewsChecked, check_views
from selfsup_cli.engine.progress import Progress
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predicted import make_folder
from selfsup_cli.visualization import recordings as pictures

_LISTED = 40
_CURVES = 12


def check(
    source: str, *, root: str | None = None, folder: Path | None = None, quiet: bool = False
) -> Outcome:
    """Look through every picture of the recordings that `source` names, once.

    Pictures of what was found go into `folder` (by default `check-NAME` here): coverage.png,
    subjects.png and, where they say something, scenes.png and offsets.png. Raises InputError.
    """
    found = find_recordings(source, root)
    with Progress(quiet=quiet) as progress:
        checked = check_views(found, progress=progress.counting("looking through cameras"))
    target = Path(f"check-{found.name}") if folder is None else folder
    drawn = [str(path) for path in draw(checked, target)] if checked.recordings else []
    problems = checked.all_problems()
    data: dict[str, Any] = {
        "name": found.name,
        "root": str(found.root),
        "problems": problems,
        "notes": found.notes,
        "pictures": drawn,
        "recordings": [
            {
                "id": one.raw.id,
                "subject": one.raw.subject,
                "sequence": one.raw.sequence,
                "action": one.raw.action,
                "frames": one.frames,
                "frames_per_second": one.raw.rate,
                "moving": round(float(one.moving.mean()), 4),
                "cameras": [_camera(each) for each in one.cameras],
                "pairs": [_pair(each, one.raw.rate) for each in one.pairs],
                "problems": one.problems,
                "remarks": one.remarks,
            }
            for one in checked.recordings
        ],
    }
    return Outcome(text="\n".join(_told(checked, problems, drawn)), data=data)


def draw(checked: ViewsChecked, folder: Path) -> Iterator[Path]:
    """Draw what was found into `folder`; gives the files that were written."""
    make_folder(folder)
    pictures.coverage(folder / "coverage.png", checked)
    yield folder / "coverage.png"
    pictures.subjects(folder / "subjects.png", checked)
    yield folder / "subjects.png"
    if pictures.scenes(folder / "scenes.png", checked):
        yield folder / "scenes.png"
    pairs = [
        (f"{one.raw.id} {pair.first} · {pair.second}", pair.offset, one.raw.rate)
        for one in checked.recordings
        for pair in one.pairs
    ]
    if pairs:
        title = "Offsets of cameras by what moves when"
        rate = pairs[0][2]
        shown = [(name, offset) for name, offset, _ in pairs[:_CURVES]]
        pictures.curves(folder / "offsets.png", shown, rate, title=title, score="correlation")
        yield folder / "offsets.png"


def _camera(each: CameraCheck) -> dict[str, Any]:
    missing = None
    if each.missing is not None:
        shares = zip(JOINTS, each.missing.tolist(), strict=True)
        missing = {name: round(share, 4) for name, share in shares if share > 0}
    return {
        "name": each.camera.name,
        "frames": each.frames,
        "frames_per_second": round(each.rate, 3) or None,
        "width": each.camera.width,
        "height": each.camera.height,
        "calibrated": each.camera.calibrated,
        "missing_joints": missing,
        "reprojection_pixels": None if each.misses is None else round(each.misses, 3),
        "others_miss_heights": None if each.strays is None else round(each.strays, 3),
        "median_clipped": round(each.survey.scene.clipped, 5),
    }


def _pair(each: PairCheck, rate: float) -> dict[str, Any]:
    offset = each.offset
    return {
        "first": each.first,
        "second": each.second,
        "frames": round(offset.peak, 2),
        "seconds": round(offset.peak / rate, 4),
        "interval": [round(offset.low, 2), round(offset.high, 2)],
        "correlation": round(offset.score, 4),
        "doubt": offset.doubt or None,
        "drift_ms_per_minute": None if each.drift is None else round(each.drift, 2),
    }


def _told(checked: ViewsChecked, problems: list[str], drawn: list[str]) -> Iterator[str]:
    """The result in lines."""
    found = checked.found
    subjects = list(dict.fromkeys(one.raw.subject for one in checked.recordings))
    cameras = list(
        dict.fromkeys(each.camera.name for one in checked.recordings for each in one.cameras)
    )
    frames = sum(each.frames for one in checked.recordings for each in one.cameras)
    yield f"{found.name}: {found.root}"
    yield (
        f"{len(checked.recordings)} recordings of {len(subjects)} subjects "
        f"({', '.join(subjects[:12])}{', …' if len(subjects) > 12 else ''}), {len(cameras)} "
        f"cameras ({', '.join(cameras[:8])}{', …' if len(cameras) > 8 else ''}), {frames} pictures"
    )
    known = [each for one in checked.recordings for each in one.cameras]
    calibrated = sum(each.camera.calibrated for each in known)
    jointed = sum(each.missing is not None for each in known)
    yield f"with a calibration: {calibrated} of {len(known)} cameras; with joints: {jointed}"
    yield ""
    if problems:
        yield "problems"
        yield from (f"  {said}" for said in problems[:_LISTED])
        if len(problems) > _LISTED:
            yield f"  … and {len(problems) - _LISTED} more (--json has them all)"
    else:
        yield "no problems"
    yield ""
    remarks = [f"{one.raw.id}: {said}" for one in checked.recordings for said in one.remarks]
    for said in (*found.notes, *remarks)[:_LISTED]:
        yield f"note: {said}"
    if drawn:
        yield f"pictures: {', '.join(drawn)}"
