"""aider itself, where it is installed: its environment is too large to make for every run of the tests.

python -m venv DIRECTORY && DIRECTORY/bin/pip install aider-chat
PATH=DIRECTORY/bin:$PATH python -m pytest tests/gateway/clients/test_aider.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.served import Served

AIDER = shutil.which("aider")
pytestmark = pytest.mark.skipif(AIDER is None, reason="aider is not on PATH; this file says how to get it")

EDIT = """notes.txt
<<<<<<< SEARCH
hello
=======
hello, world
>>>>>>> REPLACE
"""


def test_an_edit_that_the_model_writes_is_applied(gateway: Served, engine: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("hello\n")
    flags = ("--yes-always", "--no-git", "--no-show-model-warnings", "--no-check-update", "--analytics-disable")
    asked = f"fake:{json.dumps({'message': {'content': EDIT}})}"
    result = subprocess.run(
        [str(AIDER), "--model", "openai/tiny", "--edit-format", "diff", *flags, "--message", asked, notes.name],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OPENAI_API_BASE": f"{gateway.base}/v1",
            "OPENAI_API_KEY": "unused",
        },
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert notes.read_text() == "hello, world\n", result.stdout[-2000:]
    assert {line["status"] for line in gateway.lines()} == {200}
