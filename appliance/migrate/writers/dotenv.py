""".env files: METAL_DEVICE added; beside the original, without what went into the new file and without secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

ADDED = "METAL_DEVICE=default"
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=.*")


def in_place(text: str) -> str:
    """The same lines, and one more."""
    if _names(text) & {"METAL_DEVICE"}:
        return text
    return f"{text if text.endswith(chr(10)) or not text else text + chr(10)}{ADDED}\n"


def beside(text: str, fates: Mapping[str, str], secrets: Collection[str]) -> str:
    """`fates` says of each variable why its line is not in the new file; of the others the lines are copied."""
    lines = ["# Written by `appliance migrate`: what the engines and the appliance still read from the environment.\n"]
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        name = match[1]
        hidden = any(secret in line for secret in secrets)
        if name in fates or hidden:
            lines.append(f"# {name}: {fates.get(name, 'holds a secret; set it where the appliance is started')}\n")
        else:
            lines.append(f"{line.strip()}\n")
    if "METAL_DEVICE" not in _names(text):
        lines.append(f"{ADDED}\n")
    return "".join(lines)


def _names(text: str) -> set[str]:
    return {match[1] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
