"""Clients that are too heavy for the development environment, and want other versions of what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.routing import Routing
from tests.gateway.served import FakePort, Served, route, serve
from tests.gateway.test_openai_conformance import tiny

HERE = Path(__file__).parent
PINS = (
    "langchain-openai==1.7.3",
    "langchain-anthropic==1.7.7",
    "langchain-ollama==1.1.0",
    "litellm==1.106.2",
    "mcp==2.3.0",
    "schemathesis==4.32.5",
)
"""LiteLLM imports mcp for tools, without asking for it."""


@pytest.fixture(scope="session")
def clients(engine_home: Path) -> Path:
    """An environment with all of them. LiteLLM holds the OpenAI SDK at a version that is older than ours."""
    venv = engine_home / "clients"
    done = venv / "installed"
    if not done.exists() or done.read_text() != " ".join(PINS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", *PINS], check=True)
        done.write_text(" ".join(PINS))
    return venv / "bin"


@pytest.fixture(scope="module")
def dialects(engine: Path, clients: Path) -> dict[str, Any]:
    """What LangChain saw of both: importing it takes longer than asking."""
    with serve(FakePort(Routing(routes={"tiny": route(engine)}))) as served:
        return run(clients, "langchain_dialects_client.py", served.base)


def run(python: Path, script: str, base: str) -> dict[str, Any]:
    # Neither looks for prices or sends traces when it is told not to.
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    result = subprocess.run(
        [python / "python", HERE / script, base], capture_output=True, text=True, env=environ, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_langchain_chats_streams_calls_tools_parses_and_embeds(gateway: Served, clients: Path) -> None:
    seen = run(clients, "langchain_client.py", gateway.base)
    assert seen["text"].startswith("tiny answers")
    assert seen["streamed"] == seen["text"]
    assert seen["streamed_usage"] == seen["usage"]
    assert seen["usage"]["total_tokens"] == seen["usage"]["input_tokens"] + seen["usage"]["output_tokens"]
    assert seen["finish"] == "stop"
    assert seen["calls"] == seen["streamed_calls"] == [["weather", {"city": "text", "days": 1}]]
    assert "sunny in Rome" in seen["after_tool"]
    assert seen["json_schema"] == seen["function_calling"] == {"city": "text", "days": 1}
    assert isinstance(seen["json_mode"], dict)
    assert seen["responses"] == seen["responses_streamed"]
    assert seen["responses"].startswith("tiny answers")
    assert seen["documents"] == [8, 8, 8]
    assert seen["query"] == 8
    assert "NotFoundError" in seen["unknown"]


@pytest.mark.parametrize("dialect", ["anthropic", "ollama"])
def test_langchain_works_in_the_translated_dialects(dialects: dict[str, Any], dialect: str) -> None:
    seen = dialects[dialect]
    assert seen["text"].startswith("tiny answers")
    assert seen["streamed"] == seen["text"]
    assert seen["pieces"] > 4
    assert seen["streamed_usage"]["output_tokens"] == seen["usage"]["output_tokens"] > 0
    assert seen["streamed_usage"]["input_tokens"] == seen["usage"]["input_tokens"] > 0
    assert seen["calls"] == [["weather", {"city": "Rome"}]]
    assert "sunny in Rome" in seen["after_tool"]
    assert seen["parsed"] == {"city": "text", "days": 1}
    assert dialects["vectors"] == [8, 8]


def test_litellm_chats_streams_calls_tools_embeds_and_names_errors(gateway: Served, clients: Path) -> None:
    tiny(gateway, reasons=True)
    seen = run(clients, "litellm_client.py", gateway.base)
    assert seen["text"].startswith("tiny answers")
    assert seen["streamed"] == seen["text"]
    assert seen["usages"] == 1
    assert seen["total"] > 0
    assert seen["calls"] == ["weather"]
    assert seen["ping"] == "length"
    assert seen["reasoning"] == "because"
    assert seen["vectors"] == [8, 8]
    assert seen["errors"] == {
        "unknown": "NotFoundError",
        "bad": "BadRequestError",
        "busy": "RateLimitError",
        "failed": "InternalServerError",
    }


def test_schemathesis_finds_nothing_that_the_document_does_not_promise(
    gateway: Served, clients: Path, tmp_path: Path
) -> None:
    gateway.change(routes={"tiny": gateway.state.table.routes["tiny"]})  # one that is not ready is a 503, and slow
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    result = subprocess.run(
        [
            clients / "schemathesis",
            "run",
            f"{gateway.base}/openapi.json",
            *("--checks", checks),
            *("--max-examples", "4"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--seed", "1"),
            *("--workers", "2"),
            *("--request-timeout", "20"),
            *("--exclude-path-regex", "^/(admin|readyz)"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert {200, 400, 404} <= {line["status"] for line in gateway.lines()}
