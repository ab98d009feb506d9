"""What the gateway costs per streamed request, beside nginx, vllm-router and LiteLLM, in one run.

    python -m benchmarks.gateway [--router VENV/bin/vllm-router] [--litellm VENV/bin/litellm] [--json FILE]

Every target serves the same load in every round: 64 clients that ask for streams of 100 events, once as fast as the
engine can write (burst: events share packets) and once paced at 10 ms (every event travels alone, as from a model), and
16 paced clients for the time to first byte. CPU is the proxy's own process tree; the engine and the load have theirs.
Compare figures within one run only. nginx is taken from PATH (Debian: `apt-get install nginx-light`); vllm-router is
`pip install vllm-router==0.1.17` in an environment of its own, LiteLLM is `pip install 'litellm[proxy]'` in another.
What is missing is left out. LiteLLM gets a tenth of the requests, or a run would take an hour.

Ours is measured in memory, too: a thousand open streams in which nothing happens, and a body of 20 MB on its way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

from benchmarks.machine import describe
from benchmarks.streams import MODEL
from tests.support import fake_engine_argv, free_port, listening, wait_until

EVENTS = 100
TOKENS = EVENTS - 2  # the stream's first event is the role, its last [DONE]
INTERVAL = 0.01
CLIENT_KEY = "sk-appliance-benchmark"
ENGINE_KEY = "benchmark-engine"


@dataclass(frozen=True)
class Load:
    interval: float
    """The engine's pace in seconds per event; 0 is as fast as it can."""
    clients: int
    requests: int
    spread: float = 0.0
    """Seconds over which the clients begin."""


LOADS = {
    "burst": Load(0.0, 64, 1920),
    "paced": Load(INTERVAL, 64, 640),
    "first byte": Load(INTERVAL, 16, 320, spread=EVENTS * INTERVAL),
}


@dataclass(frozen=True)
class Engine:
    """The same engine twice: nginx and the gateway reach it by its socket, vllm-router knows TCP only."""

    socket: Path
    port: int


@dataclass(frozen=True)
class Target:
    name: str
    start: Callable[[Engine, int, Path], list[str]]
    """The command that serves the engine on this port; scratch files may go into the directory."""
    share: float = 1.0
    """How much of the load it is given."""


def appliance(engine: Engine, port: int, _: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gateway_process", str(engine.socket), str(port), CLIENT_KEY, ENGINE_KEY]


def nginx(engine: Engine, port: int, directory: Path) -> list[str]:
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(
        f"{user} daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"upstream engine {{ server unix:{engine.socket}; keepalive 128; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{\n"
        'proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;\n'
        f'proxy_set_header Authorization "Bearer {ENGINE_KEY}"; }} }} }}\n'
    )
    return [shutil.which("nginx") or "nginx", "-c", str(config), "-e", "stderr"]


def router(command: str) -> Callable[[Engine, int, Path], list[str]]:
    def start(engine: Engine, port: int, _: Path) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{engine.port}"]
        metrics = ["--prometheus-port", str(free_port())]
        return [command, *where, *metrics, "--policy", "round_robin", "--log-level", "error"]

    return start


def litellm(command: str) -> Callable[[Engine, int, Path], list[str]]:
    def start(engine: Engine, port: int, directory: Path) -> list[str]:
        config = directory / f"litellm-{port}.yaml"
        parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine.port}/v1", "api_key": "none"}
        models = [{"model_name": MODEL, "litellm_params": parameters}]
        config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": CLIENT_KEY}}))
        return [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]

    return start


@contextmanager
def engine(directory: Path, name: str, interval: float) -> Iterator[Engine]:
    found = Engine(directory / f"{name}.sock", free_port())
    flags = ("--events", str(TOKENS), "--event-interval", str(interval))
    commands = (
        fake_engine_argv(*flags, name=MODEL, uds=found.socket),
        fake_engine_argv(*flags, name=MODEL, port=found.port),
    )
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(running(command))
        for where in (found.socket, found.port):
            wait_until(lambda where=where: listening(where), what="the engine listens")  # type: ignore[misc]
        yield found


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(port: int, kind: Load, dialect: str = "openai") -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.streams",
        "--port",
        str(port),
        "--key",
        CLIENT_KEY,
        "--dialect",
        dialect,
    ]
    command += ["--clients", str(kind.clients), "--requests", str(kind.requests), "--spread", str(kind.spread)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    # LiteLLM leaves out chunks that say nothing.
    assert result["events"] >= result["requests"] * TOKENS, f"streams were cut: {result}"
    return result


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in tree(pid))


def measure(name: str, pid: int | None, port: int, kind: Load, share: float = 1.0) -> dict[str, float]:
    """One load, after a short one that opens connections and warms caches."""
    ask(port, replace(kind, requests=kind.clients))
    kind = replace(kind, requests=max(kind.clients, int(kind.requests * share)))
    before = cpu(pid) if pid else 0.0
    result = ask(port, kind)
    if pid:
        result["cpu_ms"] = (cpu(pid) - before) / result["requests"] * 1000
        result["rss_mib"] = sum(process.memory_info().rss for process in tree(pid)) / 2**20
    print(f"  {name:<12} {result['seconds']:6.2f} s {result.get('cpu_ms', 0):7.3f} ms CPU", file=sys.stderr, flush=True)
    return result


def one_load(name: str, targets: list[Target], rounds: int, directory: Path) -> dict[str, list[dict[str, float]]]:
    kind = LOADS[name]
    results: dict[str, list[dict[str, float]]] = {"direct": [], **{target.name: [] for target in targets}}
    with ExitStack() as stack:
        found = stack.enter_context(engine(directory, name.replace(" ", "-"), kind.interval))
        pids: dict[str, tuple[int | None, int, float]] = {"direct": (None, found.port, 1.0)}
        for target in targets:
            port = free_port()
            process = stack.enter_context(running(target.start(found, port, directory)))
            wait_until(lambda port=port: listening(port), within=120, what=f"{target.name} listens")  # type: ignore[misc]
            pids[target.name] = (process.pid, port, target.share)
        time.sleep(2)  # vllm-router listens before it has found its workers healthy
        for number in range(rounds):
            print(f"{name}, round {number + 1}", file=sys.stderr)
            for target_name, (pid, port, share) in pids.items():
                results[target_name].append(measure(target_name, pid, port, kind, share))
    return results


IDLE = 1000
BODY = 20 * 1000 * 1000


@dataclass(frozen=True)
class Memory:
    """Bytes of the gateway's process."""

    at_rest: int
    idle_streams: int
    """With a thousand streams open."""
    before_body: int
    peak_body: int
    """The most it took while a body of 20 MB went through."""

    @property
    def in_words(self) -> str:
        each = (self.idle_streams - self.at_rest) / IDLE / 1024
        more = self.peak_body - self.before_body
        return (
            f"{IDLE} open streams: {self.idle_streams / 1e6:.0f} MB resident ({self.at_rest / 1e6:.0f} MB at rest, "
            f"{each:.0f} KiB each)\na body of {BODY / 1e6:.0f} MB: {more / 1e6:.0f} MB more at its peak, "
            f"{more / BODY:.1f} times its size"
        )


def measure_memory(directory: Path) -> Memory:
    """Of our gateway alone, in a process of its own."""
    with ExitStack() as stack:
        found = stack.enter_context(engine(directory, "memory", INTERVAL))
        port = free_port()
        process = stack.enter_context(running(appliance(found, port, directory)))
        wait_until(lambda: listening(port), what="the gateway listens")
        ask(port, Load(INTERVAL, 8, 64))
        at_rest = memory_of(process.pid, "VmRSS")
        with open_streams(port, IDLE):
            idle_streams = memory_of(process.pid, "VmRSS")
        send_body(port, 1000)
        before = memory_of(process.pid, "VmRSS")
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak counts from here
        send_body(port, BODY)
        return Memory(at_rest, idle_streams, before, memory_of(process.pid, "VmHWM"))


def memory_of(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def post(port: int, body: dict[str, object]) -> socket.socket:
    data = json.dumps(body).encode()
    lines = f"host: localhost\r\nauthorization: Bearer {CLIENT_KEY}\r\ncontent-length: {len(data)}\r\n"
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + data)
    return client


@contextmanager
def open_streams(port: int, count: int) -> Iterator[None]:
    """Each has begun, and waits for its second token."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    clients = [post(port, {**body, "fake": {"stall_after": 1}}) for _ in range(count)]
    try:
        for client in clients:
            assert b" 200 " in client.recv(65536)
        yield
    finally:
        for client in clients:
            client.close()


def send_body(port: int, size: int) -> None:
    """One message of this many bytes, as an image in a chat is."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x" * size}]}
    with post(port, {**body, "fake": {"events": 2}, "max_tokens": 2}) as client:
        received = b""
        while b"[DONE]" not in received:
            received += client.recv(1 << 20)


def summary(results: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, per target."""
    rows: dict[str, dict[str, float]] = {}
    for target in results["burst"]:

        def of(name: str, figure: str, target: str = target) -> float:
            return median(result.get(figure, 0.0) for result in results[name][target])

        rows[target] = {
            "burst_cpu_ms": of("burst", "cpu_ms"),
            "paced_cpu_ms": of("paced", "cpu_ms"),
            "streams_per_second": median(r["requests"] / r["seconds"] for r in results["burst"][target]),
            "rss_mib": of("burst", "rss_mib"),
            "first_p50_ms": of("first byte", "first_p50_ms"),
            "first_p99_ms": of("first byte", "first_p99_ms"),
        }
    for row in rows.values():
        row["added_p50_ms"] = row["first_p50_ms"] - rows["direct"]["first_p50_ms"]
        row["added_p99_ms"] = row["first_p99_ms"] - rows["direct"]["first_p99_ms"]
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    head = ("", "CPU/request burst", "paced", "ratio to ours", "streams/s", "RSS MiB", "first byte +p50", "+p99")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    ours = rows["appliance"]
    for name, row in rows.items():
        ratio = f"{row['burst_cpu_ms'] / ours['burst_cpu_ms']:.2f} / {row['paced_cpu_ms'] / ours['paced_cpu_ms']:.2f}"
        cells = (
            name,
            f"{row['burst_cpu_ms']:.2f} ms" if row["burst_cpu_ms"] else "-",
            f"{row['paced_cpu_ms']:.2f} ms" if row["paced_cpu_ms"] else "-",
            ratio if row["burst_cpu_ms"] else "-",
            f"{row['streams_per_second']:.0f}",
            f"{row['rss_mib']:.0f}" if row["rss_mib"] else "-",
            f"{row['added_p50_ms']:+.2f} ms" if name != "direct" else f"({row['first_p50_ms']:.2f} ms)",
            f"{row['added_p99_ms']:+.2f} ms" if name != "direct" else f"({row['first_p99_ms']:.2f} ms)",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", help="the vllm-router command; default: from PATH")
    parser.add_argument("--litellm", help="the litellm command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every figure and the machine here")
    given = parser.parse_args()
    targets = [Target("appliance", appliance)]
    if shutil.which("nginx"):
        targets.append(Target("nginx", nginx))
    if command := given.router or shutil.which("vllm-router"):
        targets.append(Target("vllm-router", router(command)))
    if given.litellm:
        targets.append(Target("litellm", litellm(given.litellm), share=0.1))
    about = {**describe(), "load_before": os.getloadavg(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    with tempfile.TemporaryDirectory(prefix="gwb-") as directory:
        results = {name: one_load(name, targets, given.rounds, Path(directory)) for name in LOADS}
        memory = measure_memory(Path(directory))
    rows = summary(results)
    print(table(rows))
    print(f"\n{memory.in_words}")
    if given.json:
        found = {"machine": about, "summary": rows, "memory": asdict(memory), "rounds": results}
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
