"""Manifests, differences between runs, and the revision of the code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.runs import manifest, provenance
from selfsup_cli.runs.record import differences, listed
from selfsup_cli.runs.seal import sealed


def test_manifests_leave_out_temporaries_links_and_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "run"
    for name in ("checkpoints/.tmp-step-1/state.pt", ".x.tmp", "events/e", "debug/d", "a"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "link").symlink_to(tmp_path / "secret")
    manifest.write(folder)
    record = json.loads((folder / "manifest.json").read_text())
    assert (list(record["files"]), record["mutable"]) == (["a"], ["debug/d", "events/e"])
    record["files"] = {"../secret": {"bytes": 1, "sha256": "0"}}
    (folder / "manifest.json").write_text(json.dumps(record))
    assert manifest.problems(folder) == [
        "manifest.json cannot be read (it does not match its checksum)"
    ]
    del record["check"]
    (folder / "manifest.json").write_text(json.dumps(sealed(record)))
    assert manifest.problems(folder) == ["../secret leads out of the folder"]
    for broken in ("", "[]", '{"files": {"a": 3}}'):
        (folder / "manifest.json").write_text(broken)
        assert "cannot be read" in manifest.problems(folder)[0]
    (folder / "manifest.json").unlink()
    assert manifest.problems(folder) == ["manifest.json is missing"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    ).filter(lambda tree: isinstance(tree, dict))
)  # fmt: skip
def test_nothing_differs_from_itself(tree: dict[str, Any]) -> None:
    assert differences(tree, json.loads(json.dumps(tree))) == []


def test_differences_are_exact() -> None:
    assert differences({"a": 1, "b": {"c": (1, 2)}}, {"a": 1.0, "b": {"c": [1, 2]}}) == []
    assert differences({"a": 1}, {"a": True}) == ["a: 1 → true"]
    assert differences({"a": "1"}, {"a": 1}) == ['a: "1" → 1']
    assert differences({"a": None}, {}) == ["a: null → (not set)"]
    assert differences({"a": {}}, {"a": {"b": 1}}) == ["a: {} → (not set)", "a.b: (not set) → 1"]
    assert differences({"x": {"y": {"z": 0.1}}}, {"x": {"y": {"z": 0.2}}}) == ["x.y.z: 0.1 → 0.2"]


def test_long_lists_are_cut_and_counted() -> None:
    lines = differences({f"k{i:02}": 0 for i in range(30)}, {f"k{i:02}": 1 for i in range(30)})
    shown = listed(lines).splitlines()
    assert len(shown) == 1 + 20 + 1
    assert shown[1] == "  k00: 0 → 1"
    assert shown[-1] == "  … and 10 more"
    assert listed(lines[:20]).splitlines()[-1] == "  k19: 0 → 1"


def test_the_revision_is_that_of_this_package_only(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    package = tmp_path / "site-packages" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert provenance.revision(package) is None
    git("init", "-q")
    (tmp_path / "mine.py").write_text("")
    git("add", "mine.py")
    git("commit", "-qm", "x")
    assert provenance.revision(package) is None
    git("add", ".")
    git("commit", "-qm", "y")
    assert provenance.revision(package) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (package / "__init__.py").write_text("1")
    found = provenance.revision(package)
    assert found is not None
    assert found["changed"] is True
