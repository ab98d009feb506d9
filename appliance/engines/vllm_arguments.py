"""vLLM's arguments: what may stand under `engine:`, and how a value becomes part of the command."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from appliance.engines.driver import ArgumentProblem

_FILE = Path(__file__).with_name("arguments") / "vllm-0.32.json"
_SUFFIXED = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?")
_TYPE_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}

# Each with where the same thing is set here.
_GATEWAY = "clients reach the gateway alone: set `server.host` and `server.port`"
_TLS = "engines listen on a private socket; TLS ends in front of the gateway"
_BROWSERS = "the gateway answers browsers, not the engine"
OWNED: Mapping[str, str] = {
    "host": _GATEWAY,
    "port": _GATEWAY,
    "uds": _GATEWAY,
    "grpc": _GATEWAY,
    "grpc_port": _GATEWAY,
    "root_path": _GATEWAY,
    "headless": _GATEWAY,
    "api_key": "set `auth.keys`; each engine gets a random key of its own",
    "model": "set `source` of the model",
    "revision": "write it into the model's `source`: `hf:org/name@revision`",
    "hf_token": "set `huggingface.token`",
    "served_model_name": "the model's name in this file, and its `aliases`",
    "config": "write its keys here, in snake_case",
    "lora_modules": "set `adapters` of the model",
    "allowed_media_domains": "set `server.media_domains`, which the gateway enforces too",
    "allowed_local_media_path": "clients send files of theirs as `data:` URLs; none of this machine's are read",
    "shutdown_timeout": "set `rollout.drain_timeout` of the model",
    "middleware": "the gateway stands in front of the engine; it takes no foreign code",
    **dict.fromkeys(
        ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh"), _TLS
    ),
    **dict.fromkeys(("allowed_origins", "allowed_methods", "allowed_headers", "allow_credentials"), _BROWSERS),
    "disable_uvicorn_access_log": "the gateway logs requests",
    "disable_access_log_for_endpoints": "the gateway logs requests",
    "disable_fastapi_docs": "always on: the engine's own pages are not reachable",
}


@cache
def arguments() -> Mapping[str, Mapping[str, Any]]:
    """By name in snake_case; the keys of each entry are described in tools/extract_vllm_arguments.py."""
    known: dict[str, dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))["arguments"]
    return known


def check(given: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
    for name, value in given.items():
        if name in OWNED:
            yield ArgumentProblem(name, "set by the appliance", OWNED[name])
        elif (argument := arguments().get(name)) is None:
            yield _unknown(name)
        elif value is not None and (expected := _mismatch(argument, value)):
            yield ArgumentProblem(name, f"expected {expected}, got `{_shown(value)}`", argument.get("help"))


def flags(name: str, value: Any) -> Iterator[str]:
    """The command's words for one checked argument. null leaves it to vLLM's own default."""
    argument = arguments()[name]
    flag = argument["flag"]
    if value is None:
        return
    if argument["type"] == "bool":
        word = flag if value else argument.get("negative")
        if word:
            yield word
    elif argument["type"] == "list":
        items = [_word(argument["items"], item) for item in _items(value)]
        yield from (word for item in items for word in (flag, item)) if argument.get("repeat") else (flag, *items)
    elif value is True and argument.get("bare"):
        yield flag
    else:
        # One word, so that a value that begins with a dash stays a value.
        yield f"{flag}={_word(argument['type'], value)}"


def _unknown(name: str) -> ArgumentProblem:
    snake = name.lstrip("-").replace("-", "_")
    close = [snake] if snake in arguments() else difflib.get_close_matches(snake, arguments(), n=1)
    hint = f"did you mean `{close[0]}`?" if close else "`vllm serve --help=all` lists them; write them in snake_case"
    return ArgumentProblem(name, "vLLM has no such argument", hint)


def _mismatch(argument: Mapping[str, Any], value: Any) -> str | None:
    """What was expected instead of this value, or None where it fits."""
    if value in argument.get("also", ()) or (value is True and argument.get("bare")):
        return None
    if argument["type"] == "list":
        choices, items = argument.get("choices"), argument["items"]
        fits = all(_fits(items, item) and (not choices or item in choices) for item in _items(value))
        return None if fits and not isinstance(value, Mapping) else _described(argument, f"a list of {items} values")
    if argument.get("suffix") and isinstance(value, str) and _SUFFIXED.fullmatch(value):
        return None
    if choices := argument.get("choices"):
        return None if value in choices else _one_of(choices)
    if _fits(argument["type"], value):
        return None
    return _described(argument, _TYPE_NAMES.get(argument["type"], argument["type"]))


def _described(argument: Mapping[str, Any], text: str) -> str:
    if argument["type"] == "list" and argument.get("choices"):
        text += f", each {_one_of(argument['choices'])}"
    return " or ".join((text, *(f"`{word}`" for word in argument.get("also", ()))))


def _one_of(choices: list[Any]) -> str:
    return "one of " + ", ".join(f"`{choice}`" for choice in choices)


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "str":
            return isinstance(value, str)
    return True  # json: any value is one


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _word(kind: str, value: Any) -> str:
    if kind == "json" and not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)


def count(value: int | str) -> int:
    """A number as vLLM's own parser reads it: `k`, `m`, `g`, `t` are decimal, `K`, `M`, `G`, `T` binary."""
    if isinstance(value, int):
        return value
    number, suffix = value[:-1], value[-1]
    if suffix in "kmgt":
        return int(float(number) * 1000 ** ("kmgt".index(suffix) + 1))
    if suffix in "KMGT":
        return int(float(number) * 1024 ** ("KMGT".index(suffix) + 1))
    return int(value)
