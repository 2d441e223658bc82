"""What `selfsup data check` has found, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from selfsup_cli.cli import report

_LINES = 50
_NAMES = 3
_ENDS = ("least", "median", "most")


def told(found: dict[str, Any]) -> Iterator[str]:
    """The result of a check in lines and tables."""
    yield f"{found['name']}: {found['storage'] or found['root']}"
    yield ""
    yield from _tables(found)
    yield from _bad(found)
    yield from _unusual(found)
    yield from _same(found)
    yield from _division(found)
    yield from _speeds(found)
    for out in found["left_out"]:
        yield f"left out: {out['id']}: {out['reason']}"
    for note in found["notes"]:
        yield f"note: {note}"
    if found["quarantine"]:
        yield f"quarantine: {found['quarantine']} (for --quarantine)"


def _tables(found: dict[str, Any]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        (f"{kind}s", *(str(row[name]) for name in ("files", "sound", "unusual", "bad")))
        for kind, row in found["counts"].items()
    ]
    others = found["other_files"]
    if others:
        rows.append(("other", str(sum(others.values())), "", "", ""))
    right = ("files", "sound", "of them unusual", "bad")
    yield report.table(("", *right), rows, right=right)
    if others:
        yield f"other files: {_counted(others)}"
    yield ""
    if ranges := _ranges(found, "frames", "seconds", "frames_per_second"):
        yield report.table(("sound videos", *_ENDS), ranges, right=_ENDS)
        yield f"sizes (width×height): {_counted(found['sizes'])}"
        yield f"codecs: {_counted(found['codecs'])}"
        yield ""
    if images := found["images"]:
        ranges = _ranges(images, "shorter_side", "longer_side")
        yield report.table(("sound images", *_ENDS), ranges, right=_ENDS)
        yield f"sizes (width×height): {_counted(images['sizes'])}"
        if images["formats"]:
            yield f"formats: {_counted(images['formats'])}"
        yield ""


def _ranges(found: dict[str, Any], *names: str) -> list[tuple[str, ...]]:
    return [
        (name.replace("_", " "), *(f"{found[name][end]:g}" for end in _ENDS))
        for name in names
        if found[name]
    ]


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:8]]
    return ", ".join(shown) + (f", and {len(counts) - 8} more" if len(counts) > 8 else "")


def _bad(found: dict[str, Any]) -> Iterator[str]:
    bad = [one for one in found["files"] if one["verdict"] == "bad"]
    if bad:
        yield "bad"
        yield from _first(f"  {one['id']}: {one['bad']}" for one in bad)
        yield ""


def _unusual(found: dict[str, Any]) -> Iterator[str]:
    if not found["unusual"]:
        return
    yield "sound but unusual"
    for phrase, names in found["unusual"].items():
        more = f", and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        yield f"  {phrase} ({len(names)}): {', '.join(names[:_NAMES])}{more}"
    yield ""


def _same(found: dict[str, Any]) -> Iterator[str]:
    groups = found["duplicates"]
    if groups:
        spare = sum(len(names) - 1 for names in groups)
        yield f"the same content: {spare} files are copies of others"
        yield from _first(f"  {' = '.join(names)}" for names in groups)
        yield ""


def _division(found: dict[str, Any]) -> Iterator[str]:
    split = found["split"]
    if split is None:
        return
    said = f"split ({split['rule']}): {split['train']} train, {split['test']} test"
    leaks = found["in_train_and_test"]
    if not leaks:
        yield f"{said}; no file of one has the content of a file of the other"
        return
    yield f"{said}; {len(leaks)} pairs of files have the same content in both"
    yield from _first(f"  train {leak['train']} = test {leak['test']}" for leak in leaks)


def _speeds(found: dict[str, Any]) -> Iterator[str]:
    clips = found["clips"]
    if clips is None:
        return
    reach = {int(speed): count for speed, count in clips["fastest_speed"].items()}
    videos, last = sum(reach.values()) + clips["too_short"], clips["speeds"][-1]
    slower = [f"{count} reach speed {speed}" for speed, count in reach.items() if speed < last]
    yield (
        f"clips of {clips['frames']} frames: {videos - reach.get(last, 0)} of {videos} sound "
        f"videos are too short for all speeds, up to {last} ({clips['frames'] * last} frames)"
        + "".join(f"; {one}" for one in slower)
        + f"; {clips['too_short']} have fewer than {clips['fewest_frames']} frames and are left "
        "out of pretraining"
    )


def _first(lines: Iterable[str]) -> Iterator[str]:
    """The first lines of many."""
    lines = list(lines)
    yield from lines[:_LINES]
    if len(lines) > _LINES:
        yield f"  … and {len(lines) - _LINES} more (--json has them all)"
