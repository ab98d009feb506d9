"""`docker model configure|run|pull …` lines, and what scripts post to `/engines/_configure` with curl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.migrate.found import Reading
from appliance.migrate.readers.arguments import read_flags
from appliance.migrate.readers.runner import read_configuration
from appliance.migrate.words import words_of

_COMMANDS = frozenset({"configure", "config", "run", "pull", "package", "bench", "load"})
_FLAGS = {
    "context-size": "context-size",
    "speculative-draft-model": "speculative.draft_model",
    "speculative-num-tokens": "speculative.num_tokens",
    "speculative-min-acceptance-rate": "speculative.min_acceptance_rate",
    "hf_overrides": "vllm.hf-overrides",
    "hf-overrides": "vllm.hf-overrides",
    "gpu-memory-utilization": "vllm.gpu-memory-utilization",
    "think": "think",
    "mode": "mode",
    "keep-alive": "keep_alive",
    "backend": "backend",
    "reasoning-budget": "llamacpp.reasoning-budget",
}
_SWITCHES = frozenset({"think", "detach", "d", "debug", "websearch", "json"})


def is_docker_model(argv: Sequence[str]) -> bool:
    return list(argv[:2]) == ["docker", "model"] and argv[2:3] != [] and argv[2] in _COMMANDS


def read(argv: Sequence[str], base: Path, reading: Reading, *, place: str) -> None:
    """One line; the last for a model is the one that counts, since each replaces what was set before."""
    command, tokens = argv[2], list(argv[3:])
    own = tokens[: tokens.index("--")] if "--" in tokens else tokens
    runtime = tokens[len(own) + 1 :]
    flags, words = _taken_apart(own)
    if not words:
        return
    prefix = f"docker model {command}"
    model = reading.model(words[0], "model-runner", base)
    model.configured = command in ("configure", "config")
    reading.add("model-runner-configuration", "model", words[0], key=f"{prefix} MODEL", place=place, model=model)
    for name, value in flags:
        word = _FLAGS.get(name, name)
        reading.add("model-runner-configuration", word, value, key=f"{prefix} --{name}", place=place, model=model)
    for word in words[1:]:
        why = "A prompt of `docker model run`; the model is served, not talked to, here."
        reading.add(
            "model-runner-configuration", "prompt", None, key=f"{prefix} {word[:20]}", place=place, model=model,
            level="dropped", why=why,
        )  # fmt: skip
    read_flags(words_of(runtime), None, reading, model, key=f"{prefix} --", place=place)


def _taken_apart(tokens: list[str]) -> tuple[list[tuple[str, Any]], list[str]]:
    flags: list[tuple[str, Any]] = []
    words: list[str] = []
    tokens = list(tokens)
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("-"):
            words.append(token)
            continue
        name, equals, value = token.lstrip("-").partition("=")
        if not equals:
            value = "true" if name in _SWITCHES or not tokens else tokens.pop(0)
        flags.append((name, value))
    return flags, words


def is_configure_call(argv: Sequence[str]) -> bool:
    return bool(argv) and argv[0] == "curl" and any("_configure" in word for word in argv)


def read_call(argv: Sequence[str], base: Path, reading: Reading, *, place: str) -> None:
    body = next(
        (argv[i + 1] for i, word in enumerate(argv[:-1]) if word in {"-d", "--data", "--data-raw", "--json"}), ""
    )
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        why = "What is posted to `_configure` is not JSON on this line."
        reading.add(
            "model-runner-configuration", "model", None, key="curl _configure", place=place, level="manual", why=why
        )
        return
    url = next(word for word in argv if "_configure" in word)
    backend = "vllm" if "/engines/vllm/" in url else None
    model = read_configuration(entry, base, reading, key="_configure ", place=place, backend=backend)
    model.configured = True
