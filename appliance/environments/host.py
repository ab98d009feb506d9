"""What decides which engine environment fits: read once, then passed as a value."""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Host:
    """`system` and `machine` are the kernel's words in lower case; `glibc` is () where the C library is another.

    `macos` is () elsewhere. `translated` says that Rosetta runs this Python, which then calls the machine `x86_64`.
    """

    system: str
    machine: str
    bits: int
    glibc: tuple[int, ...]
    python: str
    nvidia: bool
    macos: tuple[int, ...] = ()
    translated: bool = False

    @property
    def platform(self) -> str:
        return f"{self.system}-{self.machine}"

    @classmethod
    def detect(cls) -> Host:
        library, version = platform.libc_ver()
        return cls(
            system="macos" if sys.platform == "darwin" else platform.system().lower(),
            machine={"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower()),
            bits=struct.calcsize("P") * 8,
            glibc=tuple(int(part) for part in version.split(".")) if library == "glibc" else (),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            nvidia=_nvidia_driver_answers(),
            macos=tuple(int(part) for part in platform.mac_ver()[0].split(".") if part),
            translated=sys.platform == "darwin" and _answers("sysctl", "-n", "sysctl.proc_translated") == "1",
        )


def _nvidia_driver_answers() -> bool:
    if _DRIVER.exists():
        return True
    # WSL2 has no /proc/driver; its driver brings the tool.
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if tool is None:
        return False
    return _answers(tool, "-L") is not None


def _answers(*argv: str) -> str | None:
    """What it prints; None where it is not there, hangs or fails."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
