"""The arguments of llama-server and vLLM: their names, and whether a value follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from appliance.engines import vllm_arguments
from appliance.migrate.rules import shipped_migrations, vocabulary

_SHORT_NEGATIVES = frozenset({"-nkvo", "-nr", "-nocb", "-no-kvu", "-ndio", "-no-ag"})


@dataclass(frozen=True, slots=True)
class Flag:
    """`word` is the name that rules use; `value` is what a switch stands for."""

    word: str
    operands: int | None
    """How many values follow: 0 for a switch, None for one that may."""
    value: bool = True
    items: bool = False
    """vLLM: every word up to the next flag."""


@cache
def llama_server_flags() -> Mapping[str, Flag]:
    """Every spelling, from lists/llama-server-flags.txt."""
    flags: dict[str, Flag] = {}
    for names, operand, _ in _llama_server_lines():
        word = next(name for name in names if name.startswith("--"))
        count = len(operand.split()) if not operand.startswith("[") else None
        for name in names:
            negative = name != word and (name.startswith("--no-") or name in _SHORT_NEGATIVES)
            flags[name] = Flag(word, count, value=not negative)
    return flags


@cache
def llama_server_variables() -> Mapping[str, str]:
    """LLAMA_ARG_… → the flag's word."""
    return {
        variable: next(name for name in names if name.startswith("--"))
        for names, _, variable in _llama_server_lines()
        if variable
    }


def _llama_server_lines() -> Iterator[tuple[list[str], str, str]]:
    text = (shipped_migrations() / "lists" / "llama-server-flags.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            names, operand, variable = (*(part.strip() for part in line.split("|")), "", "")[:3]
            yield names.split(), operand, variable


_VLLM_SHORT = {
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
    "-dcp": "decode_context_parallel_size",
    "-pcp": "prefill_context_parallel_size",
    "-q": "quantization",
    "-O": "optimization_level",
    "-ep": "enable_expert_parallel",
    "-cc": "compilation_config",
    "-ac": "attention_config",
    "-sc": "speculative_config",
    "-n": "nnodes",
    "-r": "node_rank",
    "-asc": "api_server_count",
    "-dpn": "data_parallel_rank",
    "-dpr": "data_parallel_start_rank",
    "-dpl": "data_parallel_size_local",
    "-dpa": "data_parallel_address",
    "-dpp": "data_parallel_rpc_port",
    "-dpb": "data_parallel_backend",
}


def vllm_flag(name: str) -> Flag | None:
    """A flag as vLLM's own parser takes it: dashes or underscores, `--no-…` for a switch; None where it has none."""
    if name in _VLLM_SHORT:
        return _vllm(_VLLM_SHORT[name])
    word = name.removeprefix("--").replace("-", "_")
    if word.startswith("no_") and (flag := _vllm(word.removeprefix("no_"))) and flag.operands == 0:
        return Flag(flag.word, 0, value=False)
    return _vllm(word)


def _vllm(word: str) -> Flag | None:
    argument = vllm_arguments.arguments().get(word)
    if argument is None:
        # An argument of an earlier version; what follows it says whether it takes a value.
        return Flag(word, None) if word in vocabulary("vllm-flags").rules else None
    if argument["type"] == "bool":
        return Flag(word, 0)
    if argument["type"] == "list":
        return Flag(word, None, items=not argument.get("repeat"))
    return Flag(word, None if argument.get("bare") else 1)


@dataclass(frozen=True, slots=True)
class Given:
    """A flag as it stands on a command line: its own spelling, the word that rules use, its value."""

    spelling: str
    word: str | None
    value: object


def looks_like_a_flag(token: str) -> bool:
    return bool(re.match(r"-{1,2}[A-Za-z]", token))


def split_name(token: str) -> tuple[str, str | None]:
    """`--name=value` apart; without `=` the value is what follows."""
    if not token.startswith("-"):
        return token, None
    name, equals, value = token.partition("=")
    return name, (value if equals else None)
