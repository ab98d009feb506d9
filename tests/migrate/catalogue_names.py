"""Whether Docker Hub and the Hugging Face hub have what migrations/models.yaml says of them.

No part of the tests, since it needs both: `make names` runs it. A name whose host cannot be reached is skipped.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.migrate import catalogue
from appliance.migrate.catalogue import Known
from appliance.migrate.rules import shipped_migrations
from appliance.models.convert.gguf_file import read_header
from appliance.models.sources import RegistrySource, parse_source
from appliance.models.store import Store
from appliance.progress import silent

ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load((shipped_migrations() / "models.yaml").read_text())["models"]


def artifacts() -> Iterator[str]:
    """Every name with a tag that the list makes use of, and with none."""
    for name, entry in ENTRIES.items():
        tags = [entry["latest"], *(size["tag"] for size in entry["sizes"].values() if "tag" in size)]
        yield name
        yield from (f"{name}:{tag}" for tag in dict.fromkeys(tags))


def origins() -> list[str]:
    return sorted({size["origin"] for entry in ENTRIES.values() for size in entry["sizes"].values()})


def disagreement(store: Store, source: RegistrySource, known: Known, into: Path) -> str | None:
    """How the artifact differs from what is known of it, by the head of its file; None where it does not."""
    path = asyncio.run(store.skeleton(source, into, silent, subject="model m"))
    if (packed := "gguf" if path.is_file() else "safetensors") != known.packed:
        return f"packed is {packed}, not {known.packed}"
    if packed == "safetensors":
        return None
    metadata = read_header(path, vocabulary=False).metadata
    pre, model = metadata.get("tokenizer.ggml.pre", "default"), metadata.get("tokenizer.ggml.model")
    found = metadata.get("general.architecture"), model if pre == "default" else pre
    return None if found == (known.architecture, known.tokenizer) else f"{found}, not {known}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", token=os.environ.get("HF_TOKEN"))


def require(host: str, name: str) -> None:
    try:
        socket.create_connection((host, 443), timeout=10).close()
    except OSError as error:
        pytest.skip(f"{name}: {host} cannot be reached: {error}")


@pytest.mark.parametrize("name", [*artifacts()])
def test_docker_hub_has_the_artifact_as_it_is_listed(store: Store, tmp_path: Path, name: str) -> None:
    require("registry-1.docker.io", name)
    source = catalogue.registry_source(name)
    assert source is not None
    known = catalogue.known(source)
    assert known is not None
    assert disagreement(store, source, known, tmp_path) is None


@pytest.mark.parametrize("origin", origins())
def test_the_hub_has_the_safetensors_that_are_named(store: Store, origin: str) -> None:
    require("huggingface.co", origin)
    assert asyncio.run(store.revision(parse_source(origin, base=Path()), silent, subject=origin))
