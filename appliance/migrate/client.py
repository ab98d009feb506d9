"""What a client will notice, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.migrate.addresses import ON_THE_HOST, base_url
from appliance.migrate.draft import Draft, Model
from appliance.migrate.found import Consumer
from appliance.migrate.naming import client_name
from appliance.migrate.sizing import Size


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is another than before, or the same where clients would wonder."""

    what: str
    before: str
    after: str


def notices(draft: Draft, sizes: Sequence[Size], consumers: Sequence[Consumer], lost: Sequence[str]) -> list[Notice]:
    return [
        *_addresses(draft, consumers),
        *_names(draft),
        *(Notice("model name", "", sentence) for sentence in lost),
        *_access(draft),
        *_sizes(sizes),
        *_routes({model.origin for model in draft.models}),
    ]


_PORTS = {"vllm": 8000, "llama.cpp": 8080, "ollama": 11434}
"""What each listens on where nobody says."""


def _addresses(draft: Draft, consumers: Sequence[Consumer]) -> list[Notice]:
    before: list[str] = [*draft.addresses]
    origins = {model.origin for model in draft.models}
    if "model-runner" in origins and not before:
        before.append("http://localhost:12434/engines/v1")
    before += [f"http://…:{port}" for port in draft.ports if port != draft.port]
    if not before and draft.ports:
        before.append(f"http://…:{draft.ports[0]}/v1")
    if not before:
        before += [f"http://localhost:{_PORTS[origin]}/v1" for origin in sorted(origins) if origin in _PORTS]
    found = [Notice("base URL", " and ".join(dict.fromkeys(before)) or "-", base_url(draft))]
    if consumers or "model-runner" in origins:
        old = "http://model-runner.docker.internal/engines/v1/"
        found.append(Notice("base URL in containers", old, base_url(draft, host=ON_THE_HOST)))
    return found


def _names(draft: Draft) -> list[Notice]:
    found = []
    for model in draft.models:
        before = "any name" if model.origin == "llama.cpp" and not model.names else client_name(model)
        names = ", ".join((model.name, *model.names))
        found.append(Notice("model name", before, names))
    return found


def _access(draft: Draft) -> list[Notice]:
    if draft.keys:
        count = len(draft.keys)
        keys = "the same key" if count == 1 else f"the same {count} keys"
        return [Notice("API key", "as before", f"{keys}, as `Authorization: Bearer` or `x-api-key`")]
    if draft.was_open:
        after = "this machine only, until there is a key: `appliance key create NAME`, then `server.host: 0.0.0.0`"
        return [Notice("who can reach it", "other machines too, without a key", after)]
    return [Notice("API key", "none", "none, and only this machine can ask")]


def _sizes(sizes: Sequence[Size]) -> list[Notice]:
    found = []
    for size in sizes:
        name = size.model.name
        if size.asked and not size.problem:
            why = "the model can do no more" if size.own else "more does not fit"
            found.append(Notice(f"context of {name}", f"{size.asked:,} tokens", f"{size.context:,} tokens: {why}"))
        if size.model.sequences and size.model.sequences > size.sequences:
            after = f"{size.sequences}; further ones wait"
            found.append(Notice(f"requests at once of {name}", str(size.model.sequences), after))
        if size.model.origin == "model-runner" and not size.model.idle_unload and size.load == "startup":
            found.append(
                Notice(f"{name} when idle", "unloaded after 5 minutes", "stays loaded; `idle_unload` changes that")
            )
        elif size.load == "on_demand" and size.model.origin == "vllm":
            found.append(Notice(f"first request to {name}", "answered at once", "waits until the engine has started"))
    return found


_ROUTES = {
    "model-runner": (
        "POST /engines/_configure, /models/create",
        "the file is edited instead, and put in force on save",
    ),
    "vllm": ("/metrics, /tokenizer_info, /load", "the engine's own routes are not handed through"),
    "llama.cpp": ("/completion, /props, /slots, /lora-adapters", "the engine's own routes are not there; /v1/… is"),
    "ollama": ("/api/pull, /api/create", "models are named in the file, not made through the API"),
}


def _routes(origins: set[str]) -> list[Notice]:
    return [Notice("routes", *_ROUTES[origin]) for origin in sorted(origins) if origin in _ROUTES]


def commands(draft: Draft, *, file: str, compose: Sequence[str], guessed: Sequence[Model]) -> list[str]:
    """Lines to paste, in the order in which they make sense."""
    chosen = file if file == "model-runner.yaml" else shlex.quote(file)
    option = "" if file == "model-runner.yaml" else f" -f {chosen}"
    lines = [f"appliance validate{option}"]
    if guessed or draft.token_needed:
        lines.append(f"appliance pull{option}")
    lines.append(f"appliance up{option}")
    url = base_url(draft)
    key = ' -H "Authorization: Bearer $API_KEY"' if draft.keys else ""
    lines.append(f"curl{key} {url}models")
    if draft.models:
        model = next((each for each in draft.models if "runner" not in each.arguments), draft.models[0])
        if "runner" in model.arguments:
            body = f'{{"model": "{client_name(model)}", "input": "Hello"}}'
            lines.append(f"curl{key} {url}embeddings -d '{body}'")
        else:
            body = f'{{"model": "{client_name(model)}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
            lines.append(f"curl{key} {url}chat/completions -d '{body}'")
    lines += [f"docker compose -f {shlex.quote(name)} up" for name in compose]
    return lines
