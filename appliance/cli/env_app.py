"""`appliance env …`."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json

env_app = typer.Typer(help="Engine environments: the Python environments that engines run in.", no_args_is_help=True)


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
