"""The machine under it: Apple Silicon or not, Rosetta, the versions of macOS and of its developer tools."""

from __future__ import annotations

import platform
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.doctor.commands import ask
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene
from appliance.reconcile.resolve import backend_of

OLDEST_MACOS = (14, 0)
"""MLX's and torch's wheels are built for it, as the list of the engine environment says."""
OLDEST_TOOLS = (15, 3)
"""The Xcode tools that come with that macOS."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`silicon` is the hardware's own word, whatever architecture this Python is built for."""

    system: str
    python: str
    """The architecture that this Python runs as."""
    bits: int
    silicon: bool = False
    translated: bool = False
    macos: tuple[int, ...] = ()
    tools: tuple[int, ...] | None = None


def check(scene: Scene) -> Iterator[Finding]:
    yield from judge(probe(), metal=_wants_metal(scene))


def probe() -> Machine:
    if sys.platform != "darwin":
        return Machine(platform.system().lower(), platform.machine(), struct.calcsize("P") * 8)
    return Machine(
        system="darwin",
        python=platform.machine(),
        bits=struct.calcsize("P") * 8,
        silicon=ask("sysctl", "-n", "hw.optional.arm64") == "1",
        translated=ask("sysctl", "-n", "sysctl.proc_translated") == "1",
        macos=_version(platform.mac_ver()[0]) or (),
        tools=_version(ask("pkgutil", "--pkg-info=com.apple.pkg.CLTools_Executables") or "")
        or _version(ask("xcodebuild", "-version") or ""),
    )


def judge(machine: Machine, *, metal: bool) -> Iterator[Finding]:
    """`metal` says that the file wants the Metal backend, or leaves the choice to the machine."""
    if machine.bits != 64:
        yield Finding(
            "machine",
            "problem",
            f"this Python is a {machine.bits}-bit one",
            "vLLM has 64-bit builds only",
            "install the appliance under a 64-bit Python",
        )
    if machine.system != "darwin":
        return
    if not machine.silicon:
        if metal:
            yield Finding(
                "machine",
                "problem",
                "this Mac has an Intel processor",
                "the Metal backend needs Apple Silicon: MLX has no build for Intel",
                "use a backend of your own under `backends:`, llama.cpp's server for one",
            )
        return
    if machine.translated or machine.python != "arm64":
        yield Finding(
            "machine",
            "problem",
            f"this Python is built for {machine.python} and runs under Rosetta",
            "a translated process reaches no Metal, and packages for arm64 do not fit it",
            "install an arm64 Python (`arch -arm64 brew install python@3.12`) and the appliance under it",
        )
    if metal and machine.macos and machine.macos < OLDEST_MACOS:
        yield Finding(
            "machine",
            "problem",
            f"macOS {_words(machine.macos)} is too old",
            f"MLX is built for {_words(OLDEST_MACOS)} or newer",
            "update macOS in System Settings, General, Software Update",
        )
    if metal and machine.tools is None:
        yield Finding(
            "machine",
            "warning",
            "Xcode's command line tools are not installed",
            "packages without a built wheel need them",
            "run `xcode-select --install`",
        )
    elif metal and machine.tools and machine.tools < OLDEST_TOOLS:
        yield Finding(
            "machine",
            "warning",
            f"Xcode's command line tools are version {_words(machine.tools)}",
            f"kernels are compiled with those of {_words(OLDEST_TOOLS)} or newer",
            "`softwareupdate --list` names the update; `softwareupdate --install NAME` installs it",
        )


def _wants_metal(scene: Scene) -> bool:
    if scene.loaded is None:
        return True
    appliance = scene.loaded.appliance
    return any(backend_of(model, appliance) == "vllm-metal" for model in appliance.models.values())


def _version(text: str) -> tuple[int, ...] | None:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _words(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
