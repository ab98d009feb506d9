"""Run the preflight under an interpreter and read its answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from appliance.environments.command import run
from appliance.environments.install_lock import InstallLock
from appliance.environments.requirements import RequirementList
from appliance.errors import ProvisionError

_SCRIPT = Path(__file__).with_name("preflight.py")
_MOST_DIFFERENCES = 8


@dataclass(frozen=True)
class Preflight:
    """What an environment is, as proved by importing vLLM in it."""

    platform: str
    vllm: str
    torch: str
    transformers: str
    python: str
    device: str
    installed: Mapping[str, str] = field(repr=False)


async def examine(
    python: Path, expected: str, *, environ: Mapping[str, str], log: TextIO, lock: InstallLock | None = None
) -> Preflight:
    lines: list[str] = []
    argv = (python, _SCRIPT, "--expect", expected)
    status = await run(argv, environ={**environ, "PYTHONUNBUFFERED": "1"}, log=log, line=lines.append, lock=lock)
    answer = next((line for line in reversed(lines) if line.startswith('{"python"')), None)
    if answer is None:
        last = "\n  ".join([line for line in lines if line][-3:]) or f"exit status {status}, no output"
        raise ProvisionError(f"`{python}`: the preflight broke off:\n  {last}", hint=f"the whole log is `{log.name}`")
    result = json.loads(answer)
    if result["problems"]:
        raise ProvisionError(f"`{python}`: " + "; ".join(result["problems"]), hint=f"the whole log is `{log.name}`")
    texts = {
        name: str(result[name] or "") for name in ("platform", "vllm", "torch", "transformers", "python", "device")
    }
    return Preflight(**texts, installed=result["installed"])


def check_interpreter(python: Path) -> None:
    hint = "`environment.python` must name the interpreter of an environment that has vLLM"
    if not python.exists():
        raise ProvisionError(f"`environment.python`: there is no `{python}`", hint=hint)
    if python.is_dir() or not os.access(python, os.X_OK):
        raise ProvisionError(f"`environment.python`: `{python}` is not an executable file", hint=hint)


def differences(installed: Mapping[str, str], pinned: RequirementList) -> Sequence[str]:
    """In words, what differs from the list; a local version (`+cpu`) of the pinned one does not."""
    wrong = [
        f"{name} is {got or 'missing'}, the list has {wanted}"
        for name, wanted in pinned.pins.items()
        if (got := installed.get(name, "")) != wanted and got.partition("+")[0] != wanted
    ]
    more = [f"… and {len(wrong) - _MOST_DIFFERENCES} more"] if len(wrong) > _MOST_DIFFERENCES else []
    return wrong[:_MOST_DIFFERENCES] + more
