"""`bench`: a load on the running appliance, and how it was served."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import platform
import signal
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from appliance import __version__
from appliance.bench.load import Bench, Load, complaints
from appliance.bench.plot import svg
from appliance.cli import output
from appliance.cli.control import ask
from appliance.cli.progress import shown
from appliance.errors import ApplianceError
from appliance.progress import Progress
from appliance.state import StateDirectory, write_atomic

KEY = "OPENAI_API_KEY"
"""Where `vllm bench serve` and OpenAI's own clients look for it, too."""
COLUMNS = ("CLIENTS", "OK", "FAILED", "REQ/S", "TOKENS/S", "TTFT 50/95/99 ms", "TPOT", "ITL", "E2EL")
STDOUT = Path("-")
INTERRUPTED = 130


@dataclass(frozen=True)
class Files:
    json: Path | None
    """`-` is stdout."""
    plot: Path | None
    compare: Path | None
    """A result of this command, or of `vllm bench serve --save-result`."""


def bench(load: Load, *, url: str | None, remote: bool, key_file: Path | None, files: Files) -> int:
    """The exit code. Where the load names no model it is the only one there is."""
    base = _base(url, remote=remote)
    key = _key(key_file)
    earlier = _earlier(files.compare) if files.compare else []
    for path in (files.json, files.plot):
        if path is not None and path != STDOUT and not path.absolute().parent.is_dir():
            raise ApplianceError(f"there is no directory `{path.absolute().parent}` to write `{path.name}` into")
    load = replace(load, model=load.model or _only_model(base, key))
    with shown() as report:

        def told(level: int, done: int, total: int | None) -> None:
            report(Progress("bench", f"{level} {'client' if level == 1 else 'clients'}, {load.model}", done, total))

        run = Bench(base, key, load, told)
        asyncio.run(_until_interrupted(run))
    _write(run, load, base, files)
    if files.json != STDOUT:
        _print(run, load, earlier)
    if run.stopped:
        return INTERRUPTED
    return int(any(each["failed"] for each in run.runs))


async def _until_interrupted(run: Bench) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.stop)
    await run.run()


def _print(run: Bench, load: Load, earlier: Sequence[Mapping[str, Any]]) -> None:
    output.table(COLUMNS, [*map(_row, run.runs), *(_row(each, mark=" *") for each in earlier)])
    for line in complaints(run.runs):
        output.note(line)
    read = sum(each["total_input_tokens"] for each in run.runs) / max(1, sum(each["completed"] for each in run.runs))
    lengths = f"{read:.0f} tokens in, {load.output_tokens} out"
    output.note(f"{load.model}: {lengths}; TTFT, TPOT, ITL and E2EL are defined as in `vllm bench serve`")
    if earlier:
        output.note("* from the file that --compare names")
    if run.stopped:
        output.note("interrupted: only answers that were complete are counted")


def _row(run: Mapping[str, Any], mark: str = "") -> tuple[str, ...]:
    return (
        f"{run.get('max_concurrency')}{mark}",
        str(run["completed"]),
        str(run.get("failed", 0)),
        f"{run['request_throughput']:.2f}",
        f"{run['output_throughput']:.1f}",
        *(_percentiles(run, metric) for metric in ("ttft", "tpot", "itl", "e2el")),
    )


def _percentiles(run: Mapping[str, Any], metric: str) -> str:
    """vLLM's own results have the median and whichever percentiles were asked for."""
    names = (f"median_{metric}_ms", f"p95_{metric}_ms", f"p99_{metric}_ms")
    return " / ".join(f"{run[name]:.{1 if run[name] < 100 else 0}f}" if name in run else "-" for name in names)


def _write(run: Bench, load: Load, base: str, files: Files) -> None:
    if files.json is not None:
        result = {
            "appliance": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "url": base,
            "load": asdict(load),
            "complete": not run.stopped,
            "runs": run.runs,
        }
        text = json.dumps(result, indent=1)
        if files.json == STDOUT:
            output.data(text)
        else:
            write_atomic(files.json.absolute(), text.encode(), mode=0o644)
    if files.plot is not None and run.runs:
        title = f"{load.model}: {load.prefix_tokens + load.input_tokens} tokens in, {load.output_tokens} out"
        write_atomic(files.plot.absolute(), svg(run.runs, title=title).encode(), mode=0o644)


def _base(url: str | None, *, remote: bool) -> str:
    """Where the load goes: the running appliance, or an address that is this machine's unless `remote` is said."""
    if url is None:
        address = str(ask(StateDirectory.locate(os.environ), "GET", "/admin/v1/status")["address"])
        host, _, port = address.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - listens there, is asked here
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ApplianceError(f"`{url}` is no address to send a load to", hint="write it as http://127.0.0.1:8000")
    if not remote and not _on_this_machine(parts.hostname):
        raise ApplianceError(
            f"`{parts.hostname}` is another machine, and a load is not sent there by accident",
            hint="--remote says that it is meant",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _on_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(KEY) or None
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ApplianceError(f"cannot read the key in `{path}`: {error.strerror}") from error


def _only_model(base: str, key: str | None) -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(f"{base}/v1/models", headers=headers)  # noqa: S310 - http(s), checked above
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            cards = json.load(response)["data"]
    except (URLError, OSError, ValueError, KeyError) as error:
        hint = f"put a key into {KEY}, or name its file with --key-file" if "401" in str(error) else None
        raise ApplianceError(f"{base} does not list its models: {error}", hint=hint) from error
    names = [card["id"] for card in cards if card.get("root", card["id"]) == card["id"]]
    if len(names) != 1:
        raise ApplianceError(
            f"there are {len(names)} models; a load is for one", hint=f"--model {' | '.join(names) or 'NAME'}"
        )
    return str(names[0])


def _earlier(path: Path) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(path.read_text())
        runs = found.get("runs", [found])
        for run in runs:
            _row(run)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ApplianceError(
            f"`{path}` is no result to compare with: {error}",
            hint="give a file that `appliance bench --json` or `vllm bench serve --save-result` wrote",
        ) from error
    return list(runs)
