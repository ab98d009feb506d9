"""The gateway as it runs in the appliance (keys, limits, metrics, log, uvloop), before one engine that is always ready.

python -m benchmarks.gateway_process SOCKET PORT CLIENT_KEY ENGINE_KEY
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from typing import Any

import uvloop

from appliance.cli.log import configure
from appliance.config.models import Key, Limits
from appliance.gateway.app import create_app
from appliance.gateway.keys import digest, new_key
from appliance.gateway.server import bind, serving
from appliance.routing import Lease, Route, Routing
from benchmarks.streams import MODEL

ALIAS = "gpt-bench"


class OneEngine:
    def __init__(self, socket: str, client_key: str, engine_key: str) -> None:
        self._route = Route(MODEL, MODEL, engine_key, "benchmark", Lease(), socket=socket, places=10**6)
        others = (Key(name=f"other-{number}", sha256=new_key()[1]) for number in range(4))
        limits = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, concurrent=10**6)
        mine = Key(name="benchmark", sha256=digest(client_key.encode()), models=("ben*",), limits=limits)
        self._routing = Routing(routes={MODEL: self._route}, aliases={ALIAS: MODEL}, keys=(*others, mine))

    def routing(self) -> Routing:
        return self._routing

    async def changed(self, seen: Routing) -> Routing:
        await asyncio.Event().wait()
        return seen

    async def ready(self, _: str, *, within: float) -> Route:  # noqa: ARG002 - the Protocol's
        return self._route

    def status(self) -> Mapping[str, Any]:
        raise NotImplementedError("nobody reads /metrics here")


async def main(socket: str, port: str, client_key: str, engine_key: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = create_app(OneEngine(socket, client_key, engine_key), max_body=32 << 20, loopback=True, metrics=True)
    async with serving(app, [bind("127.0.0.1", int(port))], close_timeout=1):
        await stop.wait()


if __name__ == "__main__":
    configure("json")
    uvloop.run(main(*sys.argv[1:]))
