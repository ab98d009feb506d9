"""Values of Docker Model Runner's Helm chart, and what Compose Bridge makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from appliance.config.problems import KeyPath
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree
from appliance.migrate.readers.engines import mapping_variables, read_variables


def looks_like_it(data: Mapping[str, Any]) -> bool:
    return bool({"modelInit", "modelRunner"} & data.keys()) or {"image", "service", "storage"} <= data.keys()


def read(source: Input, document: Tree, reading: Reading) -> None:
    for path, value in _leaves(document.data, ()):
        word, place = ".".join(map(str, path)), document.place(*path)
        if word in ("modelInit.models", "modelRunner.models"):
            for index, reference in enumerate(value if isinstance(value, list) else [value]):
                model = reading.model(str(reference), "model-runner", source.base)
                at = document.place(*path, index)
                reading.add("helm", word, reference, key=f"{word}[{index}]", place=at, model=model)
        elif word in ("env", "modelRunner.env", "extraEnv"):
            read_variables(mapping_variables(_named(value), place), reading, None, key=f"{word}.")
        else:
            reading.add("helm", word, value, key=word, place=place)


def _leaves(data: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict) and value and name not in ("env", "extraEnv") and not (name == "models" and path):
            yield from _leaves(value, here)
        else:
            yield here, value


def _named(value: Any) -> Any:
    """Kubernetes' list of `{name, value}` as a mapping."""
    if isinstance(value, list):
        return {str(item.get("name")): item.get("value") for item in value if isinstance(item, dict)}
    return value if isinstance(value, dict) else {}
