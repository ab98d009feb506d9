"""systemd's units: of a user's own manager, or of the system's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.service.definition import SOCKET, Definition
from appliance.service.supervisor import Activity, Answer, Argv

SERVICE = "appliance.service"
LISTENER = "appliance.socket"
SYSTEM_HOME = Path("/var/lib/appliance")

_SYSTEM_UNITS = Path("/etc/systemd/system")

# What an engine needs stays allowed: compiled kernels (so no MemoryDenyWriteExecute), accelerators (so no
# PrivateDevices), netlink for the collectives of vLLM, and the temporary directory that the commands share with it.
_HARDENING = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
)
# A user's manager has no privilege to make these.
_SYSTEM_HARDENING = (
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RemoveIPC=yes",
)


@dataclass(frozen=True, slots=True)
class Systemd:
    """`units` is where unit files go; `system` says whose manager reads them."""

    units: Path
    system: bool

    @classmethod
    def of(cls, environ: Mapping[str, str], *, system: bool) -> Systemd:
        if system:
            return cls(_SYSTEM_UNITS, system=True)
        configuration = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
        return cls(Path(configuration) / "systemd" / "user", system=False)

    @property
    def name(self) -> str:
        return "systemd" if self.system else "systemd --user"

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.units / SERVICE, self.units / LISTENER)

    @property
    def probe(self) -> Argv:
        return self._systemctl("show", "--property=Version")

    @property
    def absent(self) -> str:
        if self.system:
            return "this machine was not started by systemd; run `appliance up -d` from what starts its services"
        return "log in on a terminal of this user (not with `su`), or use `--system`; containers have no user manager"

    def files(self, definition: Definition) -> Mapping[Path, bytes]:
        service = "\n".join(self._service(definition)) + "\n"
        return {
            self.units / SERVICE: service.encode(),
            self.units / LISTENER: ("\n".join(_socket(definition)) + "\n").encode(),
        }

    def ask(self) -> Argv:
        return self._systemctl("show", "--property=LoadState,ActiveState,SubState,MainPID", SERVICE)

    def activity(self, answer: Answer) -> Activity:
        said = dict(line.split("=", 1) for line in answer.output.splitlines() if "=" in line)
        pid = int(said.get("MainPID") or 0) or None
        words = f"{said.get('ActiveState', 'unknown')} ({said.get('SubState', 'unknown')})"
        return Activity(said.get("LoadState") == "loaded", said.get("ActiveState") == "active", words, pid)

    def start(self, *, again: bool) -> Sequence[Argv]:
        # Both at once: a socket cannot be started beside its running service, and starts one that is alone.
        stop = [self._systemctl("stop", LISTENER, SERVICE)] if again else []
        units = (LISTENER, SERVICE)
        return [self._systemctl("daemon-reload"), *stop, self._systemctl("enable", "--now", *units)]

    def stop(self) -> Sequence[Argv]:
        return [self._systemctl("disable", "--now", LISTENER, SERVICE)]

    def forget(self) -> Sequence[Argv]:
        return [self._systemctl("daemon-reload")]

    def journal(self, *, lines: int, follow: bool) -> Argv:
        unit = f"--unit={SERVICE}" if self.system else f"--user-unit={SERVICE}"
        return ("journalctl", unit, f"--lines={lines}", "--output=cat", "--no-pager", *(["--follow"] if follow else []))

    def _systemctl(self, *arguments: str) -> Argv:
        return ("systemctl", *([] if self.system else ["--user"]), *arguments)

    def _service(self, definition: Definition) -> Iterator[str]:
        yield "# Written by `appliance service install`, which overwrites it; drop-ins in appliance.service.d stay."
        yield "[Unit]"
        yield "Description=Language models as model-runner.yaml says"
        yield f"Requires={LISTENER}"
        yield f"After={LISTENER}"
        # A file that is mended is served without anybody resetting a counter.
        yield "StartLimitIntervalSec=0"
        yield ""
        yield "[Service]"
        yield "Type=exec"
        yield f"ExecStart={_command(definition.command)}"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
        yield f"WorkingDirectory={_specifiers(str(definition.directory))}"
        for name, value in definition.variables.items():
            yield f"Environment={_quoted(f'{name}={value}')}"
        if definition.user:
            yield f"User={definition.user}"
        yield "Restart=on-failure"
        # Engines outlive a crash of the control process for ten seconds, and the next one takes them over.
        yield "RestartSec=2"
        yield "KillMode=process"
        yield f"TimeoutStopSec={definition.stop_timeout}"
        yield from _HARDENING
        if self.system:
            yield from _SYSTEM_HARDENING
            if definition.home == SYSTEM_HOME:
                yield f"StateDirectory={SYSTEM_HOME.name}"
                yield "StateDirectoryMode=0700"
            # `key create` and `rollback` write the file.
            writable = [definition.directory, *([] if definition.home == SYSTEM_HOME else [definition.home])]
            yield f"ReadWritePaths={' '.join(_quoted(str(path)) for path in writable)}"
        yield ""
        yield "[Install]"
        yield f"WantedBy={'multi-user.target' if self.system else 'default.target'}"
        yield f"Also={LISTENER}"


def _socket(definition: Definition) -> Iterator[str]:
    address = ipaddress.ip_address(definition.host)
    where = f"[{address}]" if address.version == 6 else str(address)
    yield "# Written by `appliance service install`, which overwrites it."
    yield "[Unit]"
    yield "Description=Where the appliance listens; clients queue here while it restarts"
    yield ""
    yield "[Socket]"
    yield f"ListenStream={where}:{definition.port}"
    yield f"FileDescriptorName={SOCKET}"
    yield "Backlog=2048"
    yield "Accept=no"
    if address.version == 6:
        yield "BindIPv6Only=ipv6-only"
    yield ""
    yield "[Install]"
    yield "WantedBy=sockets.target"


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    r"""One word of a unit file; `\`, `"` and `%` mean something there."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return _specifiers(f'"{escaped}"' if re.search(r"""[\s"'\\;]""", text) or not text else text)


def _command(argv: Sequence[str]) -> str:
    # A program's own path may hold no quote or backslash, and its `$` means itself.
    program = _quoted(argv[0]) if not re.search(r"""["'\\$]""", argv[0]) else f"/usr/bin/env {_argument(argv[0])}"
    return " ".join((program, *map(_argument, argv[1:])))


def _argument(text: str) -> str:
    """One word of a command line, where `$` means a variable besides."""
    return _quoted(text).replace("$", "$$")
