"""Tools, and the choice of one that a model is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.gateway.anthropic.obedience import obeys
from appliance.gateway.anthropic.reply import arguments, failed
from appliance.gateway.fields import invalid, objects, optional, required

Json = dict[str, Any]

SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_")
"""Types of tools that run on Anthropic's own servers. Nothing runs them here, so no model is told of them."""


@dataclass(frozen=True, slots=True)
class Forced:
    """The tools of which the answer must be a call: name and schema of the arguments.

    vLLM holds a model to a schema only through a tool parser that the model may lack, or not at all. A grammar made
    from the schemas holds every model in every engine, and the answer's text is then the call.
    """

    schemas: Mapping[str, Json]

    @property
    def only(self) -> str | None:
        """The name of the tool where there is but one: the text is its arguments alone."""
        return next(iter(self.schemas)) if len(self.schemas) == 1 else None

    def call(self, text: str) -> tuple[str, Json]:
        """Name and arguments of the call that the answer's text is. Raises RequestError where it is none."""
        found = arguments(text, self.only or "any")
        name, given = (self.only, found) if self.only else (str(found.get("name")), found.get("arguments"))
        if name not in self.schemas or not isinstance(given, dict) or not obeys(given, self.schemas[name]):
            raise failed(
                f"the engine did not hold the model to `tool_choice`: the arguments of `{name}` are not in order"
            )
        return name, given

    def response_format(self) -> Json:
        schema = _one_of(self.schemas) if self.only is None else self.schemas[self.only]
        return {"type": "json_schema", "json_schema": {"name": "tool_call", "schema": schema, "strict": True}}


def _one_of(schemas: Mapping[str, Json]) -> Json:
    """A call of any of these tools. References inside a schema go on meaning what they meant at its own root."""
    places = {name: f"tool{index}" for index, (name, schema) in enumerate(schemas.items()) if _refers(schema)}
    shared = {place: _moved(schemas[name], f"#/$defs/{place}/") for name, place in places.items()}
    calls = [
        _envelope(name, {"$ref": f"#/$defs/{places[name]}"} if name in places else schema)
        for name, schema in schemas.items()
    ]
    return {"anyOf": calls, "$defs": shared} if shared else {"anyOf": calls}


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "$ref" in schema or any(map(_refers, schema.values()))
    return isinstance(schema, list) and any(map(_refers, schema))


def _moved(schema: Any, root: str) -> Any:
    if isinstance(schema, dict):
        moved = {name: _moved(value, root) for name, value in schema.items()}
        if isinstance(reference := schema.get("$ref"), str):
            moved["$ref"] = reference.replace("#/", root, 1) if reference != "#" else root.removesuffix("/")
        return moved
    return [_moved(item, root) for item in schema] if isinstance(schema, list) else schema


def _envelope(name: str, schema: Json) -> Json:
    return {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": [name]}, "arguments": schema},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def functions(tools: list[Any] | None) -> list[Json]:
    """A request's `tools` as OpenAI's."""
    return [
        _function(tool, where)
        for where, tool in objects(tools or [], "tools")
        if not str(tool.get("type") or "").startswith(SERVER_TOOLS)
    ]


def _function(tool: Json, where: str) -> Json:
    name = required(tool, "name", str, f"{where}.")
    if tool.get("input_schema") is None and tool.get("type") not in {None, "custom"}:
        raise invalid(
            f"{where}.type", f"`{tool['type']}` is known to Anthropic's models only: give the tool an `input_schema`"
        )
    function: Json = {"name": name, "parameters": required(tool, "input_schema", dict, f"{where}.")}
    if description := optional(tool, "description", str, f"{where}."):
        function["description"] = description
    if (strict := optional(tool, "strict", bool, f"{where}.")) is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def choice(given: Json | None, offered: list[Json]) -> tuple[Json, Forced | None]:
    """What `tool_choice` adds to a request that has these functions, and what its answer is held to."""
    kind = "auto" if given is None else required(given, "type", str, "tool_choice.")
    if not offered:
        if kind in {"any", "tool"}:
            raise invalid("tool_choice", "there is no tool to choose; `tools` is missing or has server tools only")
        return {}, None
    single = {"parallel_tool_calls": False} if given and given.get("disable_parallel_tool_use") is True else {}
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in offered}
    match kind:
        case "auto":
            return {"tool_choice": "auto", **single}, None
        case "none":
            return {"tool_choice": "none"}, None
        case "any":
            forced = Forced(schemas)
        case "tool":
            name = required(given or {}, "name", str, "tool_choice.")
            if name not in schemas:
                raise invalid("tool_choice.name", f"there is no tool `{name}` in `tools`")
            forced = Forced({name: schemas[name]})
        case _:
            raise invalid("tool_choice.type", "must be `auto`, `any`, `tool` or `none`")
    # `none` keeps the tools in the prompt, and the engine's tool parser out of the answer.
    return {"tool_choice": "none", "response_format": forced.response_format()}, forced
