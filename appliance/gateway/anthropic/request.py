"""A request to /v1/messages as one to /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.gateway.anthropic.content import chat_messages
from appliance.gateway.anthropic.tools import Forced, choice, functions
from appliance.gateway.fields import checked, invalid, optional, required

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client wants of the answer, and the engine's request for it."""

    model: str
    stream: bool
    request: Json
    thinking: bool = False
    """Whether the answer may have thinking blocks: without being asked, Anthropic's never has."""
    stops: tuple[str, ...] = ()
    forced: Forced | None = None


THINKING: Mapping[bool, Json] = {on: {"enable_thinking": on, "thinking": on} for on in (True, False)}
"""What chat templates call it: most the first, DeepSeek's and a few others the second."""


def translate(body: Json) -> Asked:
    """Raises RequestError. What Anthropic's servers would do with a field that is not read here is nothing that an
    answer of this appliance depends on (metadata, service tiers, caching, beta features)."""
    model, messages = required(body, "model", str), required(body, "messages", list)
    if not messages:
        raise invalid("messages", "must have at least one message")
    if body.get("mcp_servers"):
        raise invalid(
            "mcp_servers", "are called by Anthropic's servers, and by nothing here: give their tools in `tools`"
        )
    stops = tuple(checked(stop, str, "stop_sequences") for stop in optional(body, "stop_sequences", list) or ())
    stream = optional(body, "stream", bool) or False
    request: Json = {"model": model, **_prompt(body, messages), "max_tokens": _limit(body), "stream": stream}
    if stream:
        # Usage with every chunk is vLLM's: so the first event knows the length of the prompt, as Anthropic's does.
        request["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    request |= sampling(body)
    if stops:
        request["stop"] = list(stops)
    if user := (optional(body, "metadata", dict) or {}).get("user_id"):
        request["user"] = str(user)
    thinking = _think(body, request)
    forced = _choose(body, request)
    return Asked(model, stream, request, thinking, stops, forced)


def translate_count(body: Json) -> tuple[str, Json]:
    """The model, and the request to /tokenize that counts what /v1/messages would send."""
    model, messages = required(body, "model", str), required(body, "messages", list)
    return model, {"model": model, **_prompt(body, messages)}


def sampling(body: Mapping[str, Any]) -> Json:
    found: Json = {name: optional(body, name, float) for name in ("temperature", "top_p")}
    found["top_k"] = optional(body, "top_k", int)
    return {name: value for name, value in found.items() if value is not None}


def _prompt(body: Json, messages: list[Any]) -> Json:
    prompt: Json = {"messages": chat_messages(body.get("system"), messages)}
    if tools := functions(optional(body, "tools", list)):
        prompt["tools"] = tools
    if prompt["messages"] and prompt["messages"][-1]["role"] == "assistant":
        prompt |= _continued(prompt["messages"][-1])
    return prompt


def _continued(last: Json) -> Json:
    """A last turn of the assistant's is the beginning of its answer."""
    if last.get("tool_calls"):
        raise invalid("messages", "the last message has `tool_use` blocks: their `tool_result` blocks must follow")
    if last["content"] != last["content"].rstrip():
        raise invalid("messages", "final assistant content cannot end with trailing whitespace")
    return {"continue_final_message": True, "add_generation_prompt": False}


def _limit(body: Json) -> int:
    limit = required(body, "max_tokens", int)
    if limit < 1:
        raise invalid("max_tokens", "must be at least 1")
    return limit


def _think(body: Json, request: Json) -> bool:
    """`thinking` as what chat templates and vLLM understand. A budget is for the engine's reasoning parser to know."""
    config = optional(body, "thinking", dict) or {"type": "disabled"}
    kind = required(config, "type", str, "thinking.")
    if kind not in {"enabled", "adaptive", "between_tools", "disabled"}:
        raise invalid("thinking.type", "must be `enabled`, `adaptive` or `disabled`")
    thinking = kind != "disabled"
    if kind != "adaptive":  # which leaves it to the model
        request["chat_template_kwargs"] = THINKING[thinking]
    if thinking and (effort := optional(optional(body, "output_config", dict) or {}, "effort", str, "output_config.")):
        request["reasoning_effort"] = effort
    return thinking and config.get("display") != "omitted"


def _choose(body: Json, request: Json) -> Forced | None:
    """Adds the form that the answer has to have: a call of a tool, or JSON after a schema."""
    asked = (optional(body, "output_config", dict) or {}).get("format") or body.get("output_format")
    if asked is not None:
        schema = required(checked(asked, dict, "output_config.format"), "schema", dict, "output_config.format.")
        request["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    added, forced = choice(optional(body, "tool_choice", dict), request.get("tools", []))
    if forced is not None and request.get("continue_final_message"):
        raise invalid("tool_choice", "a call of a tool cannot continue the assistant's last message")
    request |= added
    return forced
