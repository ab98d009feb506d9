"""Where clients find an engine today, and where they find the appliance."""

from __future__ import annotations

import re
from collections.abc import Collection

from appliance.migrate.draft import Draft

ON_THE_HOST = "host.docker.internal"
"""The host as containers call it: on a Mac they have no Metal, so the appliance runs beside them."""

_URL = re.compile(r"(https?)://([\w.-]+)(?::(\d{1,5}))?(/[\w./%-]*)?")
_RUNNER_HOSTS = frozenset({"model-runner.docker.internal", "docker-model-runner"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "172.17.0.1", ON_THE_HOST, "gateway.docker.internal"})
_RUNNER_PORTS = frozenset({"12434", "12435", "31245"})
_ENGINES = re.compile(r"/engines(?:/(?:llama\.cpp|vllm|mlx|sglang|diffusers))?(?=/|$)")


def is_engine_address(text: str, services: Collection[str]) -> bool:
    """Whether a value is a URL that leads to Model Runner, or to a Compose service that the appliance replaces."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        return False
    host, port, path = match[2], match[3], match[4] or ""
    if host == ON_THE_HOST and not path.startswith("/engines"):
        return False  # the appliance itself, as an earlier migration wrote it
    return host in _RUNNER_HOSTS or host in services or (host in _LOCAL_HOSTS and port in _RUNNER_PORTS)


def replaced(text: str, port: int, *, host: str = ON_THE_HOST) -> str:
    """The same URL at the appliance. Model Runner's `/engines/v1` is `/v1`; a path of no API becomes `/`."""
    match = _URL.fullmatch(text.strip())
    path = (match[4] or "") if match else ""
    return f"http://{host}:{port}{_ENGINES.sub('', path)}"


def base_url(draft: Draft, *, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{draft.port or 8000}/v1/"
