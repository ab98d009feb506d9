from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli.loading import read
from appliance.doctor.scene import Scene
from appliance.state import StateDirectory
from tests.cli.conftest import machine

__all__ = ["machine"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A sound machine: a state directory, and a file without models."""
    file = tmp_path / "model-runner.yaml"
    file.write_text("version: 1\nserver: {port: 0}\n" + MODELS)
    state = StateDirectory(tmp_path / "home")
    state.prepare()
    return Scene(state, {"HOME": str(tmp_path)}, file, quick=True)


MODELS = "backend: own\nbackends: {own: {command: [x]}}\nmodels: {a: {source: ./a}}\n"
"""A model that needs no engine environment."""


def with_file(scene: Scene, text: str) -> Scene:
    scene.file.write_text(text if "models:" in text else text + MODELS)
    return replace(scene, loaded=read(scene.file))
