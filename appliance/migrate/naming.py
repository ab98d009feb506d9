"""The models' keys in the file, and what else clients may call them."""

from __future__ import annotations

import re

from appliance.config.models import NAME
from appliance.migrate.draft import Model

_NAME = re.compile(NAME)


def assign_names(models: list[Model]) -> list[str]:
    """Give every model its name, and leave in `names` its aliases. Returns what could not be kept, as sentences."""
    lost: list[str] = []
    taken: dict[str, Model] = {}
    for model in models:
        model.name = _free(model, taken)
        taken[model.name] = model
    for model in models:
        aliases = []
        for alias in dict.fromkeys(_asked_for(model)):
            if alias == model.name:
                continue
            if (owner := taken.get(alias)) is not None:
                lost.append(
                    f"`{alias}` leads to `{owner.name}`, which was first; `{model.name}` is asked for by its own name."
                )
            elif set(alias) & set("*?["):
                lost.append(f"`{alias}` is no alias here, where `*`, `?` and `[` match any name.")
            else:
                taken[alias] = model
                aliases.append(alias)
        model.names = aliases
    return lost


def client_name(model: Model) -> str:
    """What a client that asked for this model before can go on asking for."""
    return model.reference if model.reference in model.names else model.name


def _asked_for(model: Model) -> list[str]:
    names = list(model.names)
    if model.origin in ("model-runner", "vllm") and not (names and model.origin == "vllm") and model.reference:
        names.append(model.reference)
    return [name for name in names if name and len(name) <= 200 and name.isprintable()]


def _free(model: Model, taken: dict[str, Model]) -> str:
    asked = [model.reference, *model.names] if model.origin == "model-runner" else model.names
    candidates = [*(name for name in model.names if _NAME.fullmatch(name)), *(_derived(name) for name in asked)]
    label = _derived(model.label)
    if model.reference and model.label in ("default", model.reference):
        candidates.append(_derived(model.reference))
    elif model.reference:
        candidates += [_derived(model.reference), label]
    candidates.append(label)
    for name in candidates:
        if name and name not in taken:
            return name
    base = next((name for name in candidates if name), "model")[:58]
    return next(name for number in range(2, 10_000) if (name := f"{base}-{number}") not in taken)


def _derived(text: str) -> str:
    """The last part of a reference, without a digest and the tag `latest`: `ai/qwen3:0.6B-Q4_0` → `qwen3-0.6b-q4_0`."""
    last = text.partition("@sha256:")[0].rstrip("/").rpartition("/")[2].removesuffix(":latest").removesuffix(".gguf")
    last = re.sub(r"-gguf(:[\w.-]+)?$", "", last, flags=re.IGNORECASE)
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:63].strip("-._").lower()
    return clean if _NAME.fullmatch(clean) else ""
