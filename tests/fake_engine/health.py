"""What an operator asks: is it alive, what does it serve, what has it seen."""

from __future__ import annotations

import asyncio
import os

from .engine import FakeEngine
from .wire import Refused, Request, response_head, send_json


async def health(engine: FakeEngine, request: Request) -> None:
    if engine.options.hang_health:
        await asyncio.sleep(3600)
    await send_json(request, {}, status=503 if engine.options.fail_health else 200)


async def models(engine: FakeEngine, request: Request) -> None:
    card = {"id": engine.options.name, "object": "model", "created": 0, "owned_by": "vllm", "max_model_len": 4096}
    await send_json(request, {"object": "list", "data": [card]})


async def metrics(engine: FakeEngine, request: Request) -> None:
    """Some of vLLM's page: its own families, and those of its process and its web server."""
    if engine.options.bad_metrics == "hang":
        await asyncio.sleep(3600)
    if engine.options.bad_metrics == "error":
        raise Refused(500, {"detail": "Internal Server Error"})
    labels = f'{{engine="0",model_name="{engine.options.name}"}}'
    lines = [
        "# HELP python_info Python platform information",
        "# TYPE python_info gauge",
        'python_info{version="3"} 1.0',
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{labels} {engine.stats.running}.0",
        "# HELP vllm:request_success_total Count of successfully processed requests.",
        "# TYPE vllm:request_success_total counter",
        f"vllm:request_success_total{labels} {engine.stats.finished}.0",
        "# HELP vllm:request_success_created Count of successfully processed requests.",
        "# TYPE vllm:request_success_created gauge",
        f"vllm:request_success_created{labels} 1.7e+09",
        "# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.",
        "# TYPE vllm:time_to_first_token_seconds histogram",
        f'vllm:time_to_first_token_seconds_bucket{labels[:-1]},le="+Inf"}} {engine.stats.finished}.0',
        f"vllm:time_to_first_token_seconds_count{labels} {engine.stats.finished}.0",
        f"vllm:time_to_first_token_seconds_sum{labels} 0.5",
    ]
    if engine.options.bad_metrics == "garbage":
        lines.append("vllm:garbage{ 1 }} nonsense")
    page = ("\n".join(lines) + "\n").encode()
    if engine.options.bad_metrics == "endless":
        page *= 1 + (8 << 20) // len(page)
    request.writer.write(response_head(200, "text/plain; version=0.0.4", f"content-length: {len(page)}") + page)
    await request.writer.drain()


async def show(engine: FakeEngine, request: Request) -> None:
    await send_json(request, {"pid": os.getpid(), "name": engine.options.name, **vars(engine.stats)})
