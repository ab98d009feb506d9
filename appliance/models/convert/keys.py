"""The numbers below an architecture's own prefix in a GGUF's metadata, checked before anything relies on them."""

from __future__ import annotations

from typing import Any

from .refused import damaged


class Keys:
    """`llama.block_count` is `block_count` here."""

    def __init__(self, metadata: dict[str, Any], prefix: str) -> None:
        self._metadata = metadata
        self._prefix = prefix

    def count(self, key: str, default: int | None = None) -> int:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if type(value) is not int or not 1 <= value < 2**31:
            raise damaged(f"`{self._prefix}.{key}` is `{short(value)}`, expected a whole number above zero")
        return value

    def window(self) -> int | None:
        """Tokens of the sliding window; 0 in the file means none."""
        key = "attention.sliding_window"
        return self.count(key) if self._metadata.get(f"{self._prefix}.{key}") else None

    def fraction(self, key: str, default: float | None = None) -> float:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise damaged(f"`{self._prefix}.{key}` is `{short(value)}`, expected a number above zero")
        return float(f"{value:.7g}")  # what was written before float32 stretched it: 1e-05, not 9.999999747378752e-06


def short(value: Any) -> str:
    """Enough of what a file says for an error."""
    return str(value)[:40]
