"""Why requests were refused, from the appliance's own log."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene

_PRETTY = re.compile(r"(\w+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_REASONS: Mapping[str, tuple[str, str]] = {
    "no_key": (
        "they carried no API key",
        "send `Authorization: Bearer KEY` or `x-api-key: KEY`; SDKs call it `api_key`, Claude Code ANTHROPIC_API_KEY",
    ),
    "wrong_scheme": (
        "their `Authorization` header is not `Bearer KEY`",
        "write `Bearer`, one space and the key, without quotes; Basic authentication is not known here",
    ),
    "unknown_key": (
        "their key is none of those in the file: it was revoked, mistyped, or is for another server",
        "`appliance key list` names those there are; `appliance key create NAME` makes one",
    ),
    "expired_key": ("their key has expired", "set `expires` to a later day, or `appliance key create NAME`"),
}


def check(scene: Scene) -> Iterator[Finding]:
    counted: Counter[tuple[str, str, str]] = Counter()
    for request in map(parse, scene.log):
        if str(request.get("status")) == "401":
            reason, _, key = str(request.get("reason") or "").partition(" ")
            counted[reason, key, str(request.get("path", ""))] += 1
    for (reason, key, path), number in counted.most_common(8):
        cause, remedy = _REASONS.get(reason, ("the log does not say why", "ask again and look at the answer"))
        named = f" (`{key}`)" if key else ""
        said = f"1 request to {path} was" if number == 1 else f"{number} requests to {path} were"
        yield Finding("access", "warning", f"{said} answered 401{named}", cause, remedy)


def parse(line: str) -> Mapping[str, Any]:
    """The fields of one log line in either of its two forms; nothing where it is another kind of line."""
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            return {}
        return fields if isinstance(fields, dict) else {}
    plain = _COLOUR.sub("", line)
    return {name: _literal(value) for name, value in _PRETTY.findall(plain)}


def _literal(text: str) -> Any:
    if text[:1] not in "'\"":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
