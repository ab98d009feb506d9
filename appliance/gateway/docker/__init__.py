"""Docker Model Runner's API: its paths lead to what is served here anyway, and what it manages is told, not changed."""

from __future__ import annotations

from collections.abc import Callable

from appliance.gateway.docker.engines import Engines
from appliance.gateway.docker.paths import Beneath
from appliance.gateway.docker.refusals import KEYS, Refusals
from appliance.gateway.docker.store import Disk, Store
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Endpoint, Routes


def routes(port: Port, proxy: Proxy, models: Models, served: Routes, disk: Callable[[], Disk] | None) -> Routes:
    """`served` are the routes that its own lead to. `disk` measures what is on disk, which takes a while."""
    refusals = Refusals(port)
    refuse = Endpoint(refusals.refuse, dialect="docker")
    engines, store = Engines(port, models), Store(port, models)
    beneath = Endpoint(Beneath(port, proxy, served, refusals).answer)
    found: dict[str, dict[str, Endpoint]] = {path: {"POST": refuse} for path in KEYS}
    found["/models/purge"] = {"DELETE": refuse}
    found["/engines/_configure"]["GET"] = Endpoint(engines.configurations, dialect="docker")
    if disk is not None:
        found["/engines/df"] = {"GET": Endpoint(store.usage(disk), dialect="docker")}
    return {
        **found,
        "/engines/ps": {"GET": Endpoint(engines.running, dialect="docker")},
        "/engines/status": {"GET": Endpoint(engines.status, dialect="docker")},
        "/engines/*": {"GET": beneath, "POST": beneath, "DELETE": beneath},
        "/responses": served["/v1/responses"],
        "/models": {"GET": Endpoint(store.list, dialect="docker")},
        "/models/*": {"GET": Endpoint(store.retrieve, dialect="docker"), "POST": refuse, "DELETE": refuse},
    }
