"""Lists that people write: lines of text and CSV files, with the place of every mistake."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from selfsup_cli.errors import InputError


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The non-empty lines of a text file, each with `FILE:LINE`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", kind="split-list") from error
    for number, line in enumerate(text.splitlines(), 1):
        if "\0" in line:
            raise InputError(f"{path}:{number}: a NUL character is in it", kind="split-list")
        if line.strip():
            yield f"{path}:{number}", line.strip()


def header_of(path: Path) -> list[str]:
    """The names of the columns of a CSV file; none if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file, strict=True), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def table_rows(
    path: Path, required: tuple[str, ...], labels: bool
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, each with `FILE:LINE`.

    A row in which a `required` cell, or with `labels` that of `label`, is empty is an error.
    """
    needed = (*required, "label") if labels else required
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if lacking := [name for name in needed if name not in header]:
                raise InputError(
                    f"{path}:1: the header has no column '{lacking[0]}'; it names: "
                    f"{', '.join(header) or 'nothing'}",
                    kind="csv",
                )
            if len(set(header)) != len(header):
                raise InputError(f"{path}:1: the header names a column twice", kind="csv")
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{where}: {len(cells)} cells, but the header has {len(header)}",
                        kind="csv",
                    )
                if any("\0" in cell for cell in cells):
                    raise InputError(f"{where}: a NUL character is in it", kind="csv")
                row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
                if empty := [name for name in needed if not row[name]]:
                    raise InputError(f"{where}: '{empty[0]}' is empty", kind="csv")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}", kind="csv") from error
