"""The page `/ui`: a few static files, the same for everybody. What they show comes from the admin API."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.types import Receive

from appliance.gateway.call import Call
from appliance.gateway.errors import Header
from appliance.gateway.routes import Endpoint, Routes

ROOT = Path(__file__).parent / "ui"
INDEX = "index.html"
TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What a browser may load and run for the page. A model's answer or a log line that looks like markup stays text: no
script can make HTML from it either."""

HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    (b"cache-control", b"no-cache"),
)


def routes() -> Routes:
    page = {"GET": Endpoint(_answer, scope=None)}
    return {"/ui": page, "/ui/": page, **{f"/ui/{path.name}": page for path in _paths()}}


async def _answer(call: Call, _: Receive) -> None:
    kind, tag, body = _files()[call.path.removeprefix("/ui").removeprefix("/") or INDEX]
    headers = [*HEADERS, (b"content-type", kind), (b"etag", tag)]
    if call.headers.get(b"if-none-match") == tag:
        await call.answer(304, headers, b"")
        return
    headers.append((b"content-length", b"%d" % len(body)))
    await call.answer(200, headers, b"" if call.method == "HEAD" else body)


def _paths() -> list[Path]:
    return [path for path in ROOT.iterdir() if path.suffix in TYPES]


@cache
def _files() -> dict[str, tuple[bytes, bytes, bytes]]:
    """Type, tag and content of each file by its name, read once: whoever never opens the page does without."""
    return {path.name: (TYPES[path.suffix], *_tagged(path.read_bytes())) for path in _paths()}


def _tagged(body: bytes) -> tuple[bytes, bytes]:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'.encode(), body
