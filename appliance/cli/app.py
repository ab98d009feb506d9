"""The command tree. A command's code is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from appliance import __version__
from appliance.cli.bench_app import bench
from appliance.cli.chaos_app import chaos
from appliance.cli.completion_app import completion
from appliance.cli.configuration_app import config, explain, validate
from appliance.cli.doctor_app import doctor
from appliance.cli.env_app import env_app, env_install
from appliance.cli.generations_app import apply, diff, history, plan, rollback
from appliance.cli.key_app import key_app
from appliance.cli.migrate_app import migrate
from appliance.cli.models_app import models_app
from appliance.cli.provider_app import compose_app
from appliance.cli.service_app import service_app
from appliance.cli.status_app import logs, ps, status
from appliance.cli.up_app import down, restart, start, up
from appliance.cli.weights_app import fit, lock, pull
from appliance.errors import ApplianceError

_COMMANDS = (
    up, down, plan, apply, history, diff, rollback, restart, status, ps, logs, validate, config, explain, pull, lock,
    fit, migrate, doctor, chaos, bench, completion, start,
)  # fmt: skip
"""In the order in which `--help` lists them."""

app = typer.Typer(
    name="appliance",
    help="Serve the models that model-runner.yaml names, and keep them served.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in _COMMANDS:
    app.command()(command)
app.command("install", help="The same as `env install`.")(env_install)
app.command("stop", help="The same as `down`.")(down)
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
        if isinstance(bug, OSError) and bug.errno in (errno.ENOSPC, errno.EDQUOT):
            from appliance.cli.output import failure

            where = f" of `{bug.filename}`" if bug.filename else ""
            failure(
                ApplianceError(f"the disk{where} is full", hint="`appliance doctor` says which one, and what is on it")
            )
            return 1
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
