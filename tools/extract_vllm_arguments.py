"""Print every argument of the installed vLLM's API server as JSON, for appliance/engines/arguments/.

    ENGINE_PYTHON tools/extract_vllm_arguments.py > appliance/engines/arguments/vllm-0.32.json

Run it by path under an engine environment's interpreter. The result is `{"vllm": version, "arguments": {name: …}}`,
one argument a line, by its name in snake_case, each with

    flag      the long option, and for type `bool` also
    negative  the option that says no; absent where the flag can only be switched on
    type      int | float | str | bool | json (one JSON value in one word) | list (of `items`, after one flag)
    items     for type `list`: the type of one item
    repeat    true: a `list` whose flag is given once per item
    suffix    true: an `int` that is also taken as `4k`, `4K`, `1.5G`
    also      further words that are taken literally beside the type (`auto`)
    text      true: a `json` that is also taken as plain text
    bare      true: a `str` whose flag may stand alone (a boolean true)
    nullable  true: the word `None` (or an empty one) gives null
    choices   the only values taken, of the list's items where the type is `list`
    default   where it is a plain value; absent where vLLM decides by model and machine or where it is a structure
    help      its first clause, at most 120 characters
    deprecated  true where vLLM says so
"""

# ruff: noqa: SLF001 - argparse shows its actions in no other way
from __future__ import annotations

import argparse
import enum
import inspect
import json
import re
import sys
from typing import Any

_LONGEST_HELP = 120
_LITERAL = (str, int, float, bool)
_BY_FUNCTION = {
    "human_readable_int": {"type": "int", "suffix": True},
    "human_readable_int_or_auto": {"type": "int", "suffix": True, "also": ["auto"]},
    "union_dict_and_str": {"type": "json", "text": True},
    "parse_dataclass": {"type": "json"},
    "loads": {"type": "json"},
    "<lambda>": {"type": "str"},  # a normalisation of case and hyphens
}


def main() -> None:
    sys.argv = [sys.argv[0], "--help"]  # without it vLLM leaves the help texts out
    import vllm
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm"))
    arguments = {
        action.dest: describe(action)
        for action in parser._actions
        if action.option_strings and not isinstance(action, argparse._HelpAction)
    }
    lines = (
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in sorted(arguments.items())
    )
    version = json.dumps(vllm.__version__.partition("+")[0])
    sys.stdout.write(f'{{"vllm": {version}, "arguments": {{\n' + ",\n".join(lines) + "\n}}\n")


def describe(action: argparse.Action) -> dict[str, Any]:
    long = [option for option in action.option_strings if option.startswith("--")]
    argument: dict[str, Any] = {"flag": long[0], **kind(action)}
    if isinstance(action, argparse.BooleanOptionalAction):
        argument["negative"] = next(option for option in long if option.startswith("--no-"))
    if action.choices:
        argument["choices"] = [choice for choice in map(plain, action.choices) if choice is not None]
    default = plain(action.default)
    if isinstance(default, _LITERAL) and default != argparse.SUPPRESS:
        argument["default"] = default
    if isinstance(default, int) and not isinstance(default, bool) and argument["type"] == "str":
        argument["type"] = "int"  # an enumeration of numbers (`optimization_level`), parsed later
    argument["help"] = first_clause(action.help or "")
    if "Deprecated" in type(action).__name__ or re.search(
        r"is deprecated|^\W*deprecated", action.help or "", re.IGNORECASE
    ):
        argument["deprecated"] = True
    return argument


def kind(action: argparse.Action) -> dict[str, Any]:
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        return {"type": "bool"}
    value = kind_of_word(action.type)
    if isinstance(action, argparse._AppendAction):
        return {"type": "list", "items": value["type"], "repeat": True}
    if action.nargs in ("+", "*"):
        nullable = {"nullable": True} if value.pop("nullable", False) else {}
        return {"type": "list", "items": value["type"], **nullable}
    if action.nargs == "?":
        return {**value, "bare": True}
    return value


def kind_of_word(parse: Any) -> dict[str, Any]:
    """vLLM wraps a type in `optional_type` and `parse_type`; what they wrap is in their closure."""
    if parse is None or parse is str:
        return {"type": "str"}
    if parse in (int, float):
        return {"type": parse.__name__}
    wrapped = inspect.getclosurevars(parse).nonlocals.get("return_type")
    if wrapped is not None:
        nullable = {"nullable": True} if parse.__name__ == "_optional_type" else {}
        return {**kind_of_word(wrapped), **nullable}
    try:
        return dict(_BY_FUNCTION[parse.__name__])
    except KeyError:
        raise SystemExit(f"a type this tool has not met: {parse!r}; add it to _BY_FUNCTION") from None


def plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def first_clause(text: str) -> str:
    text = re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\[\])", r"\1", text.replace("%%", "%").split("\n\n")[0])
    text = re.sub(r"\s+", " ", text.replace("`", "").replace("**", "")).strip()
    text = re.split(r"(?<=[a-z0-9)'\"])(?<!e\.g)[.:;] (?=[A-Z-])", text)[0].rstrip(".:; ")
    if len(text) > _LONGEST_HELP:
        text = text[: _LONGEST_HELP - 1].rsplit(" ", 1)[0].rstrip(",;:. ") + "…"
    return text


if __name__ == "__main__":
    main()
