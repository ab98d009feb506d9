"""The shape of the table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.types import Receive

from appliance.gateway.auth import Scope
from appliance.gateway.call import Call
from appliance.gateway.errors import Dialect, MethodNotAllowed, unknown_route


@dataclass(frozen=True, slots=True)
class Endpoint:
    answer: Callable[[Call, Receive], Awaitable[None]]
    scope: Scope | None = "inference"
    """What the key must allow; None asks for no key."""
    dialect: Dialect = "openai"
    key_required: bool = False
    """Whether nobody may ask without a key, even where none are configured: but for the page, see `keyless`."""


Routes = Mapping[str, Mapping[str, Endpoint]]
"""Path, then method. A path that ends in `/*` takes all beneath it, for names that have slashes themselves."""


def find(routes: Routes, method: str, path: str) -> Endpoint:
    methods = routes.get(path) or _beneath(routes, path)
    if methods is None:
        raise unknown_route(path)
    endpoint = methods.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        raise MethodNotAllowed(method, path, ", ".join((*methods, "HEAD") if "GET" in methods else methods))
    return endpoint


PREFIXES: Mapping[str, Dialect] = {
    "/api": "ollama",
    "/anthropic": "anthropic",
    "/v1/anthropic": "anthropic",
    "/v1/messages": "anthropic",
    "/v1/complete": "anthropic",
    "/engines": "docker",
    "/models": "docker",
}


def dialect_of(path: str) -> Dialect:
    """Whose path this seems to be, where it is nobody's."""
    found = (dialect for prefix, dialect in PREFIXES.items() if path == prefix or path.startswith(f"{prefix}/"))
    return next(found, "openai")


def _beneath(routes: Routes, path: str) -> Mapping[str, Endpoint] | None:
    start = path.find("/", 1)
    while start > 0:
        if start + 1 < len(path) and (methods := routes.get(path[: start + 1] + "*")):
            return methods
        start = path.find("/", start + 1)
    return None
