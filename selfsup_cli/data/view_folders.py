"""Which videos and folders of images show which subject in which sequence from which camera.

`SUBJECT/SEQUENCE/CAMERA.mp4` or `SUBJECT/SEQUENCE/CAMERA/000001.jpg`; with less above the cameras
there is one sequence, or one subject. Where a folder holds one that is called `videos`, the cameras
lie in there (and whatever lies beside it, smaller copies as a rule, is not read); `Videos` and
`imageSequence`, as Human3.6M and MPI-INF-3DHP have them, are likewise not part of a name.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from selfsup_cli.data.listing import IMAGE_SUFFIXES, SUFFIXES

_SILENT = {"videos", "video", "imagesequence", "images"}
_DEEPEST = 8
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")
# Human3.6M: "Directions 1.54138969", and as mmpose names folders "S1_Directions_1.54138969".
_HUMAN36M = re.compile(r"^(?:S\d+_)?(?P<sequence>.+)\.(?P<camera>\d{8})$")
# MPI-INF-3DHP as mmpose names images: "S4_Seq2_Cam0_001033", "TS1_002001".
_MPI = re.compile(r"^(?P<subject>T?S\d+)_(?:(?P<sequence>Seq\d+)_(?P<camera>Cam\d+)_)?\d+$")


@dataclass
class Found:
    """One camera as it was found: a video, or images of a folder in the order of their numbers.

    `numbers` are those of the images, where all have one; empty otherwise.
    """

    subject: str
    sequence: str
    camera: str
    folder: Path
    video: str = ""
    images: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.subject}/{self.sequence}"


@dataclass
class Inventory:
    """All cameras under a folder, and `arrays`, files of them that may say where joints are.

    `notes` say what was passed over.
    """

    root: Path
    cameras: list[Found] = field(default_factory=list)
    arrays: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inventory(root: Path) -> Inventory:
    """Find all cameras under `root`."""
    found = Inventory(root)
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        parts = here.relative_to(root).parts
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(parts) >= _DEEPEST:
            folders.clear()
        within = [name for name in folders if name.lower() in ("videos", "imagesequence")]
        if within and len(folders) > len(within):
            beside = [name for name in folders if name not in within and _has_media(here / name)]
            if beside:
                found.notes.append(
                    f"{here} has the cameras in {within[0]}; not read: {', '.join(beside)}"
                )
            folders[:] = within
        media = sorted(name for name in files if not name.startswith("."))
        found.cameras += _videos(root, here, media)
        found.cameras += _images(root, here, media)
        found.arrays += [here / name for name in media if name.lower().endswith(".npz")]
    return found


def _has_media(folder: Path) -> bool:
    kinds = SUFFIXES + IMAGE_SUFFIXES
    return any(
        name.lower().endswith(kinds) for _, _, files in os.walk(folder) for name in files[:1000]
    )


def _videos(root: Path, folder: Path, files: list[str]) -> Iterator[Found]:
    for name in files:
        if name.lower().endswith(SUFFIXES) and "_all." not in name.lower():
            subject, sequence, camera = _named(root, folder, Path(name).stem)
            yield Found(subject, sequence, camera, folder, video=name)


def _images(root: Path, folder: Path, files: list[str]) -> Iterator[Found]:
    """The images of a folder: of one camera, or of several that are told by their names."""
    images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        return
    matches = [_MPI.match(Path(name).stem) for name in images]
    if all(matches):
        groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for name, match in zip(images, matches, strict=True):
            if match is not None:
                subject, sequence, camera = match.group("subject", "sequence", "camera")
                groups[subject, sequence or "test", camera or "Cam0"].append(name)
        for (subject, sequence, camera), names in groups.items():
            yield _numbered(Found(subject, sequence, camera, folder), names)
        return
    subject, sequence, camera = _named(root, folder.parent, folder.name)
    if folder == root:
        subject, sequence = root.name, "1"
    yield _numbered(Found(subject, sequence, camera, folder), images)


def _numbered(found: Found, names: list[str]) -> Found:
    """Put images into the order of the last number in their names, where each has one."""
    matches = [_LAST_NUMBER.search(Path(name).stem) for name in names]
    numbers = [int(match[1]) for match in matches if match is not None]
    if len(numbers) == len(names) == len(set(numbers)):
        ordered = sorted(zip(numbers, names, strict=True))
        found.numbers = tuple(number for number, _ in ordered)
        found.images = tuple(name for _, name in ordered)
    else:
        found.images = tuple(names)
    return found


def _named(root: Path, folder: Path, camera: str) -> tuple[str, str, str]:
    """Subject, sequence and camera of a video or folder `camera` in `folder`."""
    above = folder.relative_to(root) if folder.is_relative_to(root) else Path()
    parts = [part for part in above.parts if part.lower() not in _SILENT]
    match = _HUMAN36M.match(camera)
    if match is not None:
        sequence, camera = match["sequence"].replace("_", " "), match["camera"]
        return (parts[-1] if parts else root.name), sequence, camera
    if not parts:
        return root.name, "1", camera
    return parts[0], str(PurePosixPath(*parts[1:])) if len(parts) > 1 else "1", camera
