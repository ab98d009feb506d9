"""Ask one of the system's own tools."""

from __future__ import annotations

import subprocess

_TIMEOUT = 10.0


def ask(*argv: str) -> str | None:
    """What the command prints, or None where it fails or there is no such command."""
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
