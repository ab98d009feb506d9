"""`engines` is called `models`."""

from __future__ import annotations

import re


def migrate(text: str) -> str:
    text = re.sub(r"^engines:", "models:", text, flags=re.MULTILINE)
    return re.sub(r"^version: 1\b", "version: 2", text, flags=re.MULTILINE)
