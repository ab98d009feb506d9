"""The command tree. A command's code is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance import __version__
from appliance.errors import ApplianceError

app = typer.Typer(
    name="appliance",
    help="Serve the models that model-runner.yaml names, and keep them served.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
env_app = typer.Typer(help="Engine environments: the Python environments that engines run in.", no_args_is_help=True)
key_app = typer.Typer(help="Client keys.", no_args_is_help=True)
app.add_typer(env_app, name="env")
app.add_typer(key_app, name="key")

File = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="The configuration.  [default: ./model-runner.yaml]", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Profile = Annotated[str | None, typer.Option(help="Merge this profile beneath the file: a name or a path.")]
Backend = Annotated[str | None, typer.Option(help="The default backend, instead of the file's.")]
ModelSource = Annotated[
    str | None, typer.Option("--model", help="Serve this source under the name `default`, with or without a file.")
]


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
    profile: str | None = None, backend: str | None = None, model: str | None = None, port: int | None = None
) -> dict[str, Any]:
    """Command-line flags by the key of the file that each stands for; None where a flag was not given."""
    return {"profile": profile, "backend": backend, "models.default.source": model, "server.port": port}


@app.command()
def up(
    file: File = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return once the models are ready.")] = False,
    watch: Annotated[bool, typer.Option(help="Put every save of the file in force.")] = True,
    profile: Profile = None,
    backend: Backend = None,
    model: ModelSource = None,
    port: Annotated[int | None, typer.Option(help="The gateway's port, instead of the file's.")] = None,
) -> None:
    """Make it so: provision the engine, fetch the weights, start the models, serve them.

    Stays in the foreground and stops everything on Ctrl-C. With -d it goes on in the background.
    """
    from appliance.cli import up as commands

    overrides = _overrides(profile, backend, model, port)
    if not detach:
        commands.up(file, overrides, watch=watch)
        return
    from appliance.cli.loading import read

    read(file, overrides)  # what is wrong with the file belongs on this terminal, not in the background's log
    flags = {"--file": file, "--profile": profile, "--backend": backend, "--model": model, "--port": port}
    arguments = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    commands.up_detached(arguments if watch else [*arguments, "--no-watch"])


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
def apply(json: Json = False) -> None:
    """Read the file again now, as saving it does, and say what that changed."""
    from appliance.cli.inspect import apply

    apply(as_json=json)


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
    """`down`, then `up -d`."""
    from appliance.cli.up import down

    down(missing_ok=True)
    up(file=file, detach=True, profile=profile, backend=backend)


@app.command()
def status(json: Json = False) -> None:
    """How every model is, and why. Exits 1 unless all declared models are ready."""
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
def models(file: File = None, json: Json = False) -> None:
    """The declared models and which of them are on this machine."""
    from appliance.cli.weights import show

    show(file, as_json=json)


@env_app.command("install")
def env_install(file: File = None) -> None:
    """Install the engine environments that the file needs. Safe to run again; a broken-off one goes on."""
    from appliance.cli.env import install

    install(file)


@env_app.command("list")
def env_list(json: Json = False) -> None:
    """The environments on this machine."""
    from appliance.cli.env import show

    show(as_json=json)


@env_app.command("verify")
def env_verify(file: File = None, json: Json = False) -> None:
    """Prove that vLLM in each environment selects the expected platform; fail if it does not."""
    from appliance.cli.env import verify

    verify(file, as_json=json)


@env_app.command("remove")
def env_remove(name: Annotated[str, typer.Argument(help="A name from `env list`.")]) -> None:
    """Delete an environment that no engine is using."""
    from appliance.cli.env import remove

    remove(name)


@key_app.command("create")
def key_create(
    name: Annotated[str, typer.Argument(help="Who will hold the key.")],
    file: File = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A glob of models it may use; repeatable.")
    ] = None,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="inference, metrics or admin; repeatable.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Last day on which it is accepted, as 2027-06-30.")] = None,
) -> None:
    """Print a new key once, and write its hash into the file."""
    from appliance.cli.key import create

    create(file, name, models=models or [], scopes=scopes or [], expires=expires)


@key_app.command("list")
def key_list(file: File = None, json: Json = False) -> None:
    """The keys in the file: names, scopes and limits, never the keys."""
    from appliance.cli.key import show

    show(file, as_json=json)


@key_app.command("revoke")
def key_revoke(name: Annotated[str, typer.Argument(help="The key's name.")], file: File = None) -> None:
    """Remove a key from the file."""
    from appliance.cli.key import revoke

    revoke(file, name)


@app.command()
def start(file: File = None) -> None:
    """The same as `up -d`."""
    up(file=file, detach=True)


app.command("install", help="The same as `env install`.")(env_install)
app.command("stop", help="The same as `down`.")(down)
