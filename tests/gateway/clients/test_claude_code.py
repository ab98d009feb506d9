"""Claude Code itself, where it is installed: 235 MB are too many to fetch for every run of the tests.

npm install --prefix DIRECTORY @anthropic-ai/claude-code
PATH=DIRECTORY/node_modules/.bin:$PATH python -m pytest tests/gateway/clients/test_claude_code.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.anthropic.asking import call
from tests.gateway.served import Served
from tests.gateway.test_streaming import stats

CLAUDE = shutil.which("claude")
pytestmark = pytest.mark.skipif(CLAUDE is None, reason="Claude Code is not on PATH; this file says how to get it")


def run(gateway: Served, directory: Path, prompt: str) -> dict[str, Any]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "ANTHROPIC_BASE_URL": gateway.base,
        "ANTHROPIC_AUTH_TOKEN": "unused",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    result = subprocess.run(
        [str(CLAUDE), "-p", prompt, "--output-format", "json", "--allowedTools", "Bash"],
        cwd=directory, env=environ, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_is_answered_and_its_prompt_has_nothing_that_defeats_the_cache(
    gateway: Served, engine: Path, tmp_path: Path
) -> None:
    answer = run(gateway, tmp_path, "what is the capital of France?")
    assert not answer["is_error"]
    assert answer["result"].startswith("tiny answers")
    assert answer["usage"]["output_tokens"] > 0
    assert "x-anthropic-billing-header" not in json.dumps(stats(engine)["last_body"])
    assert {line["status"] for line in gateway.lines()} == {200}


def test_a_tool_that_the_model_calls_is_run_and_its_result_comes_back(
    gateway: Served, engine: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    made = call("Bash", {"command": f"echo it ran > {proof}", "description": "Says so."})
    told = {"message": {"content": "I look. ", "tool_calls": [made]}, "finish": "tool_calls"}
    answer = run(gateway, tmp_path, f"fake:{json.dumps(told)}")
    assert proof.read_text() == "it ran\n"
    assert answer["num_turns"] == 2
    roles = [message["role"] for message in stats(engine)["last_body"]["messages"]]
    assert roles[:2] == ["system", "user"]
    assert roles[-2:] == ["assistant", "tool"]
