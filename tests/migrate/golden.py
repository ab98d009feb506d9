"""A golden case: a directory with `command` (what is typed, after lines NAME=value of the environment), the files of
`input/`, and `expected/`: every file that the command leaves behind or changes, and `output.txt`, what it prints.

    python -m tests.migrate.golden --write [CASE…]    writes what is expected anew; read the diff before keeping it
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    path: Path

    @property
    def arguments(self) -> list[str]:
        return shlex.split(self._lines[-1])[1:]

    @property
    def environ(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._lines[:-1])

    @property
    def _lines(self) -> list[str]:
        return [line for line in (self.path / "command").read_text().splitlines() if line and not line.startswith("#")]

    def expected(self) -> dict[str, str]:
        return contents(self.path / "expected")

    @property
    def writes(self) -> bool:
        """Whether the command leaves any file behind."""
        return self.expected().keys() != {"output.txt"}

    def outcome(self, directory: Path) -> dict[str, str]:
        """What the command leaves in a copy of the input, and prints."""
        shutil.copytree(self.path / "input", directory, dirs_exist_ok=True)
        standard_input = (directory / "stdin").read_text() if (directory / "stdin").exists() else ""
        before = contents(directory)
        code, printed = run(self.arguments, directory, self.environ, standard_input)
        after = contents(directory)
        changed = {name: text for name, text in after.items() if before.get(name) != text}
        return {**changed, "output.txt": f"$ {shlex.join(['appliance', *self.arguments])}\n{printed}exit {code}\n"}


def all_cases() -> list[Case]:
    return [Case(path) for path in sorted(CASES.iterdir()) if path.is_dir()]


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def run(arguments: list[str], directory: Path, environ: Mapping[str, str], standard_input: str = "") -> tuple[int, str]:
    """The command in this process: the exit code, and both its streams as they came."""
    from appliance.cli.app import run as command

    with _inside(directory, environ, standard_input) as printed:
        code = command(arguments)
    return code, printed.getvalue()


@contextlib.contextmanager
def _inside(directory: Path, environ: Mapping[str, str], standard_input: str) -> Iterator[io.StringIO]:
    here, there, stdin = Path.cwd(), dict(os.environ), sys.stdin
    printed = io.StringIO()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update({"PATH": there.get("PATH", ""), "HOME": str(directory / "nowhere"), "COLUMNS": "110", **environ})
    sys.stdin = io.TextIOWrapper(io.BytesIO(standard_input.encode()))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield printed
    finally:
        sys.stdin = stdin
        os.environ.clear()
        os.environ.update(there)
        os.chdir(here)


def write(case: Case) -> None:
    with TemporaryDirectory() as directory:
        outcome = case.outcome(Path(directory))
    shutil.rmtree(case.path / "expected", ignore_errors=True)
    for name, text in outcome.items():
        file = case.path / "expected" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        raise SystemExit(__doc__)
    wanted = set(sys.argv[2:])
    for each in all_cases():
        if not wanted or each.path.name in wanted:
            write(each)
