"""launchd's property list: an agent in a user's session, or a daemon of the machine that runs as a user."""

from __future__ import annotations

import ipaddress
import plistlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.service.definition import SOCKET, Definition
from appliance.service.supervisor import Activity, Answer, Argv

LABEL = "local.appliance"
_FILES = 16384
"""macOS gives a process 256 descriptors; a stream takes two."""


@dataclass(frozen=True, slots=True)
class Launchd:
    """`directory` is where the property list goes; `domain` is launchd's word for where it is loaded."""

    directory: Path
    domain: str

    @classmethod
    def of(cls, environ: Mapping[str, str], *, system: bool, uid: int) -> Launchd:
        if system:
            return cls(Path("/Library/LaunchDaemons"), "system")
        return cls(Path(environ.get("HOME", "~")).expanduser() / "Library" / "LaunchAgents", f"gui/{uid}")

    @property
    def name(self) -> str:
        return "launchd"

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.directory / f"{LABEL}.plist",)

    @property
    def probe(self) -> Argv:
        return ("launchctl", "print", self.domain)

    @property
    def absent(self) -> str:
        return "log in at the screen: launchd has no session for this user (over ssh alone there is none)"

    def files(self, definition: Definition) -> Mapping[Path, bytes]:
        return {self.paths[0]: plistlib.dumps(property_list(definition), sort_keys=False)}

    def ask(self) -> Argv:
        return ("launchctl", "print", self._target)

    def activity(self, answer: Answer) -> Activity:
        if answer.status != 0:
            return Activity(loaded=False, running=False, state="not loaded")
        pid = re.search(r"^\s*pid = (\d+)", answer.output, re.MULTILINE)
        state = re.search(r"^\s*state = (.+)", answer.output, re.MULTILINE)
        return Activity(True, pid is not None, state[1].strip() if state else "unknown", int(pid[1]) if pid else None)

    def start(self, *, again: bool) -> Sequence[Argv]:
        stop = self.stop() if again else []
        load = ("launchctl", "bootstrap", self.domain, str(self.paths[0]))
        return [*stop, ("launchctl", "enable", self._target), load]

    def stop(self) -> Sequence[Argv]:
        return [("launchctl", "bootout", self._target)]

    def forget(self) -> Sequence[Argv]:
        return []

    def journal(self, *, lines: int, follow: bool) -> None:  # noqa: ARG002 - launchd keeps none
        return None

    @property
    def _target(self) -> str:
        return f"{self.domain}/{LABEL}"


def property_list(definition: Definition) -> dict[str, Any]:
    """Keys as in launchd.plist(5)."""
    family = "IPv6" if ipaddress.ip_address(definition.host).version == 6 else "IPv4"
    values: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": [*definition.command],
        "WorkingDirectory": str(definition.directory),
        "EnvironmentVariables": dict(definition.variables),
        "Sockets": {
            SOCKET: {
                "SockNodeName": definition.host,
                "SockServiceName": str(definition.port),
                "SockType": "stream",
                "SockFamily": family,
            }
        },
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ExitTimeOut": definition.stop_timeout,
        # Engines outlive a crash of the control process, and the next one takes them over.
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": _FILES},
        "HardResourceLimits": {"NumberOfFiles": _FILES},
        "StandardOutPath": str(definition.log),
        "StandardErrorPath": str(definition.log),
        "Umask": 0o077,
    }
    if definition.user:
        values["UserName"] = definition.user
    return values
