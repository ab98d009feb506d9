"""Client keys: made here, stored as hashes only."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "sk-appliance-"


def new_key() -> tuple[str, str]:
    """A fresh key in clear, to be shown once, and the SHA-256 that goes into the file."""
    clear = PREFIX + secrets.token_urlsafe(32)
    return clear, digest(clear.encode())


def digest(key: bytes) -> str:
    # Plain SHA-256 is enough: a key has 256 random bits, so there is no dictionary for a slow hash to defend against.
    return hashlib.sha256(key).hexdigest()
