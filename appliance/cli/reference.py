"""docs/reference/cli.md, generated from the commands themselves.

python -m appliance.cli.reference --write
python -m appliance.cli.reference --check
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer.main

from appliance import generated
from appliance.cli.app import app

PAGE = "docs/reference/cli.md"
WRITE = "python -m appliance.cli.reference --write"

_INTRODUCTION = f"""# Commands

<!-- Generated from appliance/cli by `{WRITE}`; edit the help texts there. -->

Results go to standard output, everything else to standard error. Exit codes: 0 ok, 1 expected failure, 2 usage, 3 a
fault of the appliance itself (with a report to send), 130 interrupted. Every command has `--help`.
"""


def outputs() -> Mapping[str, str]:
    return {PAGE: reference_markdown()}


def reference_markdown() -> str:
    root = typer.main.get_command(app)
    return "\n".join([_INTRODUCTION, *_commands(root, "appliance")]).rstrip() + "\n"


def _commands(command: Any, path: str) -> Iterator[str]:
    """`command` is click's; a group is told by its commands."""
    children = getattr(command, "commands", {})
    if not children or path.count(" "):
        yield f"## `{path}`\n"
        yield f"{_prose(command.help or '')}\n"
        yield from _parameters(command, path, group=bool(children))
    for name, child in sorted(children.items()):
        if not child.hidden:
            yield from _commands(child, f"{path} {name}")


def _parameters(command: Any, path: str, *, group: bool) -> Iterator[str]:
    given = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    words = [_argument(each) for each in given if each.param_type_name == "argument"]
    options = [each for each in given if each.param_type_name == "option"]
    usage = [path, *(["[OPTIONS]"] if options else []), *words, *(["COMMAND …"] if group else [])]
    yield f"```\n{' '.join(usage)}\n```\n"
    if not given:
        return
    yield "| | meaning |\n| --- | --- |"
    for each in given:
        name = _argument(each) if each.param_type_name == "argument" else _option(each)
        yield f"| `{name}` | {_cell(each)} |"
    yield ""


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name.strip('[]')}]"


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return "`, `".join(names) + value


def _cell(parameter: Any) -> str:
    text = _prose(parameter.help or "").replace("|", "\\|")
    if parameter.is_flag if hasattr(parameter, "is_flag") else False:
        return text
    shown = parameter.show_default if hasattr(parameter, "show_default") else False
    if isinstance(shown, str):
        return f"{text} Default: {shown}."
    default = parameter.default
    return f"{text} Default: `{default}`." if shown and isinstance(default, str | int | float) else text


def _prose(text: str) -> str:
    """Paragraphs as lines of their own."""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(text).replace("\f", "").split("\n\n")]
    return "\n\n".join(paragraphs).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    return generated.command("appliance.cli.reference", __doc__, outputs, arguments)


if __name__ == "__main__":
    sys.exit(main())
