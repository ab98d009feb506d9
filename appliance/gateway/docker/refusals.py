"""What its clients would change by a request, and the key of the file that says it here."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import body as bodies
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.port import Port

KEYS: Mapping[str, str] = {
    "/engines/_configure": "models.{model}.engine",
    "/engines/unload": "models.{model}.idle_unload",
    "/engines/_unload": "models.{model}.idle_unload",
    "/engines/install-backend": "models.{model}.backend",
    "/engines/uninstall-backend": "models.{model}.backend",
    "/models/create": "models",
    "/models/load": "models",
}
MODEL = "models.{model}"
"""For a request about one model: its deletion, a tag, a push."""

LIMIT = 64 * 1024
NOBODY = "NAME"
"""Stands for a model that the request does not name, or names by a name that is none here."""


class Refusals:
    def __init__(self, port: Port) -> None:
        self._port = port

    async def refuse(self, call: Call, receive: Receive) -> None:
        key = KEYS.get(call.route, "models" if call.route == "/models/purge" else MODEL)
        if "{model}" in key:
            key = key.format(model=self._declared(call, await self._named(call, receive)))
        raise RequestError(
            f"{call.method} {call.path}: nothing is configured by requests here; edit `{key}` in model-runner.yaml, "
            "which the appliance follows as soon as it is saved",
            status=409,
            code="declared_in_file",
        )

    async def _named(self, call: Call, receive: Receive) -> str:
        """The model that the request is about."""
        if call.route.startswith("/models/"):
            name: str = call.route.removeprefix("/models/")
            return name if call.method == "DELETE" else name.rpartition("/")[0]  # …/tag, …/push, …/repackage
        try:
            found = bodies.parse_object(await bodies.read(receive, call.headers, LIMIT)).get("model")
        except RequestError:
            return NOBODY
        return found if isinstance(found, str) else NOBODY

    def _declared(self, call: Call, name: str) -> str:
        model = self._port.routing().resolve(name)
        return model if model is not None and allows(call.key, model) else NOBODY
