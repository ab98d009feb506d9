from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.models import Appliance
from appliance.models.checkpoint import is_projector
from appliance.models.store import Store
from appliance.reconcile.remarks import remarks
from tests.models.checkpoint_builder import write_files
from tests.models.gguf_builder import tiny


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mmproj.gguf", True),
        ("mmproj-x-f16.gguf", True),
        ("model.gguf", False),
        ("adapter.gguf", False),
        ("mmproj.json", False),
    ],
)
def test_projector_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_projector(name) is expected


def test_projector_that_is_not_used_is_told(tmp_path: Path) -> None:
    write_files(tmp_path / "eyes", {"model.gguf": tiny().encode(), "mmproj-f16.gguf": b"GGUF"})
    write_files(tmp_path / "plain", {"model.gguf": tiny().encode()})
    models = {name: {"source": f"./{name}"} for name in ("eyes", "plain")} | {"absent": {"source": "hf:org/name"}}
    appliance = Appliance.model_validate({"models": models})
    (remark,) = remarks(appliance, tmp_path, Store(tmp_path / "store"))
    assert remark["name"] == "eyes"
    assert "`mmproj-f16.gguf`" in remark["message"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("hf:org/name", "`hf:org/name#*,*.py`"), ("hf:org/name@v1#*,*.py", None), ("./here", None)],
)
def test_code_that_is_trusted_and_not_fetched_is_told(tmp_path: Path, source: str, expected: str | None) -> None:
    model = {"source": source, "engine": {"trust_remote_code": True}}
    found = remarks(Appliance.model_validate({"models": {"m": model}}), tmp_path, Store(tmp_path / "store"))
    assert [expected in each["message"] for each in found if expected] == ([True] if expected else [])
    assert len(found) == (1 if expected else 0)
