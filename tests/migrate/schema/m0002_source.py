"""`from` is called `source`."""

from __future__ import annotations

import re


def migrate(text: str) -> str:
    text = re.sub(r"^(\s+)from:", r"\1source:", text, flags=re.MULTILINE)
    return re.sub(r"^version: 2\b", "version: 3", text, flags=re.MULTILINE)
