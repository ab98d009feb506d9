"""Ollama's API. Its verbs that change what is served are refused: the file says that."""

from __future__ import annotations

from appliance.gateway.ollama.embed import Embeddings
from appliance.gateway.ollama.generations import Generations
from appliance.gateway.ollama.models import Library
from appliance.gateway.ollama.refusals import refuse
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Endpoint, Routes


def routes(port: Port, proxy: Proxy, models: Models) -> Routes:
    generations, embeddings, library = Generations(proxy), Embeddings(proxy), Library(port, models)
    found: dict[tuple[str, str], Endpoint] = {
        ("POST", "/api/chat"): Endpoint(generations.chat, dialect="ollama"),
        ("POST", "/api/generate"): Endpoint(generations.generate, dialect="ollama"),
        ("POST", "/api/embed"): Endpoint(embeddings.embed, dialect="ollama"),
        ("POST", "/api/embeddings"): Endpoint(embeddings.embed_one, dialect="ollama"),
        ("GET", "/api/tags"): Endpoint(library.tags, dialect="ollama"),
        ("GET", "/api/ps"): Endpoint(library.running, dialect="ollama"),
        ("POST", "/api/show"): Endpoint(library.show, dialect="ollama"),
        # Clients ask for these before they have a key, to learn that somebody is there.
        ("GET", "/api/version"): Endpoint(library.version, scope=None, dialect="ollama"),
        ("GET", "/"): Endpoint(library.hello, scope=None, dialect="ollama"),
    }
    refused = [("POST", f"/api/{verb}") for verb in ("pull", "push", "create", "copy")]
    refused += [("DELETE", "/api/delete"), ("POST", "/api/blobs/*"), ("GET", "/api/blobs/*")]
    found |= {which: Endpoint(refuse, dialect="ollama") for which in refused}
    table: dict[str, dict[str, Endpoint]] = {}
    for (method, path), endpoint in found.items():
        table.setdefault(path, {})[method] = endpoint
    return table
