"""Docker Model Runner's own answers: `GET /engines/_configure`, `/models` and `/engines/ps`, saved or asked for."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import ApplianceError
from appliance.migrate.draft import Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree, checked, tree
from appliance.migrate.readers.arguments import Engine, read_flags
from appliance.migrate.words import listed, words_of

_LARGEST = 1024 * 1024
_TIMEOUT = 10.0
_ROUTES = ("/engines/_configure", "/models", "/engines/ps")


def read_live(url: str, base: Path, reading: Reading) -> None:
    """Ask a runner that is there. Raises ApplianceError where none answers, or what answers is not one."""
    scheme, host, port = _address(url)
    answers = {route: _get(scheme, host, port, route) for route in _ROUTES}
    name = f"{scheme}://{host}:{port}"
    configured = answers["/engines/_configure"]
    models = [entry for entry in answers["/models"] if isinstance(entry, dict)]
    known = _configurations(configured, base, reading, name)
    for index, entry in enumerate(models):
        _listed(entry, f"/models[{index}].", known, base, reading, name)
    for index, entry in enumerate(answers["/engines/ps"]):
        _running(entry, f"/engines/ps[{index}].", reading, name)


def _address(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port or 12434
    except ValueError:
        scheme, host, port = "", None, 0
    if scheme not in ("http", "https") or not host or not host.isascii() or not host.isprintable() or " " in host:
        raise ApplianceError(f"`{url}` is no address of a runner", hint="for example `http://localhost:12434`")
    return scheme, host, port


def _get(scheme: str, host: str, port: int, route: str) -> list[Any]:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT)
    where = f"{scheme}://{host}:{port}{route}"
    try:
        connection.request("GET", route, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(_LARGEST + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ApplianceError(
            f"{where}: {reason}", hint="is Model Runner up? `docker model status` says where"
        ) from None
    finally:
        connection.close()
    if response.status == 404 and route == "/engines/ps":
        return []  # runners before it
    if response.status != 200 or len(body) > _LARGEST:
        raise ApplianceError(f"{where} answered {response.status}, {len(body):,} bytes", hint="is this a Model Runner?")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ApplianceError(f"{where} did not answer with text") from None
    document = tree(checked(Input(where, text or "[]", Path())))
    items = document.data.get("items", [])
    return items if isinstance(items, list) else []


def looks_saved(document: Tree) -> bool:
    """Whether a JSON file is one of these answers."""
    items = document.data.get("items")
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and (
        {"Model", "Mode"} <= first.keys()
        or {"backend_name", "model_name"} <= first.keys()
        or {"tags", "config"} <= first.keys()
    )


def read_saved(source: Input, document: Tree, reading: Reading) -> None:
    items = document.data["items"]
    first = items[0]
    if "Model" in first:
        _configurations(items, source.base, reading, source.name)
    elif "backend_name" in first:
        for index, entry in enumerate(items):
            _running(entry, f"[{index}].", reading, source.name)
    else:
        for index, entry in enumerate(items):
            if isinstance(entry, dict):
                _listed(entry, f"[{index}].", {}, source.base, reading, source.name)


def _configurations(entries: list[Any], base: Path, reading: Reading, place: str) -> dict[str, Model]:
    """One model for each that is configured; completion and embedding settings of the same one are kept apart."""
    known: dict[str, Model] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("Model"), str):
            why = "Not of the shape of a configuration."
            reading.add(
                "model-runner-configuration",
                "model",
                None,
                key=f"_configure[{index}]",
                place=place,
                level="manual",
                why=why,
            )
            continue
        config: Any = entry.get("Config") if isinstance(entry.get("Config"), dict) else {}
        flat = {"model": entry["Model"], "mode": entry.get("Mode"), **config}
        key = f"_configure[{index}]."
        model = read_configuration(flat, base, reading, key=key, place=place, backend=entry.get("Backend"))
        known[entry["Model"]] = model
        if isinstance(identity := entry.get("ModelID"), str):
            known[identity] = model
            reading.add("model-runner-configuration", "id", identity, key=f"{key}ModelID", place=place, model=model)
        if entry.get("Backend"):
            reading.add(
                "model-runner-configuration", "backend", entry["Backend"], key=f"{key}Backend", place=place, model=model
            )
    return known


def read_configuration(
    entry: Mapping[str, Any], base: Path, reading: Reading, *, key: str, place: str, backend: str | None = None
) -> Model:
    """What `POST /engines/_configure` takes, with its mixture of dashes and underscores."""
    reference = str(entry.get("model") or "")
    model = reading.model(reference or "default", "model-runner", base)
    engine: Engine | None = "vllm" if backend == "vllm" else None
    runtime = entry.get("runtime-flags") or entry.get("raw-runtime-flags")
    for name, value in entry.items():
        if value is None or value == "":
            continue
        label = f"{key}{name}"
        if name in ("runtime-flags", "raw-runtime-flags") and (words := words_of(value)):
            if value is not runtime:
                why = "Used only where `runtime-flags` is empty."
                reading.add("model-runner-configuration", name, None, key=label, place=place, level="dropped", why=why)
                continue
            read_flags(words, engine, reading, model, key=label, place=place)
        elif isinstance(value, dict):
            for inner, setting in value.items():
                word = f"{name}.{inner}"
                reading.add("model-runner-configuration", word, setting, key=f"{key}{word}", place=place, model=model)
        else:
            reading.add("model-runner-configuration", name, value, key=label, place=place, model=model)
    return model


def _listed(entry: dict[str, Any], key: str, known: dict[str, Model], base: Path, reading: Reading, place: str) -> None:
    tags = [tag for tag in listed(entry.get("tags")) if isinstance(tag, str)]
    identity = entry.get("id")
    same = next((known[name] for name in (identity, *tags, *map(_bare, tags)) if name in known), None)
    if same is None:
        if not tags:
            why = "A model without a tag; nothing says what it is."
            reading.add(
                "model-runner-configuration", "id", identity, key=f"{key}id", place=place, level="manual", why=why
            )
            return
        same = reading.model(tags[0], "model-runner", base)
        reading.add("model-runner-configuration", "model", tags[0], key=f"{key}tags[0]", place=place, model=same)
        tags = tags[1:]
    for index, tag in enumerate(tags):
        reading.add("model-runner-configuration", "tags", tag, key=f"{key}tags {tag or index}", place=place, model=same)
    for name, value in entry.items():
        if name == "config" and isinstance(value, dict):
            for inner, fact in value.items():
                if fact not in (None, {}, ""):
                    word = f"config.{inner}"
                    reading.add("model-runner-configuration", word, fact, key=f"{key}{word}", place=place, model=same)
        elif name != "tags":
            reading.add("model-runner-configuration", name, None, key=f"{key}{name}", place=place, model=same)


def _bare(tag: str) -> str:
    return tag.removeprefix("docker.io/").removesuffix(":latest")


def _running(entry: Any, key: str, reading: Reading, place: str) -> None:
    why = "A fact about what runs now, not a setting."
    for name in entry if isinstance(entry, dict) else ():
        reading.add(
            "model-runner-configuration", "in_use", None, key=f"{key}{name}", place=place, level="dropped", why=why
        )
