"""Ollama's `options`, `keep_alive`, `format` and `think`: each is given its meaning, or refused by its name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from appliance.errors import RequestError
from appliance.gateway.fields import checked, invalid, optional
from appliance.routing import Route

Json = dict[str, Any]

SAMPLING: Mapping[str, tuple[str, type]] = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", int),
    "min_p": ("min_p", float),
    "seed": ("seed", int),
    "presence_penalty": ("presence_penalty", float),
    "frequency_penalty": ("frequency_penalty", float),
    "repeat_penalty": ("repetition_penalty", float),
}
"""Options that engines have too, with their name there and the kind of their value."""

READ_HERE = frozenset(("stop", "num_predict", "num_ctx", "repeat_last_n", "mirostat_tau", "mirostat_eta"))

NEUTRAL: Mapping[str, tuple[Any, str]] = {
    "mirostat": (0, "the engine samples without Mirostat"),
    "tfs_z": (1, "the engine has no tail free sampling; `min_p` does much the same"),
    "typical_p": (1, "the engine has no typical sampling"),
    "penalize_newline": (True, "the engine treats line breaks like other text"),
    "num_keep": (0, "a context that is full ends the answer; nothing is shifted out of it"),
    "num_gpu": (-1, "what an engine runs on is said under `models:` in model-runner.yaml"),
    "main_gpu": (0, "what an engine runs on is said under `models:` in model-runner.yaml"),
    "num_thread": (0, "what an engine runs on is said under `models:` in model-runner.yaml"),
    "num_batch": (512, "set `engine` of the model in model-runner.yaml: the engine batches requests, not tokens"),
    "numa": (False, "set `env` of the model in model-runner.yaml"),
    "low_vram": (False, "memory is planned by `memory.budget` in model-runner.yaml"),
    "f16_kv": (True, "set `engine` of the model in model-runner.yaml (`kv_cache_dtype`)"),
    "logits_all": (False, "ask for `logprobs`"),
    "vocab_only": (False, "a model is always loaded whole"),
    "use_mmap": (True, "how weights are loaded is the engine's own business"),
    "use_mlock": (False, "how weights are loaded is the engine's own business"),
    "embedding_only": (False, "ask /api/embed of a model that embeds"),
}
"""Options with no counterpart: the value that asks for nothing, which is taken, and why every other is refused."""


def sampling(options: Mapping[str, Any]) -> Json:
    """The fields of an engine's request that these options are. Raises RequestError."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in NEUTRAL and value != NEUTRAL[name][0]:
            neutral, reason = NEUTRAL[name]
            raise invalid(f"options.{name}", f"{reason}; leave it out, or say `{json.dumps(neutral)}`")
        if name not in NEUTRAL and name not in SAMPLING and name not in READ_HERE:
            raise invalid(f"options.{name}", "there is no such option")
    found: Json = {
        name: checked(given[option], kind, f"options.{option}")
        for option, (name, kind) in SAMPLING.items()
        if option in given
    }
    found |= _limit(given) | _stop(given)
    return _repetition(given, found)


def _limit(given: Json) -> Json:
    limit = optional(given, "num_predict", int, "options.")
    if limit is None:
        return {}
    if limit in {-1, -2}:  # until the model stops, or the context is full
        return {"max_tokens": None}
    if limit < 1:
        raise invalid("options.num_predict", "must be at least 1, or -1 for no limit")
    return {"max_tokens": limit}


def _stop(given: Json) -> Json:
    stop = given.get("stop")
    if stop is None:
        return {}
    stops = [stop] if isinstance(stop, str) else checked(stop, list, "options.stop")
    return {"stop": [checked(each, str, "options.stop") for each in stops]} if stops else {}


def _repetition(given: Json, found: Json) -> Json:
    """How far a penalty looks back matters only where there is one. Engines look at everything."""
    last = optional(given, "repeat_last_n", int, "options.")
    if last is None or last == -1 or found.get("repetition_penalty", 1) == 1:
        return found
    if last == 0:
        return {name: value for name, value in found.items() if name != "repetition_penalty"}
    raise invalid("options.repeat_last_n", "the engine's repetition penalty looks at the whole text; say `-1`")


def check_context(options: Mapping[str, Any], route: Route) -> None:
    """Raises RequestError where this engine was not started with so long a context."""
    asked = optional(options, "num_ctx", int, "options.")
    if asked is None or (route.context is not None and asked <= route.context):
        return
    has = f"has a context of {route.context} tokens" if route.context else "does not say how long its context is"
    raise invalid(
        "options.num_ctx",
        f"the engine of model `{route.model}` {has}; `models.{route.model}.engine.max_model_len` in "
        "model-runner.yaml sets it",
    )


ENDLESS = 2**63
"""Seconds that no duration of Ollama's can hold, nor a float every integer beyond."""
_UNITS: Mapping[str, float] = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")


def seconds(keep_alive: object) -> float:
    """A number of seconds, or a duration as Go writes it (`1h30m`); negative is for ever. Raises RequestError."""
    if isinstance(keep_alive, int | float) and not isinstance(keep_alive, bool):
        return math.inf if keep_alive < 0 or keep_alive > ENDLESS else float(keep_alive)
    text = checked(keep_alive, str, "keep_alive")
    if re.fullmatch(r"[+-]?\d+", text):
        return seconds(float(text))  # of any number of digits
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise invalid("keep_alive", f"`{text}` is no duration; say seconds, or for example `10m`")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(whole[2]))
    return math.inf if whole[1] == "-" else total


def check_keep_alive(keep_alive: object, route: Route) -> None:
    """How long a model stays is the file's to say: a wish that this fulfils is taken, another refused."""
    if keep_alive is None:
        return
    asked, key = seconds(keep_alive), f"`models.{route.model}.idle_unload` in model-runner.yaml"
    if asked == 0:
        raise invalid("keep_alive", f"requests do not unload a model; {key} says when that happens")
    if route.idle_unload is not None and asked > route.idle_unload:
        raise invalid(
            "keep_alive", f"the model is unloaded after {route.idle_unload:g} s without a request, as {key} says"
        )


def response_format(given: object) -> Json:
    """`format` as OpenAI's `response_format`. Raises RequestError."""
    if given in (None, ""):
        return {}
    if given == "json":
        return {"response_format": {"type": "json_object"}}
    if not isinstance(given, dict):
        raise invalid("format", "must be `json` or a JSON schema")
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": given}}}


def thinking(given: object) -> Json:
    """`think` as what chat templates and vLLM understand. Raises RequestError."""
    if given is None:
        return {}
    if isinstance(given, bool):
        return {"chat_template_kwargs": {"enable_thinking": given, "thinking": given}}
    if given in ("low", "medium", "high"):
        return {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}, "reasoning_effort": given}
    raise invalid("think", "must be true, false, `low`, `medium` or `high`")


def unsupported(body: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raises RequestError for the first of these fields that asks for something."""
    for name, reason in names.items():
        if body.get(name):
            raise RequestError(f"{name}: {reason}", status=400, param=name, code="unsupported_value")
