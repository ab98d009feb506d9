"""What is left of a configuration without its broken values, so that the rules can be checked on the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from appliance.config.models import Appliance
from appliance.config.problems import KeyPath

_ROUNDS = 4  # taking one thing out can leave its parent without a required key, and so on up


def salvage(data: dict[str, Any], broken: Iterable[KeyPath]) -> Appliance | None:
    """None where too little is left."""
    data = copy.deepcopy(data)
    for _ in range(_ROUNDS):
        for path in sorted(broken, key=_backwards, reverse=True):
            _remove(data, path)
        try:
            return Appliance.model_validate(data)
        except ValidationError as error:
            broken = [tuple(part for part in detail["loc"] if part != "[key]") for detail in error.errors()]
    return None


def _backwards(path: KeyPath) -> list[tuple[int, str]]:
    """Later list items first, so that indices stay true."""
    return [(part, "") if isinstance(part, int) else (0, part) for part in path]


def _remove(data: Any, path: KeyPath) -> None:
    *parents, last = path
    holder = data
    for part in parents:
        try:
            holder = holder[part]
        except (KeyError, IndexError, TypeError):
            return  # went with an item above it
    if last in (holder if isinstance(holder, dict) else range(len(holder))):
        del holder[last]
    elif last == "source" and len(path) == 3:
        holder[last] = "missing"  # no rule reads it, and the model's other keys are still worth checking
    elif parents:
        _remove(data, tuple(parents))
