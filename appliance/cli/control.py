"""Talk to the running appliance over its unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

from appliance.errors import ApplianceError, Conflict
from appliance.state import StateDirectory

TIMEOUT = 10.0


class NotRunning(Conflict):
    """No appliance runs on this state directory."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def ask(state: StateDirectory, method: str, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One request to the admin API. Raises NotRunning where nobody answers."""
    connection = _UnixConnection(str(state.control_socket))
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(
            f"no appliance is running on `{state.root}`", hint="start one with `appliance up -d`"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise ApplianceError(f"the appliance does not answer on `{state.control_socket}`: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise _refusal(f"the appliance answered {response.status} to {method} {path}", body)
    answer: dict[str, Any] = json.loads(body)
    return answer


def _refusal(what: str, body: bytes) -> ApplianceError:
    try:
        error = json.loads(body)["error"]
        return ApplianceError(error["message"], hint=error["hint"])
    except (ValueError, KeyError, TypeError):
        return ApplianceError(f"{what}: {body.decode(errors='replace')}")
