"""docs/reference/http.md, generated from the table of routes.

`python -m appliance.gateway.reference --write` brings it up to date; `--check` fails where it is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette

from appliance import generated
from appliance.gateway.app import create_app
from appliance.gateway.docker.store import Disk
from appliance.gateway.openapi import ERRORS, operation_of, operations
from appliance.gateway.routes import Endpoint, Routes
from appliance.routing import Route, Routing

WRITE = "python -m appliance.gateway.reference --write"
FILE = "docs/reference/http.md"

_INTRODUCTION = f"""\
# HTTP

<!-- Generated from the gateway's routes by `{WRITE}`; edit appliance/gateway/openapi.py. -->

Everything that the gateway answers; any other path is 404, whatever an engine has there. The same as an OpenAPI
document is at `/openapi.json`. A key is sent as `Authorization: Bearer KEY` or `x-api-key: KEY`, and needs the scope in
the table where the file has keys at all; no scope, no key. `HEAD` works wherever `GET` does.
"""


class _Nobody:
    """A port that is never asked: routes are made, and no request comes."""

    def routing(self) -> Routing:
        return Routing()

    async def changed(self, seen: Routing) -> Routing:
        raise NotImplementedError

    async def ready(self, model: str, *, within: float) -> Route:
        raise NotImplementedError

    def status(self) -> Mapping[str, Any]:
        raise NotImplementedError


def surface() -> Routes:
    """Every route that there can be, with all that is optional switched on."""
    return create_app(
        _Nobody(), max_body=0, loopback=True, admin=Starlette(), metrics=True, disk=lambda: Disk(0, 0)
    ).routes


def outputs() -> Mapping[str, str]:
    return {FILE: markdown()}


def markdown() -> str:
    return "\n".join((_INTRODUCTION, *_sections(surface()), *_errors()))


TITLES = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "ollama": "Ollama",
    "docker": "Docker Model Runner",
    "own": "The appliance's own",
}


def _sections(routes: Routes) -> Iterator[str]:
    found = sorted(operations(routes), key=lambda each: (each[1], each[0]))
    for section, title in TITLES.items():
        rows = [row for row in found if _section(row[2], row[1]) == section]
        if rows:
            yield f"## {title}\n\n| | path | scope | what it answers |\n| --- | --- | --- | --- |"
            yield from (_row(*row) for row in rows)
            yield ""


def _section(endpoint: Endpoint, path: str) -> str:
    own = endpoint.scope != "inference" and endpoint.dialect == "openai"
    return "own" if own or path.startswith("/admin") else endpoint.dialect


def _row(method: str, path: str, endpoint: Endpoint) -> str:
    scope = f"`{endpoint.scope}`" if endpoint.scope else ""
    return f"| {method} | `{path}` | {scope} | {operation_of(method, path).summary} |"


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield "In the shape of the API that was asked. Each carries the request's id, in its body or as `x-request-id`.\n"
    yield "| status | meaning |\n| --- | --- |"
    yield from (f"| {status} | {meaning} |" for status, meaning in ERRORS.items())
    yield ""


def main(arguments: Sequence[str] | None = None) -> int:
    return generated.command("appliance.gateway.reference", __doc__, outputs, arguments)


if __name__ == "__main__":
    sys.exit(main())
