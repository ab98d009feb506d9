"""What the fake engine says when a request asks for more than text. Standard library alone, like the engine itself."""

from __future__ import annotations

import json
import re
from typing import Any

Json = dict[str, Any]


def instance(schema: Any) -> Any:
    """The smallest value that obeys a JSON schema, as an engine with a grammar is held to one."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return instance(schema[union][-1])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: instance(inner) for name, inner in (schema.get("properties") or {}).items()}
        case "array":
            return [instance(schema.get("items"))]
        case "string":
            return "text"
        case "integer" | "number":
            return int(schema.get("minimum", 1))
        case "boolean":
            return True
    return None


def demanded_calls(body: Json) -> list[Json]:
    """The calls that `tool_choice` demands, or `fake.call` plays. As in vLLM, a schema is obeyed for strict tools only:
    otherwise the arguments are a bare string."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    if choice == "none" or not tools:
        return []
    wanted = (body.get("fake") or {}).get("call")
    if isinstance(choice, dict):
        wanted = (choice.get("function") or choice)["name"]
        tools = [tool for tool in tools if tool["name"] == wanted]
    elif choice == "required":
        tools = tools if body.get("parallel_tool_calls", True) else tools[:1]
    else:
        tools = [tool for tool in tools if tool["name"] == wanted]
    return [
        {
            "id": f"chatcmpl-tool-{number:032x}",
            "type": "function",
            "function": {"name": tool["name"], "arguments": _arguments(tool)},
        }
        for number, tool in enumerate(tools)
    ]


def _arguments(tool: Json) -> str:
    if not tool.get("strict"):
        return '"Paris"'
    return json.dumps(instance(tool.get("parameters") or {"type": "object"}))


def formatted(body: Json) -> str | None:
    """The text that `response_format`, or `text.format` of a response, demands."""
    form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    match form.get("type"):
        case "json_object":
            return '{"answer": "yes"}'
        case "json_schema":
            return json.dumps(instance((form.get("json_schema") or form).get("schema")))
    return None


def until_stop(text: str, stop: Any) -> str:
    """The text before the first of these strings."""
    stops = [stop] if isinstance(stop, str) else stop or []
    ends = [text.find(each) for each in stops if each and each in text]
    return text[: min(ends)] if ends else text


def pieces(text: str) -> list[str]:
    """The text as tokens: words, each with the space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or ([text] if text else [])


def logprobs(words: list[str], top: int) -> Json:
    return {"content": [_token(word, top) for word in words]}


def _token(word: str, top: int) -> Json:
    entry = {"token": word, "logprob": -0.25, "bytes": list(word.encode())}
    return {**entry, "top_logprobs": [{**entry, "token": f"{word}{rank}" if rank else word} for rank in range(top)]}


def form_fields(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a multipart form by name, files included."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    found = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        if name:
            found[name[1].decode()] = value.removesuffix(b"\r\n")
    return found
