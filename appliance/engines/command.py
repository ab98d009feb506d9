"""Any server of the file's `backends:` as an engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appliance.engines.diagnosis import diagnose
from appliance.engines.driver import ArgumentProblem, Choice, Format, Launch, Shape, Template
from appliance.errors import ConfigError
from appliance.plan.desired import EngineSpec

PLACEHOLDERS = ("model", "port", "socket", "name")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}")


def unknown_placeholders(command: Sequence[str]) -> tuple[str, ...]:
    """The `{words}` of a command that nothing replaces. JSON in an argument is not mistaken for one."""
    found = (name for word in command for name in _PLACEHOLDER.findall(word))
    return tuple(dict.fromkeys(name for name in found if name not in PLACEHOLDERS))


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    command: tuple[str, ...]
    format: Format = "any"

    @property
    def transport(self) -> Literal["unix", "tcp"]:
        return "unix" if any("{socket}" in word for word in self.command) else "tcp"

    def check(self, arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
        hint = f"write it into `backends.{self.name}.command`"
        for name in arguments:
            yield ArgumentProblem(name, f"backend `{self.name}` is a command and takes no arguments here", hint)

    def choose(self, spec: EngineSpec, template: Template) -> tuple[Choice, ...]:  # noqa: ARG002 - the Protocol's
        return ()

    def argv(self, spec: EngineSpec, launch: Launch) -> tuple[str, ...]:
        if unknown := unknown_placeholders(spec.command):
            known = ", ".join(f"`{{{name}}}`" for name in PLACEHOLDERS)
            raise ConfigError(
                f"`backends.{self.name}.command`: nothing replaces `{{{unknown[0]}}}`", hint=f"it may hold {known}"
            )
        values = {"model": launch.model, "port": launch.port, "socket": launch.socket, "name": spec.model}
        return tuple(_PLACEHOLDER.sub(lambda match: str(values[match[1]]), word) for word in spec.command)

    def env(self, spec: EngineSpec, launch: Launch) -> dict[str, str]:  # noqa: ARG002 - the Protocol's
        # The engine's key, under the names by which the servers that know such a variable know it.
        return {"VLLM_API_KEY": launch.key, "LLAMA_API_KEY": launch.key}

    def memory(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int | None:  # noqa: ARG002 - the Protocol's
        return shape.weights

    def fitting(self, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> None:  # noqa: ARG002 - the Protocol's
        return None

    def health(self, spec: EngineSpec) -> str:
        return spec.health

    def diagnose(self, lines: Sequence[str]) -> str | None:
        return diagnose(lines)
