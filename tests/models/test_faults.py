"""The store, when every change to the disk in turn fails, or is the last one before kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("mode", ["full", "kill", "short"])
def test_pull_survives_a_fault_at_any_change_to_the_disk(tmp_path: Path, mode: str) -> None:
    argv = [sys.executable, "-m", "tests.models.faults", mode, str(tmp_path)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=240, cwd=ROOT, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["changes"]["package"] > 25
    # What comes out of Docker's own store is linked: not a byte of it is written.
    assert found["changes"]["image"] == 0 if mode == "short" else found["changes"]["image"] > 15
