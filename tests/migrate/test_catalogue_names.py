"""What asks Docker Hub about the catalogue, here against a registry on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.migrate.catalogue import Known
from appliance.models.sources import RegistrySource, parse_source
from appliance.models.store import Store
from tests.migrate.catalogue_names import artifacts, disagreement, origins
from tests.models.gguf_builder import tiny
from tests.models.registry_program import DOCKER, Layer, registry_program


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        (Known(architecture="llama", tokenizer="smollm"), None),
        (Known(architecture="qwen2", tokenizer="smollm"), "('llama', 'smollm'), not"),
        (Known(architecture="llama", tokenizer="llama-bpe"), "('llama', 'smollm'), not"),
        (Known(packed="safetensors"), "packed is gguf"),
    ],
)
def test_an_artifact_that_is_something_else_is_told(tmp_path: Path, known: Known, answer: str | None) -> None:
    store = Store(tmp_path / "models", environ={**os.environ, "HOME": str(tmp_path)})
    (tmp_path / "heads").mkdir()
    with registry_program(tmp_path / "registry") as registry:
        registry.push("ai/m", [Layer(tiny().encode(), f"{DOCKER}gguf.v3")])
        source = parse_source(f"oci:{registry.host}/ai/m:latest", base=Path())
        assert isinstance(source, RegistrySource)
        told = disagreement(store, source, known, tmp_path / "heads")
    assert told is None if answer is None else told and answer in told


def test_every_name_and_origin_of_the_list_is_asked_for() -> None:
    assert {"ai/smollm2", "ai/smollm2:135M-Q4_K_M"} <= {*artifacts()}
    assert "hf:HuggingFaceTB/SmolLM2-135M-Instruct" in origins()
