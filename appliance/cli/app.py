"""The command tree. A command's code is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance import __version__
from appliance.cli.env_app import env_app, env_install
from appliance.cli.key_app import key_app
from appliance.cli.models_app import models_app
from appliance.cli.options import Backend, File, Json, ModelSource, Profile
from appliance.cli.provider_app import compose_app
from appliance.cli.service_app import service_app
from appliance.errors import ApplianceError

app = typer.Typer(
    name="appliance",
    help="Serve the models that model-runner.yaml names, and keep them served.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(compose_app, name="compose")
app.add_typer(env_app, name="env")
app.add_typer(key_app, name="key")
app.add_typer(models_app, name="models")
app.add_typer(service_app, name="service")


def run(arguments: list[str]) -> int:
    """The outermost frame of every command: errors become messages and exit codes here and nowhere else."""
    try:
        app(arguments, prog_name="appliance")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except ApplianceError as error:
        from appliance.cli.output import failure

        failure(error)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone (`appliance logs | head`); Python would complain again while exiting.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as bug:  # noqa: BLE001 - the CLI's outermost frame
        from appliance.cli.bug import report

        report(bug, arguments)
        return 3
    return 0


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"appliance {__version__}")
        raise typer.Exit


def _overrides(
    profile: str | None = None,
    backend: str | None = None,
    model: str | None = None,
    port: int | None = None,
    metrics: bool | None = None,
) -> dict[str, Any]:
    """Command-line flags by the key of the file that each stands for; None where a flag was not given."""
    return {
        "profile": profile,
        "backend": backend,
        "models.default.source": model,
        "server.port": port,
        "server.metrics": metrics,
    }


@app.command()
def up(
    file: File = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return once the models are ready.")] = False,
    watch: Annotated[bool, typer.Option(help="Put every save of the file in force.")] = True,
    locked: Annotated[bool, typer.Option("--locked", help="Serve nothing but what model-runner.lock has.")] = False,
    profile: Profile = None,
    backend: Backend = None,
    model: ModelSource = None,
    port: Annotated[int | None, typer.Option(help="The gateway's port, instead of the file's.")] = None,
    metrics: Annotated[
        bool | None,
        typer.Option("--metrics/--no-metrics", help="Serve Prometheus metrics at /metrics.", show_default=False),
    ] = None,
) -> None:
    """Make it so: provision the engine, fetch the weights, start the models, serve them.

    Stays in the foreground and stops everything on Ctrl-C. With -d it goes on in the background.
    """
    from appliance.cli import up as commands

    overrides = _overrides(profile, backend, model, port, metrics)
    if not detach:
        commands.up(file, overrides, watch=watch, locked=locked)
        return
    from appliance.cli.loading import read

    loaded = read(file, overrides)  # what is wrong belongs on this terminal, not in the background's log
    if locked:
        from appliance.cli.lock import lock_of

        lock_of(loaded.path)
    flags = {"--file": file, "--profile": profile, "--backend": backend, "--model": model, "--port": port}
    arguments = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    arguments += [] if watch else ["--no-watch"]
    arguments += ["--locked"] if locked else []
    arguments += [] if metrics is None else ["--metrics" if metrics else "--no-metrics"]
    commands.up_detached(arguments)


@app.command()
def down() -> None:
    """Let requests in flight finish, then stop every engine and the appliance."""
    from appliance.cli.up import down

    down()


@app.command()
def plan(
    file: File = None,
    json: Json = False,
    detailed_exitcode: Annotated[
        bool,
        typer.Option("--detailed-exitcode", help="Exit 2 where something would change."),
    ] = False,
) -> None:
    """What saving the file as it is now would do, with the cost of each change. Nothing is done."""
    from appliance.cli.plan import plan

    if not plan(file, as_json=json) and detailed_exitcode:
        raise typer.Exit(2)


@app.command()
def apply(
    if_match: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Only what `plan` showed under this tag; else nothing is done."),
    ] = None,
    json: Json = False,
) -> None:
    """Read the file again now, as saving it does, and say what that changed."""
    from appliance.cli.inspect import apply

    apply(tag=if_match, as_json=json)


@app.command()
def history(json: Json = False) -> None:
    """Every generation of the file that was put in force, and what came of it."""
    from appliance.cli.history import show

    show(as_json=json)


@app.command()
def diff(
    before: Annotated[int, typer.Argument(help="A generation from `history`.")],
    after: Annotated[int | None, typer.Argument(help="Another.  [default: the last]", show_default=False)] = None,
) -> None:
    """What the file said in two generations."""
    from appliance.cli.history import diff

    diff(before, after)


@app.command()
def rollback(
    generation: Annotated[
        int | None, typer.Argument(help="A generation.  [default: the last that was ready]", show_default=False)
    ] = None,
) -> None:
    """Write an earlier generation back to the file, and put it in force without dropping a request."""
    from appliance.cli.history import rollback

    rollback(generation)


@app.command()
def restart(file: File = None, profile: Profile = None, backend: Backend = None) -> None:
    """Replace the control process, in its place and with its own options; engines that still match run on.

    With options, or where none runs: `down`, leaving the engines, then `up -d`.
    """
    from appliance.cli import up as commands

    overrides = _overrides(profile, backend)
    if not any(overrides.values()) and file is None and commands.restart():
        return
    from appliance.cli.loading import read

    read(file, overrides)  # before anything is stopped
    commands.down(missing_ok=True, keep_engines=True)
    up(file=file, detach=True, profile=profile, backend=backend)


@app.command()
def status(
    json: Json = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on until Ctrl-C, showing each change.")] = False,
) -> None:
    """How every model is, and why. Exits 1 unless all declared models are ready."""
    if watch:
        from appliance.cli.watch import watch_status

        watch_status(as_json=json)
        return
    from appliance.cli.inspect import show_status

    if not show_status(as_json=json):
        raise typer.Exit(1)


@app.command()
def ps(json: Json = False) -> None:
    """The engine processes."""
    from appliance.cli.inspect import show_engines

    show_engines(as_json=json)


@app.command()
def logs(
    model: Annotated[
        str | None, typer.Argument(help="A model's name.  [default: the appliance itself]", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines arrive.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="Begin this many lines before the end.")] = 50,
) -> None:
    """What an engine, or the appliance in the background, has written."""
    from appliance.cli.inspect import show_logs

    show_logs(model, follow=follow, lines=lines)


@app.command()
def validate(file: File = None, profile: Profile = None) -> None:
    """Check the file and print every problem with its position."""
    from appliance.cli.configuration import validate

    validate(file, _overrides(profile))


@app.command()
def config(
    file: File = None,
    profile: Profile = None,
    format: Annotated[str, typer.Option(help="yaml, json, or schema (the JSON Schema of the file).")] = "yaml",  # noqa: A002
) -> None:
    """The configuration in force: profile, file, environment and flags merged, defaults filled in, secrets masked."""
    from appliance.cli.configuration import show

    show(file, _overrides(profile), format)


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="A key path such as models.smollm2.engine.max_model_len.")],
    file: File = None,
    json: Json = False,
) -> None:
    """The value of one key, who set it, whom that overrode, and what it means."""
    from appliance.cli.configuration import explain

    explain(file, key, as_json=json)


@app.command()
def pull(
    model: Annotated[str | None, typer.Argument(help="A model's name.  [default: all]", show_default=False)] = None,
    file: File = None,
) -> None:
    """Fetch weights before they are needed. A broken-off transfer goes on where it stopped."""
    from appliance.cli.weights import pull

    pull(file, model)


@app.command()
def lock(
    file: File = None,
    check: Annotated[bool, typer.Option("--check", help="Say how things differ from the lock; exit 1 if so.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="With --check: ask whether sources have moved where they come from.")
    ] = False,
    json: Json = False,
) -> None:
    """Write model-runner.lock: every source's revision, every file's SHA-256, the engine's arguments and environment.

    Fetches what is not here yet. `appliance up --locked` then serves these bytes and no others.
    """
    from appliance.cli import lock as commands

    if remote and not check:
        raise typer.BadParameter("only with --check", param_hint="--remote")
    if not check:
        commands.write(file)
    elif not commands.check(file, remote=remote, as_json=json):
        raise typer.Exit(1)


@app.command()
def fit(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|SOURCE]", help="A model's name, or any source.  [default: all]", show_default=False
        ),
    ] = None,
    file: File = None,
    target: Annotated[
        str | None,
        typer.Option(help="Another machine, as chip and memory: m2-16gb, m3-max-64gb.  [default: this one]"),
    ] = None,
    json: Json = False,
) -> None:
    """Which context lengths, and how many sequences at once, fit into memory. Nothing is downloaded but headers.

    Each number is what an engine of that size would take in all; `-` is more than the memory budget. Put the lengths
    under `engine:` as max_model_len and max_num_seqs. Exits 1 where nothing fits.
    """
    from appliance.cli.fit import fit

    if not fit(file, model, target, as_json=json):
        raise typer.Exit(1)


@app.command()
def migrate(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files, or - for standard input.  [default: this directory's Compose files, .env, the environment]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Where model-runner.yaml and profiles/ go.  [default: .]", show_default=False
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The profile's name: profiles/NAME.yaml.")] = "metal",
    target: Annotated[
        str, typer.Option(help="The machine to size for: m1-8gb, m2-pro-16gb, m4-max-128gb, …, or this-machine.")
    ] = "this-machine",
    from_runner: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask a running Docker Model Runner, too.", show_default=False)
    ] = None,
    environment: Annotated[bool, typer.Option("--environment", help="Read this shell's variables, too.")] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF=SOURCE", help="Where the weights of a model are: ai/qwen3=hf:Qwen/Qwen3-8B. May be repeated."
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="What the files are, where that is not plain.", show_default=False)
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Rewrite the files themselves; each is kept as .bak.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    json: Json = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown.", show_default=False)
    ] = None,
) -> None:
    """Turn what runs on Linux today into a profile for Metal, and account for every key.

    Reads Compose files (`models:`, providers, engine services), .env files, Dockerfiles, `docker run`, `docker model`,
    `vllm serve` and `llama-server` command lines, scripts, crontabs and histories, systemd units, `docker inspect` and
    Model Runner's own answers as JSON, docker-agent, Helm values, vLLM's --config, llama-swap, Modelfiles, and LiteLLM.
    Given a model-runner.yaml of an older version, brings that up to date.

    Exits 0 where nothing needs you, and 4 where something does.
    """
    from appliance.cli.migrate import run

    done = run(
        sources or [],
        folder=output,
        name=name,
        target=target,
        kind=kind,
        runner=from_runner,
        process=environment,
        answers=source or [],
        in_place=in_place,
        dry_run=dry_run,
        as_json=json,
        report_file=report,
    )
    if not done:
        raise typer.Exit(4)


@app.command()
def doctor(
    file: File = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes more than a second.")] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write an archive for a bug report, with secrets taken out.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where --bundle writes.  [default: here]", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Find out what is wrong on this machine: each finding with its cause and what to do. Exits 1 if it must be mended.

    Looks at the machine, the file, the state directory, disk, port, proxies, certificates, the clock, memory, engine
    environments, failed engines, and requests that were refused. Nothing is changed, and no secret is shown.
    """
    from appliance.cli.doctor import default_archive, doctor

    archive = output or default_archive() if bundle or output else None
    if not doctor(file, quick=quick, as_json=json, archive=archive):
        raise typer.Exit(1)


@app.command()
def chaos(
    duration: Annotated[float, typer.Option(min=1, help="Seconds of it.")] = 60,
    clients: Annotated[int, typer.Option(min=1, help="Clients that stream all the time.")] = 16,
    seed: Annotated[
        int | None, typer.Option(help="Repeats the moves of an earlier run.  [default: random]", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="standin: engines without a model. file: the models of the file, for real.")
    ] = "standin",
    file: File = None,
    json: Json = False,
) -> None:
    """Prove on this machine that no request is dropped: stream, edit, save garbage, kill engines, and count.

    Runs an appliance of its own in a temporary directory; yours is not touched. Exits 1 if anything was lost but the
    answers of engines that were killed.
    """
    from appliance.cli.chaos import chaos

    if engine not in {"standin", "file"}:
        raise typer.BadParameter("is standin or file", param_hint="--engine")
    if not chaos(duration=duration, clients=clients, seed=seed, engine=engine, file=file, as_json=json):
        raise typer.Exit(1)


@app.command()
def bench(
    model: Annotated[str | None, typer.Option(help="The model.  [default: the only one]", show_default=False)] = None,
    concurrency: Annotated[str, typer.Option(help="Clients at once, one level after the other.")] = "1,2,4,8",
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of each prompt, no two alike.")] = 128,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 64,
    prefix_len: Annotated[int, typer.Option(min=0, help="Tokens before them that all prompts share.")] = 0,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="Requests of each level.  [default: 8 for each client]", show_default=False),
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
        typer.Option(help="Any OpenAI-compatible server.  [default: the running appliance]", show_default=False),
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Allow an address of another machine.")] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Reads the API key from here.  [default: $OPENAI_API_KEY]", show_default=False)
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


@app.command()
def start(file: File = None) -> None:
    """The same as `up -d`."""
    up(file=file, detach=True)


app.command("install", help="The same as `env install`.")(env_install)
app.command("stop", help="The same as `down`.")(down)
