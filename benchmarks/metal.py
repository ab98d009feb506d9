"""vLLM over MLX beside `mlx_lm.server`: the same weights, the same device, taking turns in one run.

    python -m benchmarks.metal --model CHECKPOINT [--rounds 3] [--tokens 48] [--clients 1 8 16]
    python -m benchmarks.metal --shape 8b --prefix-words 1000

With a shape, a checkpoint of random 4-bit weights is made on the spot (random_checkpoint.py). The interpreter is that
of the provisioned environment of vllm-metal; `--python` names another, one with `mlx-cuda-13` for instance.

Both servers stay up and are measured in turn, over HTTP, streaming, at several numbers of clients. Throughput is all
generated tokens over the time from the first request to the last token; the time to the first token is the clients'
median. For the shared prefix each server is sent a new prefix of some hundred words (cold), and then the same one with
another question (warm). On the CPU mlx_lm is given the OpenBLAS that its wheel lacks. Figures are medians of the
rounds, and the ratios are within one round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from appliance.config.models import Environment
from appliance.engines.vllm_metal import plugin_environ
from appliance.environments.provision import Environments
from appliance.state import StateDirectory
from benchmarks.machine import describe
from benchmarks.random_checkpoint import SHAPES, WORDS

ROOT = Path(__file__).parent.parent

_WITH_BLAS = "from appliance_metal.device import mlx; mlx(); import sys; from mlx_lm.server import main; main()"
_START_TIMEOUT = 300.0


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    model: str

    async def stream(self, session: aiohttp.ClientSession, prompt: str, tokens: int) -> AsyncIterator[int]:
        """Of each event with text or usage in it, how many tokens the server says it has generated; else 0."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
        body["stream_options"] = {"include_usage": True}
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        async with session.post(url, json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    choices = event.get("choices") or [{}]
                    if event.get("usage") or choices[0].get("text") or choices[0].get("finish_reason"):
                        yield int((event.get("usage") or {}).get("completion_tokens", 0))


@dataclass(frozen=True)
class Figures:
    """`throughput` in tokens a second, `first` in seconds."""

    throughput: float
    first: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", type=Path, help="the interpreter of another environment than the provisioned one")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--model", type=Path, help="a checkpoint that both load as it is")
    weights.add_argument("--shape", choices=SHAPES, help="random weights in 4 bits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--prefix-words", type=int, default=700, help="of the shared prefix; a word is about a token")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--engine", default="", help="further arguments of the engine, as on its command line")
    options = parser.parse_args()
    options.python = options.python or _provisioned()
    with ExitStack() as stack:
        name = options.shape or options.model.name
        if options.shape:
            options.model = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shape-"))) / options.shape
            argv = [options.python, "-m", "benchmarks.random_checkpoint", options.shape, options.model]
            subprocess.run(argv, check=True, cwd=ROOT)
        servers = [stack.enter_context(each) for each in (_ours(options), _theirs(options))]
        machine = {**describe(), "device": _device(options.python)}
        result = {"machine": machine, "model": name, **asyncio.run(_measure(servers, options))}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _device(python: Path) -> str:
    """What MLX computes on, in its own words."""
    argv = [str(python), "-c", "from appliance_metal import device; print(device.name())"]
    environ = {**os.environ, **plugin_environ()}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.strip()


def _provisioned() -> Path:
    environments = Environments(StateDirectory.locate(os.environ).environments)
    spec = environments.choose("vllm-metal", Environment())
    return asyncio.run(environments.ensure(spec, lambda progress: print(progress.step, file=sys.stderr))).python


@contextmanager
def _ours(options: argparse.Namespace) -> Iterator[Server]:
    port = _free_port()
    argv = [options.python, "-m", "appliance_metal.serve", "--model", options.model, "--port", port, "--host"]
    argv += ["127.0.0.1", "--served-model-name", "model", "--max-model-len", 4096, "--max-num-seqs", 16]
    argv += ["--kv-cache-memory-bytes", "1G", "--disable-uvicorn-access-log", *options.engine.split()]
    with _running("ours", argv, port, "/health"):
        yield Server("ours", port, "model")


@contextmanager
def _theirs(options: argparse.Namespace) -> Iterator[Server]:
    port = _free_port()
    argv = [options.python, "-c", _WITH_BLAS, "--model", options.model, "--port", port, "--log-level", "WARNING"]
    with _running("mlx_lm", argv, port, "/v1/models"):
        yield Server("mlx_lm", port, str(options.model))


@contextmanager
def _running(name: str, argv: list[Any], port: int, health: str) -> Iterator[None]:
    environ = {**os.environ, **plugin_environ(), "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environ["PYTHONPATH"] = os.pathsep.join([environ["PYTHONPATH"], *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log") as log:
        process = subprocess.Popen(
            [str(each) for each in argv], env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            asyncio.run(_ready(process, f"http://127.0.0.1:{port}{health}", Path(log.name)))
            yield
        finally:
            os.killpg(process.pid, 9)
            process.wait()


async def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    async with aiohttp.ClientSession() as session:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
    raise SystemExit(f"not ready: {url}\n{log.read_text(errors='replace')[-3000:]}")  # noqa: ASYNC240 - the end


async def _measure(servers: list[Server], options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(5)  # noqa: S311 - repeatable on purpose
    timeout = aiohttp.ClientTimeout(total=600)
    found: dict[str, dict[str, list[float]]] = {}
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64)) as session:
        for server in servers:
            await _load(server, session, [_text(rng, 20)] * 2, 4)
        for number in range(options.rounds):
            for clients in options.clients:
                prompts = [_text(rng, 20) for _ in range(clients)]
                for server in _in_turn(servers, number):
                    figures = await _load(server, session, prompts, options.tokens)
                    _add(found, f"{clients} clients, tokens/s", server, figures.throughput)
                    _add(found, f"{clients} clients, first token s", server, figures.first)
            prefix = _text(rng, options.prefix_words)
            for server in _in_turn(servers, number):
                for kind in ("cold", "warm"):
                    figures = await _load(server, session, [prefix + _text(rng, 8)], 4)
                    _add(found, f"prefix {kind}, first token s", server, figures.first)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return {name: _summary(values, higher="tokens/s" in name) for name, values in found.items()}


def _in_turn(servers: list[Server], number: int) -> list[Server]:
    return servers if number % 2 == 0 else servers[::-1]


async def _load(server: Server, session: aiohttp.ClientSession, prompts: list[str], tokens: int) -> Figures:
    began = time.perf_counter()
    answers = await asyncio.gather(*(_client(server, session, prompt, tokens) for prompt in prompts))
    elapsed = time.perf_counter() - began
    return Figures(sum(count for count, _ in answers) / elapsed, statistics.median(first for _, first in answers))


async def _client(server: Server, session: aiohttp.ClientSession, prompt: str, tokens: int) -> tuple[int, float]:
    began, first, count = time.perf_counter(), 0.0, 0
    async for each in server.stream(session, prompt, tokens):
        first = first or time.perf_counter() - began
        count = max(count, each)
    return count, first


def _add(found: dict[str, dict[str, list[float]]], name: str, server: Server, value: float) -> None:
    found.setdefault(name, {}).setdefault(server.name, []).append(value)


def _summary(values: dict[str, list[float]], *, higher: bool) -> dict[str, float]:
    """`ratio` above 1 is in our favour."""
    pairs = zip(values["ours"], values["mlx_lm"], strict=True)
    ratios = [ours / theirs if higher else theirs / ours for ours, theirs in pairs]
    figures = {name: round(statistics.median(each), 3) for name, each in values.items()}
    return {**figures, "ratio": round(statistics.median(ratios), 2)}


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)) + " "


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
