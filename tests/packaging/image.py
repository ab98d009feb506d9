"""Enough of an image builder to run a Dockerfile's instructions where there is no container engine.

Every stage is built into the same root, this machine's own file system beneath an overlay, so `COPY --from` only has to
find what it names. Nothing is fetched for FROM.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import wait_until

SCRIPT = Path(__file__).with_name("root.sh")


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    rest: str


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def parse(text: str, arguments: dict[str, str]) -> dict[str, Stage]:
    """The stages by name, in order; the last is called ``. `arguments` replace the defaults of global ARGs."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    variables: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = _expand(rest, variables).partition(" AS ")
            stage = stages[name] = Stage(name, base)
        elif stage is None:
            assert word == "ARG", line
            name, _, default = rest.partition("=")
            variables[name] = arguments.get(name, default)
        else:
            stage.instructions.append(Instruction(word, rest.strip()))
    return stages


def needed(stages: dict[str, Stage], name: str = "") -> list[Stage]:
    """The stages that this one is made of, itself last."""
    stage = stages[name]
    before = [stage.base, *(_source(each) for each in stage.instructions if each.word == "COPY")]
    order = [found for each in before if each and each in stages for found in needed(stages, each)]
    return list({each.name: each for each in [*order, stage]}.values())


def _source(instruction: Instruction) -> str:
    match = re.match(r"--from=(\S+)", instruction.rest)
    return match[1] if match else ""


def _expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], ""), text)


class Root:
    """An image being built, and the container made of it. `directory` is where its files are, inside the namespace."""

    def __init__(self, directory: Path, context: Path) -> None:
        self.directory = directory
        self.context = context
        self.environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.config: dict[str, str] = {}
        self._where = "/"
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen([str(SCRIPT), str(directory)], stdin=pipe, stdout=pipe, text=True)
        assert self._holder.stdout is not None
        self._pid = self._holder.stdout.readline().strip()
        self._offer_python()

    def close(self) -> None:
        self._holder.communicate(timeout=30)

    def build(self, stages: list[Stage]) -> None:
        for stage in stages:
            self._where = "/"
            for instruction in stage.instructions:
                self._step(instruction)

    def inside(self, *command: str) -> list[str]:
        """This command, so that it runs in the namespace but not in the root."""
        return ["nsenter", "--target", self._pid, "--mount", "--", *command]

    def do(self, *command: str) -> str:
        result = subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def shell(self, line: str) -> str:
        """As a RUN: by root, in the working directory, with the image's variables."""
        variables = [f"{name}={value}" for name, value in {**self.environ, **_MACHINE}.items()]
        script = f"cd {self._where} && {line}"
        return self.do("chroot", str(self.directory), "env", "-i", *variables, "/bin/sh", "-ec", script)

    def run(self, *, user: str, log: Path) -> subprocess.Popen[str]:
        """The entry point on a root that cannot be written, as process 1 of its own namespace."""
        variables = [f"{name}={value}" for name, value in self.environ.items()]
        command = [*json.loads(self.config["ENTRYPOINT"]), *json.loads(self.config["CMD"])]
        root, where = str(self.directory), self._where
        start = ["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
        enter = ["chroot", f"--userspec={user}", root, "env", "-i", f"--chdir={where}", *variables, *command]
        with log.open("w") as sink:
            return subprocess.Popen(self.inside(*start, *enter), stdout=sink, stderr=sink, text=True)

    def health(self, *, user: str) -> subprocess.CompletedProcess[str]:
        check = self.config["HEALTHCHECK"]
        command = json.loads(check[check.index("[") :])
        variables = [f"{name}={value}" for name, value in self.environ.items()]
        enter = ["chroot", f"--userspec={user}", str(self.directory), "env", "-i", *variables, *command]
        return subprocess.run(self.inside(*enter), capture_output=True, text=True, timeout=30, check=False)

    def _step(self, instruction: Instruction) -> None:
        match instruction.word:
            case "RUN":
                self.shell(instruction.rest)
            case "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", instruction.rest):
                    self.environ[name] = _expand(value, self.environ)
            case "WORKDIR":
                self._where = instruction.rest
                self.do("mkdir", "-p", f"{self.directory}{self._where}")
            case "COPY":
                self._copy(instruction)
            case "ARG" | "EXPOSE" | "VOLUME" | "STOPSIGNAL" | "USER" | "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                self.config[instruction.word] = instruction.rest
            case word:
                raise AssertionError(f"the builder does not know {word}")

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = re.sub(r"--from=\S+ ", "", instruction.rest).split()
        if _source(instruction):
            self.do("test", "-e", f"{self.directory}{sources[0]}")
            return
        destination = f"{self.directory}{os.path.join(self._where, target)}"  # noqa: PTH118 - keeps a final slash
        for source in sources:
            assert (self.context / source).exists(), f"COPY {source}: not in the context"
            many = destination.endswith("/") and not (self.context / source).is_dir()
            final = f"{destination}{source}" if many else destination
            self.do("mkdir", "-p", str(Path(final).parent))
            self.do("cp", "-rT", str(self.context / source), final)

    def _offer_python(self) -> None:
        """FROM names an image with `python` and `pip`; here it is the interpreter of this test, readable by all."""
        home = Path(sys.base_prefix)
        for each in (home, *home.parents):
            self.do("chmod", "a+rx", f"{self.directory}{each}")
        self.environ["PATH"] = f"{home}/bin:{self.environ['PATH']}"


_MACHINE = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name == "PIP_CERT"}
"""What of this machine an installation needs to reach its index."""


def context(checkout: Path, target: Path) -> Path:
    """A copy of what .dockerignore lets through."""
    kept = [line[1:] for line in (checkout / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in kept:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def descendants(pid: int) -> Iterator[int]:
    """Process 1 of the container's namespace, as this machine numbers it, and what is below it."""
    import psutil

    process = psutil.Process(pid)
    wait_until(process.children, what="the container's first process")
    yield from (each.pid for each in process.children(recursive=True))
