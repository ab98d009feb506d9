"""The environment that a zygote's imports have seen, and what it may differ in from an engine's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PER_ENGINE = frozenset(
    {"VLLM_API_KEY", "LLAMA_API_KEY", "TMPDIR", "APPLIANCE_ENGINE", "APPLIANCE_METAL_REPORT", "OMP_NUM_THREADS"}
)
"""What differs from engine to engine. None of it is read by an import, or it is set right after the fork."""


@dataclass
class Base:
    """`learnt` is what the imports have changed: None for a variable that they deleted."""

    given: dict[str, str]
    learnt: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def now(cls) -> Base:
        return cls(dict(os.environ))

    def learn(self) -> None:
        os.environ.pop("OPENBLAS_NUM_THREADS", None)
        if "OPENBLAS_NUM_THREADS" in self.given:
            os.environ["OPENBLAS_NUM_THREADS"] = self.given["OPENBLAS_NUM_THREADS"]
        private = self.given.get("TMPDIR", "\0")
        for name in self.given.keys() | os.environ.keys():
            now = os.environ.get(name)
            if name not in PER_ENGINE and now != self.given.get(name) and private not in (now or ""):
                self.learnt[name] = now

    def refusal(self, argv: Sequence[str], env: Mapping[str, str]) -> str | None:
        """Why an engine with this command and environment would not be the same as one that is executed."""
        if argv[0] != sys.executable:
            return f"`{argv[0]}` is not the interpreter that is warm"
        if len(argv) < 2 or (argv[1].startswith("-") and (argv[1] != "-m" or len(argv) < 3)):
            return "its command is neither a module nor a script"
        # Which variables the imports have read cannot be told from outside: any other value is another engine.
        for name in sorted((self.given.keys() | env.keys()) - PER_ENGINE):
            if self.given.get(name) != env.get(name):
                return f"its environment differs in `{name}`"
        return None

    def apply(self, env: Mapping[str, str]) -> None:
        """Make this the environment of the process, as it would be after the same imports."""
        os.environ.clear()
        os.environ.update(env)
        for name, value in self.learnt.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
