"""The product's reason to exist: while everything changes and engines die, no answer is lost but a killed engine's."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import psutil
import pytest

from appliance.chaos.trial import Options, run
from appliance.progress import silent


def test_nothing_is_dropped_while_everything_changes_and_engines_die() -> None:
    result = asyncio.run(run(Options(duration=0, clients=64, seed=20, decks=1), os.environ, silent))
    assert (result.failed, result.cut, result.wrong_model) == (0, 0, 0), result.losses
    assert result.requests == result.whole + result.interrupted
    assert result.whole > 200
    assert result.interrupted > 0
    assert {"alias", "key", "sampling", "engine arguments", "source", "recreate", "surge"} <= result.moves.keys()
    assert {"kill", "kill while draining", "hang", "fail at start", "fail the probe", "garbage"} <= result.moves.keys()


def test_the_self_test_touches_nothing_of_the_user_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = {**os.environ, "TMPDIR": str(tmp_path), "APPLIANCE_HOME": str(tmp_path / "users"), "PORT": "1"}
    result = asyncio.run(run(Options(duration=1, clients=2, seed=1), environ, silent))
    assert result.dropped == 0
    assert list(tmp_path.iterdir()) == []
    assert not any(str(tmp_path) in word for process in psutil.process_iter() for word in _words(process))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
