"""How much at once: context, sequences, memory. What is asked for here is sized for the target later."""

from __future__ import annotations

import re

from appliance.engines.vllm_arguments import count
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual, put
from appliance.migrate.words import integer, number, truth

_SUFFIXED = re.compile(r"\d+(?:\.\d+)?[kKmMgG]")


def context(setting: Setting) -> Result:
    value = setting.value
    if isinstance(value, str) and _SUFFIXED.fullmatch(value):
        value = count(value)
    tokens = integer(value)
    if value == "auto" or (tokens is not None and tokens <= 0):
        return dropped("The model's own length, as far as memory allows: that is the default.")
    if tokens is None or tokens > 100_000_000:
        return manual("Not a number of tokens.")
    models = setting.models
    if not models:
        return manual("No model that it could be set for was found.")
    shared = 0
    for model in models:
        divided = 1 if model.unified else model.slots
        own = tokens // divided if setting.found.word != "--kv-unified-per-slot" else tokens
        if model.context is None or (setting.found.model is not None and setting.found.word != "config.context_size"):
            model.context = max(own, 1)
        shared = max(shared, divided)
    if shared > 1 and setting.found.word != "--kv-unified-per-slot":
        why = f"llama-server divides its context among {shared} slots; this is what one request had."
        return Result("mapped", why, value=tokens // shared)
    return AS_THE_RULE_SAYS


def sequences(setting: Setting) -> Result:
    found = integer(setting.value)
    if found is None:
        return manual("Not a number.")
    if found <= 0:
        return dropped("As many as fit: that is the default.")
    if not setting.models:
        return manual("No model that it could be set for was found.")
    for model in setting.models:
        if model.sequences is None or setting.found.model is not None:
            model.sequences = found
            model.slots = found if setting.found.word == "--parallel" else 1
    return AS_THE_RULE_SAYS


def unified(setting: Setting) -> Result:
    if truth(setting.value) is False:
        return dropped("Requests share one cache with vLLM; each may use the whole context.")
    for model in setting.models:
        model.unified = True
    return AS_THE_RULE_SAYS


def batched_tokens(setting: Setting) -> Result:
    found = integer(setting.value)
    if found is None or found <= 0:
        return manual("Not a number of tokens.")
    return put(setting, setting.models, "arguments", "max_num_batched_tokens", found)


def memory_share(setting: Setting) -> Result:
    share = number(setting.value)
    if share is None or not 0 < share <= 1:
        return manual("Not a share between 0 and 1.")
    return AS_THE_RULE_SAYS


def container_memory(setting: Setting) -> Result:  # noqa: ARG001 - the signature of a transform
    return AS_THE_RULE_SAYS


def cache_type(setting: Setting) -> Result:
    value = str(setting.value).lower()
    if value in {"auto", "f16", "bf16", "float16", "bfloat16"}:
        return dropped("Keys and values in two bytes each: that is the default.")
    return dropped(
        f"The Metal plug-in keeps keys and values in the model's own type, which takes more memory than {value}."
    )


def prefix_caching(setting: Setting) -> Result:
    return put(setting, setting.models, "arguments", "enable_prefix_caching", truth(setting.value) is not False)
