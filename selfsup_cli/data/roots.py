"""What the user means by `--data NAME`: a registered dataset and its folder, or a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.registry import DATASETS, datasets, unknown
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind


def no_data(kind: Kind) -> InputError:
    """The error for a job that nobody gave any data."""
    return InputError(
        f"no data is named; give --data a registered dataset ({', '.join(datasets(kind))}), a "
        f"folder of {kind}s or a CSV file",
        kind="no-data",
    )


def check_kind(name: str, kind: Kind) -> None:
    """Raise `InputError` if the registered dataset `name` is of another kind."""
    if DATASETS[name].kind != kind:
        raise InputError(
            f"{name} is a dataset of {DATASETS[name].kind}s, and this command reads {kind}s: "
            f"{', '.join(datasets(kind))}, or a folder or CSV file of your own",
            kind="wrong-dataset",
        )


def registered_root(name: str, data: Data) -> Path:
    """Where a registered dataset lies; `InputError` says where it belongs and how it must look."""
    base = os.environ.get("SELFSUP_DATA")
    if data.root is not None:
        root = Path(data.root)
    elif base:
        root = Path(base) / name
    else:
        root = Path(name)  # the user's own folder of that name, if there is one
    root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (keeps links as they are)
    if root.is_dir():
        return root
    layout = f"expected in it: {DATASETS[name].layout}"
    if data.root is not None or base:
        raise InputError(
            f"the dataset {name} is looked for in {root}, which is no folder; {layout}",
            kind="missing-data",
        )
    raise InputError(
        f"the dataset {name} belongs into the folder {name} of $SELFSUP_DATA, which is not set: "
        f"set it to the folder that holds your datasets, or name the folder with --data-root; "
        f"{layout}",
        kind="missing-data",
    )


def misplaced(name: str, root: Path, what: str) -> InputError:
    """The error for a folder that is not laid out as its dataset must be."""
    return InputError(
        f"{root} is not laid out as {name} must be: {what}; expected in it: "
        f"{DATASETS[name].layout}",
        kind="layout",
    )


def own_path(name: str, data: Data) -> Path:
    """The absolute path of data of one's own. Raises `InputError` if --data-root is given too."""
    if data.root is not None:
        raise InputError(
            f"--data-root is for registered datasets, and '{name}' is none: name the folder itself",
            kind="data-root",
        )
    return Path(os.path.abspath(Path(name).expanduser()))  # noqa: PTH100 (keeps links as they are)


def not_there(name: str, path: Path, kind: Kind, suffixes: tuple[str, ...]) -> InputError:
    """The error for a name that is neither registered nor a path that exists."""
    if os.sep in name or name.startswith("~") or name.lower().endswith(suffixes):
        return InputError(f"there is no folder or CSV file {path}", kind="missing-folder")
    return unknown("dataset", name, datasets(kind))
