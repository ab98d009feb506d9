"""A checkpoint's chat template, from wherever its publisher put it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appliance.engines.driver import Template


def template(path: Path, given: str | None = None) -> Template:
    """Of a checkpoint's directory. `given` is a template in its place: the text of one, or a file's path."""
    kind = _json(path / "config.json").get("model_type")
    text = _own(path) if given is None else _given(given)
    return Template(text=text, model_type=kind if isinstance(kind, str) else "")


def _given(given: str) -> str:
    # A template has braces or line breaks, which no path of one has.
    return given if "{" in given or "\n" in given else _text(Path(given))


def _own(path: Path) -> str:
    """(1) A file of its own, (2) the processor's, (3) the tokenizer's; where there are several, all of them."""
    files = [path / "chat_template.jinja", *sorted(path.glob("additional_chat_templates/*.jinja"))]
    if found := "\n".join(filter(None, map(_text, files))):  # (1)
        return found
    for name in ("chat_template.json", "tokenizer_config.json"):  # (2), (3)
        if found := "\n".join(_texts(_json(path / name).get("chat_template"))):
            return found
    return ""


def _texts(value: Any) -> Iterable[str]:
    """One template, or a list of named ones: `default`, `tool_use`, …"""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (
            each["template"] for each in value if isinstance(each, dict) and isinstance(each.get("template"), str)
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
