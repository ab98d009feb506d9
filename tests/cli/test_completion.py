"""The printed scripts, in the shells that they are for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Machine

BASH = """
source <(appliance completion bash)
COMP_WORDS=({words}) COMP_CWORD={last}
"$(complete -p appliance | sed 's/.*-F \\([^ ]*\\).*/\\1/')" appliance
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
source <(appliance completion zsh)
_arguments() {{ print -r -- "$@"; }}
words=({words}) CURRENT={last}+1
$_comps[appliance]
"""
FISH = """
appliance completion fish | source
complete --do-complete "{line}"
"""

LINES = [
    (("appliance", "mig"), {"migrate"}),
    (("appliance", "key", "cr"), {"create"}),
    (("appliance", "up", "--met"), {"--metrics"}),
    (("appliance", "completion", ""), {"bash", "zsh", "fish"}),
]


def say(shell: str, options: list[str], script: str, words: tuple[str, ...], home: Path) -> str:
    if shutil.which(shell) is None and "CI" not in os.environ:
        pytest.skip(f"needs {shell}")
    quoted = " ".join(f"'{word}'" for word in words)
    script = script.format(words=quoted, last=len(words) - 1, line=" ".join(words))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(home), "TERM": "dumb", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [shell, *options, "-c", script], capture_output=True, text=True, env=environ, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("words", "offered"), LINES)
def test_bash_completes(words: tuple[str, ...], offered: set[str], tmp_path: Path) -> None:
    assert set(say("bash", ["--norc", "--noprofile"], BASH, words, tmp_path).splitlines()) == offered


@pytest.mark.parametrize(("words", "offered"), LINES)
def test_zsh_completes(words: tuple[str, ...], offered: set[str], tmp_path: Path) -> None:
    said = say("zsh", ["--no-rcs"], ZSH, words, tmp_path)
    assert set(re.findall(r'(?<!:)"([^"]+)"', said)) == offered  # each with its `:"explanation"`


@pytest.mark.parametrize(("words", "offered"), LINES)
def test_fish_completes(words: tuple[str, ...], offered: set[str], tmp_path: Path) -> None:
    said = say("fish", ["--no-config"], FISH, words, tmp_path)
    assert {line.partition("\t")[0] for line in said.splitlines()} == offered


def test_another_shell_is_a_usage_error(machine: Machine) -> None:
    result = machine.run("completion", "tcsh")
    assert result.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh'" in result.stderr
