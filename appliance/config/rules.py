"""What has to hold between fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from appliance.config.models import Appliance
from appliance.config.problems import KeyPath, did_you_mean, one_of
from appliance.config.validation import Finding


def broken_rules(appliance: Appliance, backends: Collection[str] | None) -> Iterator[Finding]:
    """`backends` are the drivers there are; None leaves their names unchecked."""
    yield from _reachable_without_keys(appliance)
    yield from _keys_twice(appliance)
    yield from _names_twice(appliance)
    yield from _unknown_backends(appliance, backends)
    if appliance.metal.plugin == "upstream":
        message = "the releases of vllm-metal are on no package index, and no checksum of one could be verified"
        yield ("metal", "plugin"), message, _UPSTREAM
    if not appliance.models:
        yield (
            ("models",),
            "no model",
            "add one: `models:`, beneath it `smollm2:`, beneath that `source:`; or set MODEL_PATH",
        )


_UPSTREAM = (
    "`builtin` needs none; where upstream's plug-in is installed, name its server under `backends:` with `command:"
    " [PYTHON, -m, vllm.entrypoints.openai.api_server, --model, '{model}', --host, 127.0.0.1, --port, '{port}']`"
)


def _reachable_without_keys(appliance: Appliance) -> Iterator[Finding]:
    server = appliance.server
    if not server.loopback and not appliance.auth.keys:
        message = f"`{server.host}` is reachable from other machines and `auth.keys` is empty"
        yield ("server", "host"), message, "run `appliance key create NAME`, or use host 127.0.0.1"


def _keys_twice(appliance: Appliance) -> Iterator[Finding]:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for index, key in enumerate(appliance.auth.keys):
        path: KeyPath = ("auth", "keys", index)
        if (first := names.setdefault(key.name, index)) != index:
            yield (*path, "name"), f"`{key.name}` is already the name of key {first + 1}", "give each key its own name"
        if (first := hashes.setdefault(key.sha256, index)) != index:
            message = f"the same key as `{appliance.auth.keys[first].name}`"
            yield (*path, "sha256"), message, "`appliance key create NAME` makes a new one"


def _names_twice(appliance: Appliance) -> Iterator[Finding]:
    """A request names one model: by its name, an alias, or an adapter's name."""
    taken = {name: f"is the name of model `{name}`" for name in appliance.models}
    for name, model in appliance.models.items():
        aliases: list[tuple[KeyPath, str]] = [
            (("models", name, "aliases", index), alias) for index, alias in enumerate(model.aliases)
        ]
        adapters: list[tuple[KeyPath, str]] = [
            (("models", name, "adapters", index, "name"), adapter.name) for index, adapter in enumerate(model.adapters)
        ]
        for path, word in aliases + adapters:
            if word in taken:
                yield path, f"`{word}` already {taken[word]}", "a name leads to one model; remove one of them"
            else:
                kind = "an alias" if path[2] == "aliases" else "an adapter"
                taken[word] = f"is {kind} of model `{name}`"


def with_known_backends(appliance: Appliance, backends: Collection[str] | None) -> Appliance:
    """Without the models whose backend does not exist."""
    if backends is None:
        return appliance
    known = {"auto", *backends, *appliance.backends}
    models = {name: model for name, model in appliance.models.items() if (model.backend or appliance.backend) in known}
    return appliance.model_copy(update={"models": models})


def _unknown_backends(appliance: Appliance, backends: Collection[str] | None) -> Iterator[Finding]:
    if backends is None:
        return
    reserved = {"auto", *backends}
    known = sorted(reserved | set(appliance.backends))
    for name in appliance.backends:
        if name in reserved:
            yield ("backends", name), f"`{name}` is a backend of the appliance itself", "choose another name"
    named: list[tuple[KeyPath, str]] = [(("backend",), appliance.backend)]
    named += [(("models", name, "backend"), model.backend) for name, model in appliance.models.items() if model.backend]
    for path, backend in named:
        if backend not in known:
            hint = did_you_mean(backend, known) or "define it under `backends`"
            yield path, f"expected {one_of(known)}, got `{backend}`", hint
