"""Completions: generated, quick, harmless, and right in the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from selfsup_cli.cli import complete, shells
from selfsup_cli.cli.app import app
from selfsup_cli.cli.completion import FILES
from selfsup_cli.cli.completions_generate import generated
from selfsup_cli.cli.tree import nodes
from selfsup_cli.config.finding import everything
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.packaged import folder
from selfsup_cli.config.registry import JOB_NAMES, METHODS, TASKS, archs, datasets

ROOT = Path(__file__).resolve().parents[2]
COMPLETIONS = Path(folder("completions"))

# Names that would do something if a shell ever evaluated, split or expanded them.
HOSTILE = (
    "ev$(touch pwned)",
    "`touch pwned`",
    "a b",
    "x*",
    "back\\slash",
    "-rf",
    "two\nlines",
    "é",
)
RUNS = ("first", "second", "a@b")

LAYERS = {f"conv{i}" for i in range(1, 10)}
FILES_HERE = {"clips", "mine.yaml", "runs"}
# What is typed, and what must be offered: exactly this.
CASES: dict[str, set[str]] = {
    "selfsup ": {name for name, _ in nodes(typer.main.get_command(app))[0].commands},
    "selfsup pre": {"predict", "pretrain", "presets"},
    "selfsup --v": {"--version"},
    "selfsup pretrain ": set(METHODS),
    "selfsup pretrain temporal --ar": {"--arch"},
    "selfsup pretrain temporal --arch ": set(archs("video")),
    "selfsup pretrain temporal --arch=r3d": {"r3d", "r3d_18"},
    "selfsup pretrain temporal --optimizer ": {"adam", "adamw", "sgd"},
    "selfsup pretrain temporal --epochs ": set(),
    "selfsup pretrain temporal --epochs 3 --opt": {"--optimizer"},
    "selfsup pretrain temporal --no-com": {"--no-compile"},
    "selfsup pretrain temporal --data ": {*datasets("video"), *FILES_HERE},
    "selfsup pretrain temporal --run ": set(RUNS),
    "selfsup pretrain temporal --set optim.lr": {"optim.lr"},
    "selfsup probe --from ": {"latest", *RUNS, *FILES_HERE},
    "selfsup probe --from=fi": {"first"},
    "selfsup probe --layer conv": LAYERS,
    "selfsup probe --layer fc1,conv": LAYERS,
    "selfsup probe --preset probe/t": {"probe/temporal", "probe/temporal-motion"},
    "selfsup transfer ": set(TASKS),
    "selfsup transfer action --freeze con": {"conv", *LAYERS},
    "selfsup transfer sync --init ": {"latest", "random", "supervised", *RUNS, *FILES_HERE},
    "selfsup presets copy retrieve/temporal ": FILES_HERE,
    "selfsup visualize pretext ": set(METHODS),
    "selfsup visualize pretext --tra": {"--transformations"},
    "selfsup visualize pretext temporal --cou": {"--count"},
    "selfsup runs show s": {"second"},
    "selfsup runs show first --j": {"--json"},
    "selfsup report first s": {"second"},
    "selfsup report --format ": {"text", "html", "md", "json"},
    "selfsup completion ": {"bash", "zsh", "fish"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a few files, runs with good and hostile names, and `selfsup` in `bin`."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    script = bin_ / "selfsup"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m selfsup_cli "$@"\n')
    script.chmod(0o755)
    here = tmp_path / "here"
    for name in (*RUNS, *HOSTILE):
        (here / "runs" / name).mkdir(parents=True)
        (here / "runs" / name / "run.json").write_text("{}")
    (here / "runs" / "no-run").mkdir()
    (here / "clips").mkdir()
    (here / "mine.yaml").touch()
    return here


def needed(shell: str) -> str:
    """The path of a shell; the test is skipped where it is not installed."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed here")
    return found


def shell_environment(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SELFSUP_")}
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return kept | {
        "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "HOME": str(place.parent),
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip


def plain(candidates: list[str]) -> set[str]:
    """Candidates without what the shells add to them or leave away in their own ways."""
    found = set()
    for one in candidates:
        if one.startswith("--") and "=" in one:
            one = one.partition("=")[2]
        found.add(one.rpartition(",")[2].rstrip("/="))
    return found


def check(place: Path, offered: dict[str, list[str]]) -> None:
    assert {line: plain(offered[line]) for line in CASES} == CASES
    assert list(place.parent.rglob("pwned")) == []


# -- the files


def test_the_committed_files_are_the_generated_ones() -> None:
    assert {name: (COMPLETIONS / name).read_text() for name in FILES.values()} == generated(), (
        "run: python -m selfsup_cli.cli.completions_generate"
    )


def test_zsh_finds_its_tag_on_the_first_line() -> None:
    assert (COMPLETIONS / "_selfsup").read_text().split("\n", 1)[0] == "#compdef selfsup"


@pytest.mark.parametrize("shell", FILES)
def test_each_file_is_sound(shell: str) -> None:
    done = subprocess.run(
        [needed(shell), "-n", COMPLETIONS / FILES[shell]], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        [needed("shellcheck"), COMPLETIONS / "selfsup.bash"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_an_option_that_takes_a_value_in_some_commands_only_is_refused() -> None:
    one, two = (
        shells.Node((name,), "", (shells.Flag(("--odd",), "", "ODD", value, False),), (), ())
        for name, value in (("one", None), ("two", shells.Value()))
    )
    with pytest.raises(ValueError, match="--odd takes a value in some commands"):
        shells.bash([one, two])


def test_every_command_and_option_stands_in_every_file() -> None:
    texts = generated().values()
    for node in nodes(typer.main.get_command(app)):
        for text in texts:
            assert all(name in text for name, _ in node.commands)
            for flag in node.flags:
                for spelling in flag.spellings:
                    assert spelling.lstrip("-") in text


@pytest.mark.parametrize("shell", FILES)
def test_the_command_prints_the_packaged_file(selfsup: Callable[..., Any], shell: str) -> None:
    told = selfsup("completion", shell)
    assert (told.status, told.err) == (0, "")
    assert told.out == (COMPLETIONS / FILES[shell]).read_text()


def test_another_shell_is_unknown(selfsup: Callable[..., Any]) -> None:
    told = selfsup("completion", "bush")
    assert (told.status, told.out) == (2, "")
    assert "unknown shell 'bush' (did you mean 'bash'?)" in told.err


def test_an_installed_package_brings_the_files(tmp_path: Path) -> None:
    """Laid out as the wheel lays it out, away from the checkout."""
    package = tmp_path / "selfsup_cli"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "selfsup_cli" / "config" / "packaged.py", package / "config")
    shutil.copytree(COMPLETIONS, package / "_data" / "completions")
    program = "from selfsup_cli.config.packaged import folder; print(folder('completions'))"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert told.stdout.strip() == str(package / "_data" / "completions"), told.stderr


# -- the names


def test_jobs_are_named_alike_everywhere() -> None:
    assert set(JOBS) == set(JOB_NAMES)


def test_presets_are_those_that_the_list_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("probe/mine", "probe/temporal", "pretrain/temporal/deep/er", "elsewhere/no"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setenv("SELFSUP_PRESET_PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'nowhere'}")
    names = complete.names("presets")
    assert sorted(names) == sorted(found.name for found in everything(os.environ))
    assert {"probe/mine", "temporal/deep/er"} <= set(names)
    jobs = ("probe", "probe-images")  # one command for both
    of_probe = [found.name for found in everything(os.environ) if found.job in jobs]
    assert sorted(complete.names("presets:probe")) == sorted(of_probe)


def test_names_that_a_shell_could_misread_are_never_offered(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(place / "runs"))
    assert set(complete.names("runs")) == set(RUNS)
    for name in HOSTILE:
        (place / "probe").mkdir(exist_ok=True)
        (place / "probe" / f"{name}.yaml").touch()
    monkeypatch.setenv("SELFSUP_PRESET_PATH", str(place))
    assert [name for name in complete.names("presets:probe") if name == "probe/-rf"]
    assert all(complete.PLAIN.issuperset(name) for name in complete.names("presets"))


def test_what_a_shell_asks_is_answered_or_nothing_said(process: Any, tmp_path: Path) -> None:
    told = process("__complete", "layers", "conv")
    assert (told.returncode, told.stdout.split(), told.stderr) == (0, sorted(LAYERS), "")
    nowhere = {"SELFSUP_RUNS": str(tmp_path / "nowhere")}
    for kind, status in (("runs", 0), ("nothing", 2)):
        told = process("__complete", kind, "", env=nowhere)
        assert (told.returncode, told.stdout, told.stderr) == (status, "", "")
    assert process("__complete").returncode == 2
    reader, writer = os.pipe()
    os.close(reader)
    told = process("__complete", "layers", "", stdout=writer)
    os.close(writer)
    assert (told.returncode, told.stderr) == (1, "")


@pytest.mark.parametrize(
    "arguments", [["--version"], *(["__complete", k, ""] for k in ("runs", "presets", "layers"))]
)
def test_nothing_is_imported_while_somebody_waits(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from selfsup_cli.__main__ import main\n"
        f"status = main({arguments})\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - {'selfsup_cli'}\n"
        "print('\\n' + ' '.join(sorted(new)))\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert imported <= sys.stdlib_module_names
    slow = {"typing", "dataclasses", "re", "pathlib", "json", "subprocess", "logging", "importlib"}
    assert imported & slow == set()


# -- in the shells

BASH = """\
source "$1"
while IFS= read -r line; do
    COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    read -ra COMP_WORDS <<<"${line//=/ = }"
    [[ $line == *[\\ =] && ${line: -1} == ' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _selfsup selfsup "${COMP_WORDS[COMP_CWORD]}"
    for one in "${COMPREPLY[@]}"; do printf '%s\\t%s\\n' "$line" "$one"; done
done
"""


def test_bash(place: Path) -> None:
    done = subprocess.run(
        [needed("bash"), "--norc", "-c", BASH, "bash", COMPLETIONS / "selfsup.bash"],
        input="".join(f"{line}\n" for line in CASES),
        cwd=place, env=shell_environment(place), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    check(place, by_line(done.stdout))


FISH = """\
source $argv[1]
while read -l line
    for one in (complete -C $line)
        printf '%s\\t%s\\n' $line (string split -f1 \\t -- $one)
    end
end
"""


def test_fish(place: Path) -> None:
    done = subprocess.run(
        [needed("fish"), "--no-config", "-c", FISH, COMPLETIONS / "selfsup.fish"],
        input="".join(f"{line}\n" for line in CASES),
        cwd=place, env=shell_environment(place), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    check(place, by_line(done.stdout))


# In place of what is shown: all that compadd would offer, noted with the line it is for.
ZSH = """\
unset HISTFILE; PS1= PS2=
bindkey -e
fpath=("$COMPLETIONS" $fpath)
autoload -Uz compinit && compinit -u -D
compadd() {
    local one
    for one in "$@"; do
        [[ $one == (-|--) ]] && break
        [[ $one == -[OAD]* ]] && { builtin compadd "$@"; return }
    done
    local -a __offered
    builtin compadd -A __offered "$@"
    for one in $__offered; do print -r -- "$BUFFER"$'\\t'"$one" >> "$NOTES"; done
    (( $#__offered ))
}
end-of-line-note() { print -r -- "end $BUFFER" >> "$NOTES"; BUFFER= }
zle -N end-of-line-note
bindkey '^T' end-of-line-note
print ready >> "$NOTES"
"""
# In bash the line itself is noted, as readline has completed it.
INTERACTIVE_BASH = """\
unset HISTFILE; PS1= PS2=
bind 'set bell-style none' 'set enable-bracketed-paste off'
source "$COMPLETIONS/selfsup.bash"
note() { printf 'end %s|\\n' "$READLINE_LINE" >> "$NOTES"; READLINE_LINE= READLINE_POINT=0; }
bind -x '"\\C-t": note'
echo ready >> "$NOTES"
"""


def interactively(shell: list[str], setup: str, lines: list[str], place: Path) -> str:
    """What a shell on a terminal notes while each line is typed and TAB and ^T are pressed."""
    notes = place.parent / "notes"
    notes.touch()
    start = place.parent / "start"
    start.write_text(setup)
    environment = shell_environment(place)
    environment |= {"COMPLETIONS": str(COMPLETIONS), "NOTES": str(notes)}
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, cwd=place, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def wait_for(marks: int, what: str) -> None:
        shown = b""
        until = time.monotonic() + 30
        while notes.read_text().count(what) < marks:
            if time.monotonic() > until:
                pytest.fail(f"no answer from {shell[0]}: {shown!r}")
            if select.select([ours], [], [], 0.01)[0]:
                shown += os.read(ours, 1 << 16)

    try:
        os.write(ours, f". {start}\n".encode())
        wait_for(1, "ready\n")
        for number, line in enumerate(lines, 1):
            os.write(ours, line.encode() + b"\t\x14")
            wait_for(number, "end ")
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    return notes.read_text()


def test_zsh(place: Path) -> None:
    told = interactively([needed("zsh"), "-f", "-i"], ZSH, list(CASES), place)
    check(place, by_line(told))


def test_bash_at_a_terminal(place: Path) -> None:
    """What readline makes of it: breaks at @ and =, spaces, slashes, quotes."""
    (place / "ev$(touch pwned).csv").touch()
    expected = {
        "selfsup probe --from a@": "selfsup probe --from a\\@b ",
        "selfsup probe --from=fi": "selfsup probe --from=first ",
        "selfsup probe --set probe.ep": "selfsup probe --set probe.epochs=",
        "selfsup probe --data cli": "selfsup probe --data clips/",
        "selfsup probe --data ev": "selfsup probe --data ev\\$\\(touch\\ pwned\\).csv ",
        "selfsup probe --layer conv1,fc1,ste": "selfsup probe --layer conv1,fc1,stem ",
    }
    told = interactively(
        [needed("bash"), "--norc", "--noprofile", "-i"], INTERACTIVE_BASH, list(expected), place
    )
    assert told.splitlines()[1:] == [f"end {line}|" for line in expected.values()]
    assert not (place / "pwned").exists()


def by_line(notes: str) -> dict[str, list[str]]:
    offered: dict[str, list[str]] = {line: [] for line in CASES}
    for row in notes.splitlines():
        line, tab, one = row.partition("\t")
        if tab:
            offered[line].append(one)
    return offered
