"""How much structure a JSON body may have, found out before anything is built from it.

A byte of structure becomes up to a hundred bytes of objects: 32 MiB of `{},` would be a gigabyte, and every request of
all clients waits while it is made.
"""

from __future__ import annotations

import re

from appliance.errors import RequestError

DEPTH = 128
"""Brackets within brackets. A conversation has five; the JSON schemas of tools have been seen with twenty."""
VALUES = 500_000
"""Members and items of all objects and arrays: a prompt of as many token ids."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Possessive and without need of an end, so that no body makes it look twice."""
_BRACKETS = re.compile(rb"[\[\]{}]")


def check(body: bytes) -> None:
    """Raises RequestError. Text is nearly all of what bodies are made of, so they are measured as they come first."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= DEPTH and opened + body.count(b",") <= VALUES:
        return
    bare = _STRING.sub(b"", body)
    if bare.count(b"[") + bare.count(b"{") + bare.count(b",") > VALUES:
        raise RequestError(f"the body has more than {VALUES} values", status=400, code="invalid_json")
    depth = 0
    for bracket in _BRACKETS.finditer(bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH:
            message = f"the body is nested too deeply: more than {DEPTH} levels"
            raise RequestError(message, status=400, code="invalid_json")
