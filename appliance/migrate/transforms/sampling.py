"""Defaults for sampling."""

from __future__ import annotations

from typing import Any

from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual, put
from appliance.migrate.words import integer, number

_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1)}


def sampling(setting: Setting) -> Result:
    name = setting.name
    value = number(setting.value)
    low, high = _RANGES[name]
    if value is None or not low <= value <= high or (name == "top_p" and value == 0):
        return manual(f"Not a {name} between {low} and {high}.")
    return put(setting, setting.models, "sampling", name, value)


def sampling_top_k(setting: Setting) -> Result:
    value = integer(setting.value)
    if value is None or value < -1:
        return manual("Not a number of tokens.")
    if value == 0:
        result = put(setting, setting.models, "sampling", "top_k", -1)
        return result if result.level else Result("mapped", "0 keeps all tokens, which is written -1 here.", value=-1)
    return put(setting, setting.models, "sampling", "top_k", value)


def max_tokens(setting: Setting) -> Result:
    value = integer(setting.value)
    if value is None:
        return manual("Not a number of tokens.")
    if value <= 0:
        return dropped("No limit but the context: that is the default.")
    return put(setting, setting.models, "sampling", "max_tokens", value)


def generation_default(setting: Setting) -> Result:
    """A default that the gateway has no key for, given to vLLM as the model's own generation config."""
    value = number(setting.value)
    if value is None or not 0 < value <= 10:
        return manual("Not a penalty above 0.")
    if value == 1:
        return dropped("1 is no penalty: that is the default.")
    for model in setting.models:
        model.arguments.setdefault("override_generation_config", {})[setting.name] = value
    return AS_THE_RULE_SAYS if setting.models else manual("No model that it could be set for was found.")


def generation_config(setting: Setting) -> Result:
    if not isinstance(setting.value, dict):
        return manual("Not a mapping.")
    known = {"temperature", "top_p", "top_k", "min_p"}
    rest: dict[str, Any] = {}
    for name, value in setting.value.items():
        low, high = _RANGES.get(name, (-1, float("inf")))
        fits = (found := number(value)) is not None and low <= found <= high and not (name == "top_p" and found == 0)
        if name in known and fits and (name != "top_k" or integer(value) is not None):
            put(setting, setting.models, "sampling", name, integer(value) if name == "top_k" else found)
        elif name == "max_new_tokens" and (found := integer(value)) is not None and found > 0:
            put(setting, setting.models, "sampling", "max_tokens", found)
        else:
            rest[name] = value
    for model in setting.models if rest else ():
        model.arguments["override_generation_config"] = rest
    return AS_THE_RULE_SAYS


def seed(setting: Setting) -> Result:
    value = integer(setting.value)
    if value is None:
        return manual("Not a number.")
    if value < 0:
        return dropped("Another seed each time: that is the default.")
    return put(setting, setting.models, "arguments", "seed", value)


def client_sampling(setting: Setting) -> Result:
    return dropped("0 is no penalty: that is the default.") if number(setting.value) == 0 else AS_THE_RULE_SAYS
