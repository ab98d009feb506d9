"""`key create|list|revoke`: the file is edited in place, its comments kept."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.compose import compose_input
from appliance.cli.loading import interpreted, read
from appliance.config.edit import add_key, remove_key
from appliance.config.load import DEFAULT_FILE
from appliance.errors import ApplianceError
from appliance.gateway.keys import new_key
from appliance.state import write_atomic


def create(file: Path | None, name: str, *, models: list[str], scopes: list[str], expires: str | None) -> None:
    path = _with_keys(file)
    loaded = read(path)
    if any(key.name == name for key in loaded.appliance.auth.keys):
        raise ApplianceError(f"there is already a key `{name}`", hint=f"`appliance key revoke {name}` removes it")
    clear, digest = new_key()
    entry: dict[str, Any] = {"name": name, "sha256": digest}
    if models:
        entry["models"] = models
    if scopes:
        entry["scopes"] = scopes
    if expires:
        entry["expires"] = _day(expires)
    _save(path, add_key(path.read_text(encoding="utf-8"), entry))
    output.note(f"wrote the hash of key `{name}` to {path}; the key itself is shown this once:")
    output.data(clear)


def show(file: Path | None, *, as_json: bool) -> None:
    keys = read(file).appliance.auth.keys
    if as_json:
        output.as_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    output.table(
        ("KEY", "SCOPES", "MODELS", "EXPIRES"),
        ((key.name, " ".join(key.scopes), " ".join(key.models), str(key.expires or "never")) for key in keys),
    )


def revoke(file: Path | None, name: str) -> None:
    path = _with_keys(file)
    known = ", ".join(f"`{key.name}`" for key in read(path).appliance.auth.keys) or "none"
    text = remove_key(path.read_text(encoding="utf-8"), name)
    if text is None:
        raise ApplianceError(f"{path} has no key `{name}`", hint=f"keys there are: {known}")
    _save(path, text)
    output.note(f"removed key `{name}` from {path}")


def _with_keys(file: Path | None) -> Path:
    """The file to edit. Raises ApplianceError for a Compose file, whose format is not ours to extend."""
    path = file or DEFAULT_FILE
    if compose_input(path) is not None:
        raise ApplianceError(
            f"`{path}` is a Compose file, which has no place for keys",
            hint=f"`appliance migrate {shlex.quote(str(path))}` writes a model-runner.yaml with its models: create the "
            "key there; or start `appliance up` with one key in the variable API_KEY",
        )
    return path


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ApplianceError(f"`{text}` is not a day", hint="write it as 2027-06-30") from None


def _save(path: Path, text: str) -> None:
    """Write the file, unless what would be written is not a valid configuration."""
    interpreted(text, path)
    write_atomic(path, text.encode(), mode=path.stat().st_mode & 0o777)
