"""The generated references: up to date, whole, and true to what the code reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import selfsup_cli
from selfsup_cli.config.environment import _INTERNAL, OTHERS, VARIABLES
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import options_of
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.reference import environment_text, presets_text, settable

PACKAGE = Path(selfsup_cli.__file__).parent
DOCS = PACKAGE.parent / "docs"


@pytest.mark.parametrize(
    ("name", "text"), [("presets", presets_text), ("environment", environment_text)]
)
def test_the_committed_page_is_the_generated_one(name: str, text: object) -> None:
    assert callable(text)
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == text(), (
        f"run: python -m selfsup_cli.config.reference {name} > docs/{name}.md"
    )


@pytest.mark.parametrize("job", JOBS)
def test_the_reference_has_every_value_of_a_resolved_preset(job: str) -> None:
    rows: dict[str, list[str]] = {}  # jobs may say different things of fields of one name
    for line in presets_text().splitlines():
        if line.startswith("| `"):
            rows.setdefault(line.split(" | ")[0].strip("| `"), []).append(line)
    for path in resolve(job, env={}).origin:
        base = ".".join(part for part in path.split(".") if not part.isdecimal())
        known = [one for one in (base, base.replace("expect.", "expect[].")) if one in rows]
        assert known or base in ("method", "task"), path
    for option in options_of(JOBS[job]):
        said = option.help.replace("|", "\\|")
        own = [line for line in rows[option.path] if said in line]
        assert any(all(f"`{flag}`" in line for flag in option.flags) for line in own), option.path


@pytest.mark.parametrize("job", JOBS)
def test_what_is_called_settable_can_be_set(job: str) -> None:
    plain = resolve(job, env={})
    paths = settable(job)
    assert {option.path for option in options_of(JOBS[job])} <= set(paths)
    assert not {path.partition(".")[0] for path in paths} & {"paper", "cost", "expect", "version"}
    # Filters are read from weights alone.
    of_data = "data.split=2" if "data.split" in paths else "data.test_share=0.3"
    blocks = () if job == "visualize/filters" else ("machine.workers=0", of_data)
    for path in blocks:
        assert path.partition("=")[0] in paths
        assert resolve(job, sets=[path], env={}).origin != plain.origin


def test_cells_stay_in_their_columns() -> None:
    for text in (presets_text(), environment_text()):
        width = 0
        for line in text.splitlines():
            if line.startswith("|"):
                cells = line.replace("\\|", "").count("|")
                assert width in (0, cells), line
                width = cells
            else:
                width = 0


def test_no_variable_is_read_that_is_not_in_the_table() -> None:
    known = {*VARIABLES, *OTHERS, *_INTERNAL}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case (
                    ast.Call(
                        func=ast.Attribute(value=value, attr="get" | "getenv"),
                        args=[ast.Constant(value=str() as name), *_],
                    )
                    | ast.Subscript(
                        value=value, slice=ast.Constant(value=str() as name), ctx=ast.Load()
                    )
                    | ast.Compare(left=ast.Constant(value=str() as name), comparators=[value, *_])
                ) if ast.unparse(value) in ("os.environ", "os", "environ", "env"):
                    found.add(name)
    assert {"SELFSUP_DATA", "SELFSUP_RUNS", "NO_COLOR", "RANK"} <= found
    assert found <= known, found - known
