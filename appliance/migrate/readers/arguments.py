"""The command lines of engines: `vllm serve …`, `python -m vllm…`, `llama-server …`, and flags alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from appliance.engines import vllm_arguments
from appliance.migrate.draft import Model
from appliance.migrate.flags import Flag, Given, llama_server_flags, looks_like_a_flag, split_name, vllm_flag
from appliance.migrate.found import Reading
from appliance.migrate.rules import vocabulary
from appliance.migrate.words import integer, number, truth

Engine = Literal["vllm", "llama.cpp", "ollama"]

_VOCABULARIES = {"vllm": "vllm-flags", "llama.cpp": "llama-server-flags"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command line taken apart: the engine, the words of its program, its flags in order."""

    engine: Engine
    program: tuple[str, ...]
    rest: tuple[str, ...]


def recognise(argv: Sequence[str]) -> Command | None:
    """The engine that a command line starts, also behind `env`, `sudo`, `exec`, `nohup` and variables."""
    words = list(argv)
    for start, word in enumerate(words):
        name = PurePosixPath(word).name
        if name == "vllm" and words[start + 1 : start + 2] == ["serve"]:
            return Command("vllm", tuple(words[: start + 2]), tuple(words[start + 2 :]))
        if re.fullmatch(r"python[\d.]*", name) and words[start + 1 : start + 2] == ["-m"]:
            module = words[start + 2] if len(words) > start + 2 else ""
            if module.startswith("vllm.entrypoints"):
                return Command("vllm", tuple(words[: start + 3]), tuple(words[start + 3 :]))
            return None
        if name in {"llama-server", "llama-server.exe", "llamafile-server"}:
            return Command("llama.cpp", tuple(words[: start + 1]), tuple(words[start + 1 :]))
        if name == "ollama" and words[start + 1 : start + 2] in (["serve"], ["run"]):
            return Command("ollama", tuple(words[: start + 2]), tuple(words[start + 2 :]))
        if not (name in _WRAPPERS or "=" in word or (start and looks_like_a_flag(word)) or word.isdigit()):
            return None
    return None


_WRAPPERS = frozenset(
    {"env", "sudo", "exec", "nohup", "nice", "time", "stdbuf", "numactl", "taskset", "screen", "tini", "--"}
)


def read_flags(
    words: Sequence[str],
    engine: Engine | None,
    reading: Reading,
    model: Model | None,
    *,
    key: str,
    place: str,
    also: Sequence[Model] = (),
) -> None:
    """Every flag as a row `KEY FLAG`. Without an engine each flag is looked up in both engines' lists."""
    for given, used in take_apart(words, engine):
        name = _VOCABULARIES.get(used, "llama-server-flags")
        label = f"{key} {given.spelling}".strip()
        if given.word is None:
            value = given.value if given.value != "" else None
            why = None if looks_like_a_flag(given.spelling) else "A word that belongs to no argument."
            reading.add(name, given.spelling, value, key=label, place=place, model=model, level="manual", why=why)
            continue
        if vocabulary(name).rules[given.word].secret:
            reading.hide(given.value)
        reading.add(name, given.word, given.value, key=label, place=place, model=model, also=also)


def take_apart(words: Sequence[str], engine: Engine | None) -> list[tuple[Given, Engine]]:
    found: list[tuple[Given, Engine]] = []
    tokens = list(words)
    while tokens:
        token = tokens.pop(0)
        if not looks_like_a_flag(token):
            found.append((Given(token, None, ""), engine or "llama.cpp"))
            continue
        name, value = split_name(token)
        flag, used = _flag(name, engine)
        if flag is None:
            value = value if value is not None else _operand(tokens)
            found.append((Given(name, None, value or ""), used))
        else:
            found.append((Given(name, flag.word, _value(flag, value, tokens, used)), used))
    return found


def _flag(name: str, engine: Engine | None) -> tuple[Flag | None, Engine]:
    if engine == "vllm":
        if flag := vllm_flag(name):
            return flag, "vllm"
        # vLLM takes parts of a structure as `--structure.part VALUE`, and levels as `-O3`.
        return (Flag("optimization_level", None), "vllm") if re.fullmatch(r"-O\d", name) else (None, "vllm")
    if flag := llama_server_flags().get(name):
        return flag, "llama.cpp"
    if engine is None and (flag := vllm_flag(name)):
        return flag, "vllm"
    return None, engine or "llama.cpp"


def _operand(tokens: list[str]) -> str | None:
    """The next word, where it is no flag: a number with a minus sign is none."""
    return tokens.pop(0) if tokens and not looks_like_a_flag(tokens[0]) else None


def _value(flag: Flag, inline: str | None, tokens: list[str], engine: Engine) -> Any:
    if flag.operands == 0:
        stated = truth(inline) if inline is not None else True
        return flag.value if stated in (True, None) else not flag.value
    words = [inline] if inline is not None else []
    if inline is None and flag.items:
        while (word := _operand(tokens)) is not None:
            words.append(word)
    elif inline is None and flag.operands is None:
        words = [word] if (word := _operand(tokens)) is not None else []
    elif inline is None:
        # An argument that needs a value takes the next word, whatever it looks like, unless it is another long flag.
        words = [tokens.pop(0) for _ in range(min(flag.operands or 1, len(tokens))) if not tokens[0].startswith("--")]
    if not words:
        return True if flag.operands is None else None
    if engine == "vllm":
        return _vllm_value(flag, words)
    return " ".join(words)


def _vllm_value(flag: Flag, words: list[str]) -> Any:
    argument = vllm_arguments.arguments().get(flag.word)
    if argument is None:
        return words[0]
    if argument["type"] == "list":
        return [typed(argument["items"], word) for word in words]
    return typed(argument["type"], words[0])


def typed(kind: str, word: str) -> Any:
    """A word as the value it stands for; what does not fit stays text, and is said to be wrong later."""
    match kind:
        case "int":
            return word if (whole := integer(word)) is None else whole
        case "float":
            return word if (found := number(word)) is None else found
        case "json":
            try:
                return json.loads(word)
            except (ValueError, RecursionError):
                return word
    return word
