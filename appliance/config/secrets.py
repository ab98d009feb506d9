"""`${env:NAME}` and `${file:path}`: secrets that the file refers to and does not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from appliance.config.models import Appliance
from appliance.config.problems import KeyPath
from appliance.config.scalars import SecretText
from appliance.config.validation import Finding

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(env|file):([^{}]+)\})?")


def is_reference(text: str) -> bool:
    """Whether the whole text is one reference, so that it may be shown."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match[1] is not None


class Expansion:
    """Replaces references by what they refer to; `findings` collects those that lead nowhere."""

    def __init__(
        self,
        environ: Mapping[str, str],
        base_of: Callable[[KeyPath], Path],
        read: Callable[[Path], str | None],
    ) -> None:
        self.findings: list[Finding] = []
        self._environ = environ
        self._base_of = base_of
        self._read = read

    def apply(self, appliance: Appliance) -> Appliance:
        token = appliance.huggingface.token
        expanded = self._secret(token, ("huggingface", "token")) if token else None
        return appliance.model_copy(
            update={
                "models": {
                    name: model.model_copy(update={"env": self._mapping(model.env, ("models", name, "env"))})
                    for name, model in appliance.models.items()
                },
                "backends": {
                    name: backend.model_copy(update={"env": self._mapping(backend.env, ("backends", name, "env"))})
                    for name, backend in appliance.backends.items()
                },
                "huggingface": appliance.huggingface.model_copy(update={"token": expanded}),
            }
        )

    def _mapping(self, env: Mapping[str, SecretText], path: KeyPath) -> dict[str, SecretText]:
        return {name: self._secret(secret, (*path, name)) for name, secret in env.items()}

    def _secret(self, secret: SecretText, path: KeyPath) -> SecretText:
        text = secret.get_secret_value()
        if "${" not in text:
            return secret
        expanded = SecretText("".join(self._pieces(text, path)))
        expanded.reference = text if is_reference(text) else None
        return expanded

    def _pieces(self, text: str, path: KeyPath) -> Iterator[str]:
        end = 0
        for match in _REFERENCE.finditer(text):
            yield text[end : match.start()]
            yield "${" if match[0] == "$${" else self._follow(match[1], match[2], path)
            end = match.end()
        yield text[end:]

    def _follow(self, kind: str | None, target: str, path: KeyPath) -> str:
        if kind is None:
            hint = "write `${env:NAME}` or `${file:path}`, or `$${` for a plain `${`"
            self.findings.append((path, "`${` does not start a reference", hint))
            return ""
        if kind == "env":
            if target not in self._environ:
                self.findings.append((path, f"environment variable `{target}` is not set", f"export {target}=…"))
            return self._environ.get(target, "")
        file = self._base_of(path) / Path(target).expanduser()
        if (content := self._read(file)) is None:
            self.findings.append((path, f"`{file}` cannot be read as text", "it must be a small UTF-8 file of yours"))
        return (content or "").rstrip("\r\n")
