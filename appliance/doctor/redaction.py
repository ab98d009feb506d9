"""Take secrets out of text: those that are known, wherever they are, and whatever looks like one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from appliance.config.models import Appliance
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene
from appliance.process import identity
from appliance.process.sweep import remains

REPLACEMENT = "[redacted]"
SHORTEST = 4
"""Characters: to replace something shorter would blot out words that mean something else."""

_NAMES = re.compile(
    r"(?i)key|token|secret|passw|pwd|credential|auth|cookie|session|dsn|(^|_)url$|(^|_)uri$|_proxy$|index"
)
_ORDINARY = frozenset(
    (
        "PWD",
        "OLDPWD",
        "DESKTOP_SESSION",
        "GDMSESSION",
        "SESSION_MANAGER",
        "XDG_SESSION_CLASS",
        "XDG_SESSION_DESKTOP",
        "XDG_SESSION_ID",
        "XDG_SESSION_PATH",
        "XDG_SESSION_TYPE",
    )
)
"""Variables of every shell and desktop that are called like a secret: directories, and words such as `user`."""
_HARMLESS = frozenset({"", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "auto", "localhost"})

_LOOKS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s@\"'<>]+(?=@)"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?"),
    re.compile(r"\b(?:sk|pk|rk|hf|ghp|gho|ghs|ghu|github_pat|glpat|xox[abprs]|AKIA|ASIA|AIza|ya29|nvapi)[-_.]?[A-Za-z0-9_-]{12,}"),
    re.compile(r"\b[0-9a-fA-F]{32,}\b"),
    re.compile(r"(?i)(?<![A-Za-z])(?:x-api-key|api[-_]?key|token|secret|password|passwd)[\"']?\s*[:=]\s*[\"']?(?!KEY`)[^\s\"',;&}]{4,}"),
)  # fmt: skip


class Redaction:
    """`known` are secrets; each is replaced in every form in which a log or a document would hold it."""

    def __init__(self, known: Iterable[str]) -> None:
        forms = {form for secret in known for form in _forms(secret) if len(form) >= SHORTEST}
        # The longest first: one secret may be part of another.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REPLACEMENT, text)
        for pattern in _LOOKS:
            text = pattern.sub(REPLACEMENT, text)
        return text

    def finding(self, finding: Finding) -> Finding:
        text = self.text
        return replace(finding, finding=text(finding.finding), cause=text(finding.cause), remedy=text(finding.remedy))

    def value(self, value: Any) -> Any:
        """Plain data, with every text in it and every key redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value


def secrets_of(scene: Scene) -> Iterator[str]:
    """What must not be seen: of the environment, of the file, and the keys of running engines."""
    for name, value in scene.environ.items():
        if _NAMES.search(name) and name not in _ORDINARY and value.lower() not in _HARMLESS:
            yield value
            yield from _of_address(value)
    if scene.loaded is not None:
        yield from _of_file(scene.loaded.appliance)
    for directory in remains(scene.state.run) if scene.state.run.is_dir() else ():
        launch = identity.read(directory).get("launch")
        if isinstance(launch, dict) and isinstance(launch.get("key"), str):
            yield launch["key"]


def _of_file(appliance: Appliance) -> Iterator[str]:
    if appliance.huggingface.token is not None:
        yield appliance.huggingface.token.get_secret_value()
    variables = [model.env for model in appliance.models.values()]
    for env in (*variables, *(backend.env for backend in appliance.backends.values())):
        for secret in env.values():
            if (value := secret.get_secret_value()).lower() not in _HARMLESS:
                yield value
    yield from (key.sha256 for key in appliance.auth.keys)


def _of_address(text: str) -> Iterator[str]:
    """User and password of an address, each by itself, as it is written and as it is meant."""
    try:
        parts = urlsplit(text)
        found = [part for part in (parts.username, parts.password) if part]
    except ValueError:
        return
    for part in found:
        yield part
        yield unquote(part)


def _forms(secret: str) -> Iterator[str]:
    for text in {secret, secret.strip(), *secret.splitlines()}:
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield repr(text)[1:-1]
        yield quote(text, safe="")
        yield quote(text)
        yield quote_plus(text)
        yield base64.b64encode(text.encode(errors="surrogateescape")).decode()
