"""`appliance bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    model: Annotated[str | None, typer.Option(help="The model.", show_default="the only one")] = None,
    concurrency: Annotated[str, typer.Option(help="Clients at once, one level after the other.")] = "1,2,4,8",
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of each prompt, no two alike.")] = 128,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 64,
    prefix_len: Annotated[int, typer.Option(min=0, help="Tokens before them that all prompts share.")] = 0,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="Requests of each level.", show_default="8 for each client"),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Instead: seconds of each level.", show_default=False)
    ] = None,
    endpoint: Annotated[str, typer.Option(help="openai-chat (/v1/chat/completions) or openai (/v1/completions).")] = (
        "openai-chat"
    ),
    ignore_eos: Annotated[bool, typer.Option(help="Have every answer be as long as asked.")] = True,
    seed: Annotated[int, typer.Option(help="The same prompts again.")] = 0,
    url: Annotated[
        str | None,
        typer.Option(help="Any OpenAI-compatible server.", show_default="the running appliance"),
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Allow an address of another machine.")] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Reads the API key from here.", show_default="$OPENAI_API_KEY")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every figure there; - is stdout.", show_default=False)
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the sweep.", show_default=False)] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show an earlier result beneath, vLLM's too.", show_default=False),
    ] = None,
) -> None:
    """Put a load on a model and show how it was served: percentiles of latencies, tokens per second.

    TTFT is the time to the first streamed chunk, ITL the time between two chunks, TPOT the time per output token after
    the first, E2EL the time to the last chunk: as in `vllm bench serve`, whose names the JSON uses.

    The same load there: --backend openai-chat --dataset-name random --ignore-eos, with --max-concurrency for
    --concurrency, --num-prompts for --requests, and --random-input-len, --random-output-len, --random-prefix-len.

    Ctrl-C shows what there is. Exits 1 if a request failed, 130 if it was interrupted.
    """
    from appliance.bench.load import PATHS, Load
    from appliance.cli.bench import Files, bench

    if endpoint not in PATHS:
        raise typer.BadParameter(f"is {' or '.join(PATHS)}", param_hint="--endpoint")
    if requests is not None and duration is not None:
        raise typer.BadParameter("says how long a level is, and so does --requests: give one", param_hint="--duration")
    load = Load(
        model=model or "",
        concurrency=_levels(concurrency),
        input_tokens=input_len,
        output_tokens=output_len,
        prefix_tokens=prefix_len,
        requests=requests,
        duration=duration,
        seed=seed,
        endpoint=endpoint,
        ignore_eos=ignore_eos,
    )
    if code := bench(load, url=url, remote=remote, key_file=key_file, files=Files(json, plot, compare)):
        raise typer.Exit(code)


def _levels(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter("is whole numbers with commas between them: 1,2,4,8", param_hint="--concurrency")
    return tuple(int(part) for part in parts)
