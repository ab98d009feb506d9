"""Compose's `${NAME}`: values from .env and the environment, with `:-`, `-`, `:?`, `?`, `:+` and `+`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.migrate.found import is_secret_name, secrets_in

_REFERENCE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?P<how>:?[-?+])?(?P<word>[^{}]*)\})"
)
_DEEPEST = 4


@dataclass
class Interpolation:
    values: Mapping[str, str] = field(repr=False)
    missing: dict[str, None] = field(default_factory=dict)
    """Variables that nobody set, in the order they were met."""
    secrets: set[str] = field(default_factory=set, repr=False)

    def apply(self, text: str) -> str:
        """Names that are not set become nothing, as Compose has it; each is remembered."""
        for _ in range(_DEEPEST):  # `${A:-${B}}` from the inside out
            text, count = re.subn(r"\$\{[A-Za-z_]\w*:?[-+?][^{}]*(\$\{[^{}]*\})", self._inner, text)
            if not count:
                break
        return _REFERENCE.sub(self._value, text)

    def _inner(self, match: re.Match[str]) -> str:
        return match[0][: match.start(1) - match.start()] + _REFERENCE.sub(self._value, match[1])

    def _value(self, match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name, how = match["bare"] or match["name"], match["how"] or ""
        word = match["word"] or ""
        value = self.values.get(name)
        present = value is not None and not (how.startswith(":") and value == "")
        if how.endswith("+"):
            return word if present else ""
        if value is not None and present:
            if (is_secret_name(name) and len(value) >= 4) or secrets_in(value):
                self.secrets.add(value)
            return value
        if how.endswith("-"):
            return word
        self.missing[name] = None
        return ""
