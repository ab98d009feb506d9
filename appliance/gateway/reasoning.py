"""The model's reasoning under both of its names.

vLLM calls it `reasoning`, llama.cpp and DeepSeek's own API `reasoning_content`; clients read one or the other.
"""

from __future__ import annotations

import re

_NAMED = re.compile(rb'"(reasoning|reasoning_content)":\s?("(?:[^"\\]++|\\.)*+")')
"""Within a JSON string both quotes of a name would be escaped, so what is found is a member."""

_OTHER = {b"reasoning": b"reasoning_content", b"reasoning_content": b"reasoning"}


def both_names(lines: bytes) -> bytes:
    """A change of whole lines."""
    return b"".join(map(_both, lines.splitlines(keepends=True)))


def _both(line: bytes) -> bytes:
    if b'"reasoning' not in line or len({found[1] for found in _NAMED.finditer(line)}) != 1:
        return line
    return _NAMED.sub(lambda found: b'%b,"%b":%b' % (found[0], _OTHER[found[1]], found[2]), line)
