"""Codex itself, where it is installed: 400 MB are too many to fetch for every run of the tests.

npm install --prefix DIRECTORY @openai/codex
PATH=DIRECTORY/node_modules/.bin:$PATH python -m pytest tests/gateway/clients/test_codex.py
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

CODEX = shutil.which("codex")
pytestmark = pytest.mark.skipif(CODEX is None, reason="Codex is not on PATH; this file says how to get it")

CONFIG = """\
model = "tiny"
model_provider = "appliance"

[model_providers.appliance]
name = "appliance"
base_url = "{base}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def run(gateway: Served, directory: Path, prompt: str) -> list[dict[str, Any]]:
    """What Codex tells while it works, one event a line."""
    home, work = directory / "home", directory / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(CONFIG.format(base=gateway.base))
    result = subprocess.run(
        [str(CODEX), "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", prompt],
        cwd=work, env={"PATH": os.environ["PATH"], "HOME": str(directory), "CODEX_HOME": str(home)},
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


def finished(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line["item"] for line in told if line["type"] == "item.completed" and line["item"]["type"] == kind]


def test_it_is_answered(gateway: Served, engine: Path, tmp_path: Path) -> None:
    told = run(gateway, tmp_path, "what is the capital of France?")
    (message,) = finished(told, "agent_message")
    assert message["text"].startswith("tiny answers")
    assert told[-1]["type"] == "turn.completed"
    assert told[-1]["usage"]["output_tokens"] > 0
    assert {line["status"] for line in gateway.lines()} == {200}


def test_a_command_that_the_model_asks_for_is_run_and_its_output_comes_back(
    gateway: Served, engine: Path, tmp_path: Path
) -> None:
    made = call("exec_command", {"cmd": "echo it ran > proof; cat proof"})
    told = run(gateway, tmp_path, f"fake:{json.dumps({'message': {'tool_calls': [made]}})}")
    (command,) = finished(told, "command_execution")
    assert (command["exit_code"], command["aggregated_output"]) == (0, "it ran\n")
    assert (tmp_path / "work" / "proof").read_text() == "it ran\n"
    asked, output = stats(engine)["last_body"]["input"][-2:]
    assert (asked["type"], output["type"]) == ("function_call", "function_call_output")
    assert "it ran" in output["output"]
