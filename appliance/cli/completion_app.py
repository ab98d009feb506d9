"""`appliance completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Whose script to print.", show_default=False)]) -> None:
    """Print the script that lets a shell complete commands and options.

    For one session: `source <(appliance completion bash)`, and in zsh the same after `compinit`. For every one, write
    it to `~/.local/share/bash-completion/completions/appliance`, to `_appliance` in a directory of zsh's `fpath`, or to
    `~/.config/fish/completions/appliance.fish`.
    """
    from typer._completion_shared import get_completion_script  # what its `--show-completion` prints, for any shell

    print(get_completion_script(prog_name="appliance", complete_var="_APPLIANCE_COMPLETE", shell=shell))
