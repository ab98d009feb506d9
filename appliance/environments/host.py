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
    """`system` and `machine` are the kernel's words in lower case; `glibc` is () where the C library is another."""

    system: str
    machine: str
    bits: int
    glibc: tuple[int, ...]
    python: str
    nvidia: bool

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
        )


def _nvidia_driver_answers() -> bool:
    if _DRIVER.exists():
        return True
    # WSL2 has no /proc/driver; its driver brings the tool.
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if tool is None:
        return False
    try:
        return subprocess.run([tool, "-L"], check=False, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
