"""The lines that a provider says to Compose, and what it says of itself."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any, Literal

HOST = "host.docker.internal"
"""What Docker Desktop's containers call the machine they are on."""

Kind = Literal["info", "error", "setenv", "debug"]


def line(kind: Kind, message: str) -> str:
    """One message. Compose reads JSON values one after the other."""
    return json.dumps({"type": kind, "message": message}, ensure_ascii=False)


def variables(address: str, names: Sequence[str], *, host: str | None) -> dict[str, str]:
    """What dependent services get, each name prefixed by Compose with the service's own.

    `address` is where the gateway listens. A container reaches loopback, and every address, by the host's name only.
    """
    listens, _, port = address.rpartition(":")
    bare = ipaddress.ip_address(listens.strip("[]"))
    reached = host or (HOST if bare.is_loopback or bare.is_unspecified else listens)
    return {"URL": f"http://{reached}:{port}/v1", "MODEL": ",".join(names)}


def metadata() -> dict[str, Any]:
    """Compose passes on the options named here, and drops others."""
    return {
        "description": "Serve language models on this machine as model-runner.yaml says",
        "up": {
            "parameters": [
                _parameter("file", "The configuration", default="./model-runner.yaml"),
                _parameter("model", "A model it needs, by name or alias; may be a list. Default: all declared"),
                _parameter("host", "What containers call this machine", default=HOST),
            ]
        },
        "down": {"parameters": []},
    }


def _parameter(name: str, description: str, *, default: str = "") -> dict[str, Any]:
    values = {"name": name, "description": description, "required": False, "type": "string"}
    return values | ({"default": default} if default else {})
