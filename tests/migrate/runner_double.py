"""A Docker Model Runner as its documentation has it, as far as `migrate` asks: the shapes of `GET /models`,
`/engines/_configure` and `/engines/ps`, with their capitals and dashes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

QWEN = "sha256:354bf30d0aa3af413d2aa5ae4f23c66d78980072d1e07a5b0d776e9606a2f0b9"
MODELS: list[dict[str, Any]] = [
    {
        "id": QWEN,
        "tags": ["ai/qwen3:4B", "docker.io/ai/qwen3:4B-Q4_K_M"],
        "created": 1745777589,
        "config": {
            "format": "gguf",
            "quantization": "IQ2_XXS/Q4_K_M",
            "parameters": "4.02 B",
            "architecture": "qwen3",
            "size": "2.33 GiB",
            "gguf": {"general.name": "Qwen3 4B"},
            "context_size": 40960,
        },
    },
    {
        "id": "sha256:0b6f6f5b6c1c4a0f9d4e2f6b3a1d2c3b4a5968778695a4b3c2d1e0f1a2b3c4d5",
        "tags": ["ai/mxbai-embed-large:latest"],
        "created": 1745777600,
        "config": {"format": "gguf", "quantization": "F16", "parameters": "334.09 M", "architecture": "bert"},
    },
]
CONFIGURED: list[dict[str, Any]] = [
    {
        "Backend": "llama.cpp",
        "Model": "ai/qwen3:4B",
        "ModelID": QWEN,
        "Mode": "completion",
        "Config": {
            "context-size": 8192,
            "runtime-flags": ["--temp", "0.2", "--threads", "8"],
            "keep_alive": "-1",
            "llamacpp": {"reasoning-budget": 0},
        },
    }
]
RUNNING = [
    {
        "backend_name": "llama.cpp",
        "model_name": "ai/qwen3:4B",
        "mode": "completion",
        "last_used": "2026-07-22T10:00:00Z",
        "in_use": False,
        "loading": False,
        "keep_alive": "-1",
    }
]


@dataclass
class Double:
    url: str
    answers: dict[str, Any]
    status: int = 200
    asked: list[str] = field(default_factory=list)


@contextmanager
def model_runner(answers: Mapping[str, Any] | None = None, *, status: int = 200) -> Iterator[Double]:
    """A server on a port of its own. An answer that is bytes goes out as it is."""
    double = Double(
        "", {"/models": MODELS, "/engines/_configure": CONFIGURED, "/engines/ps": RUNNING, **(answers or {})}
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            double.asked.append(self.path)
            answer = double.answers.get(self.path)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status if answer is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
