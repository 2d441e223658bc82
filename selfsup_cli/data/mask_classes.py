"""Names and colours of the classes of masks: `classes.txt`, PASCAL VOC's, CamVid's."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from selfsup_cli.data.image_layouts import VOC_CLASSES, first_file
from selfsup_cli.data.masks import VOID, Coding, Color, voc_palette
from selfsup_cli.data.tables import lines_of
from selfsup_cli.errors import InputError

FILES = ("classes.txt", "class_names.txt", "label_colors.txt", "labels.txt")

_VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled")
_NUMBER = re.compile(r"\d{1,3}")


@dataclass(frozen=True)
class Named:
    """What the labels 0, 1, … of masks are called, how they are read and shown.

    Those in `coding.void` do not count; all others are classes, in the same order.
    """

    names: tuple[str, ...]
    coding: Coding
    palette: tuple[Color, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """The label of each class."""
        return tuple(i for i in range(len(self.names)) if i not in self.coding.void)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.names[label] for label in self.labels)

    def without(self, void: tuple[int, ...]) -> Named:
        """The same, where these labels do not count either."""
        every = tuple(sorted({*self.coding.void, *void}))
        return replace(self, coding=replace(self.coding, void=every))


def voc_named() -> Named:
    """PASCAL VOC's: background and its 20 classes."""
    return Named(("background", *VOC_CLASSES), Coding(), voc_palette())


CAMVID = (
    *(("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128))),
    *(("road", (128, 64, 128)), ("pavement", (60, 40, 222)), ("tree", (128, 128, 0))),
    *(("sign", (192, 128, 128)), ("fence", (64, 64, 128)), ("car", (64, 0, 128))),
    *(("pedestrian", (64, 64, 0)), ("cyclist", (0, 128, 192)), ("unlabelled", (0, 0, 0))),
)
"""The labels of CamVid as SegNet's authors number them; the last does not count."""


def camvid_named() -> Named:
    """Those of `CAMVID`."""
    names, palette = zip(*CAMVID, strict=True)
    return Named(names, Coding(void=(len(names) - 1,)), (*palette, *voc_palette()[len(names) :]))


def numbered(count: int, coding: Coding) -> Named:
    """Labels without names."""
    return Named(tuple(f"class {label}" for label in range(count)), coding, voc_palette())


def read_classes(base: Path) -> Named | None:
    """What `classes.txt` (or a file that others call otherwise) in a folder says of labels.

    One class a line, in the order of the labels: `NAME`, `NAME R G B` or `R G B NAME`. Lines that
    begin with # are comments. A class called void, ignore or unlabelled does not count. Raises
    `InputError` for a line that is none of these, which is named.
    """
    path = first_file(base, *FILES)
    if path is None:
        return None
    names: list[str] = []
    colors: list[Color] = []
    for where, line in lines_of(path):
        if line.startswith("#"):
            continue
        name, color = _line(where, line)
        if name.casefold() in (known.casefold() for known in names):
            raise InputError(f"{where}: there are two classes '{name}'", kind="class-names")
        names.append(name)
        if color is not None:
            if color in colors:
                raise InputError(
                    f"{where}: the colour {' '.join(map(str, color))} stands for two classes",
                    kind="class-names",
                )
            colors.append(color)
    if colors and len(colors) < len(names):
        raise InputError(
            f"{path}: {len(colors)} of {len(names)} classes have a colour; give all of them one, "
            "or none",
            kind="class-names",
        )
    void = tuple(i for i, name in enumerate(names) if name.casefold() in _VOID_NAMES)
    kept = len(names) - len(void)
    if kept < 2 or len(names) > VOID:
        raise InputError(
            f"{path} names {kept} classes; there have to be 2 to {VOID}", kind="class-names"
        )
    palette = (*colors, *voc_palette()[len(colors) :])
    return Named(tuple(names), Coding(void, tuple(colors) or None), palette)


def _line(where: str, line: str) -> tuple[str, Color | None]:
    words = line.replace(",", " ").split()
    for begin, rest in ((words[:3], words[3:]), (words[-3:], words[:-3])):
        if rest and len(begin) == 3 and all(_NUMBER.fullmatch(word) for word in begin):
            red, green, blue = (int(word) for word in begin)
            if max(red, green, blue) > 255:
                raise InputError(
                    f"{where}: '{line}': a colour is three numbers from 0 to 255",
                    kind="class-names",
                )
            return " ".join(rest), (red, green, blue)
    if all(_NUMBER.fullmatch(word) for word in words):
        raise InputError(
            f"{where}: '{line}' has no name: a line is NAME, or NAME R G B", kind="class-names"
        )
    return line, None
