"""A golden case: one YAML file holding the input, a line of dashes, and the whole error text.

Comments at the top of the input may set the scene: `#env NAME=value` and `#flag server.port=8001`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.config.load import interpret
from appliance.errors import ConfigError

CASES = Path(__file__).parent / "cases"
BACKENDS = frozenset({"vllm", "vllm-metal"})


@dataclass(frozen=True)
class Case:
    text: str
    expected: str

    @classmethod
    def read(cls, path: Path) -> Case:
        text, expected = re.split(r"^-{10,}\n", path.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)
        return cls(text, expected)

    def outcome(self) -> str:
        environ = dict(re.findall(r"^#env (\w+)=(.*)$", self.text, re.MULTILINE))
        overrides = dict(re.findall(r"^#flag ([\w.]+)=(.*)$", self.text, re.MULTILINE))
        try:
            interpret(self.text, Path("model-runner.yaml"), environ=environ, overrides=overrides, backends=BACKENDS)
        except ConfigError as error:
            return f"{error.message}\n"
        return "no problem\n"
