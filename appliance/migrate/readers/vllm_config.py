"""vLLM's `--config` YAML: its arguments as keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.engines import vllm_arguments
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree
from appliance.migrate.readers.arguments import typed
from appliance.migrate.rules import vocabulary


def looks_like_it(data: Mapping[str, Any]) -> bool:
    known = [name for name in data if _word(name) in vllm_arguments.arguments()]
    return bool(known) and len(known) * 2 > len(data)


def read(source: Input, document: Tree, reading: Reading) -> None:
    model = reading.model("default", "vllm", source.base)
    for name, value in document.data.items():
        word = _word(name)
        argument = vllm_arguments.arguments().get(word)
        if argument and isinstance(value, str):
            value = typed(argument["type"], value)
        if (rule := vocabulary("vllm-flags").rule(word)) and rule.secret:
            reading.hide(value)
        reading.add("vllm-flags", word, value, key=name, place=document.place(name), model=model)


def _word(name: str) -> str:
    return str(name).lstrip("-").replace("-", "_")
