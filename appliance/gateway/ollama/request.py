"""Requests to /api/chat and /api/generate as an engine's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.gateway import body as bodies
from appliance.gateway.fields import invalid, optional, required
from appliance.gateway.ollama.messages import chat_messages, with_images
from appliance.gateway.ollama.options import (
    check_context,
    check_keep_alive,
    response_format,
    sampling,
    thinking,
    unsupported,
)
from appliance.routing import Route

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client wants of the answer, and the engine's request for it."""

    model: str
    stream: bool
    path: str
    """The engine's."""
    request: Json
    empty: bool = False
    """There is nothing to answer: the model is to be loaded."""
    thoughts: bool = True
    """Whether what the model thinks is shown."""
    keep_alive: object = None
    options: Mapping[str, Any] | None = None

    def check(self, route: Route) -> None:
        """Raises RequestError for what this model's engine was not started for."""
        check_keep_alive(self.keep_alive, route)
        check_context(self.options or {}, route)

    def body(self, route: Route) -> bytes:
        self.check(route)
        request = self.request
        if "max_tokens" in request and request["max_tokens"] is None:
            # No limit, that is: not the model's default either.
            request = {name: value for name, value in request.items() if name != "max_tokens"}
            route = replace(route, defaults={k: v for k, v in route.defaults.items() if k != "max_tokens"})
        return bodies.for_engine(request, None, "max_tokens", route)


def translate_chat(body: Json) -> Asked:
    """Raises RequestError."""
    messages = optional(body, "messages", list) or []
    request = {**_common(body), "messages": chat_messages(messages)}
    if tools := optional(body, "tools", list):
        request |= {"tools": tools, "tool_choice": "auto"}
    return _asked(body, "/v1/chat/completions", request, empty=not messages)


def translate_generate(body: Json) -> Asked:
    """Raises RequestError."""
    unsupported(
        body,
        {
            "suffix": "this engine does not fill in the middle",
            "template": "a model's own chat template is used; with `raw` a prompt goes to it as it is",
            "context": "is not kept between requests; send the conversation to /api/chat",
            "width": "this engine makes no images",
            "height": "this engine makes no images",
            "steps": "this engine makes no images",
        },
    )
    prompt = optional(body, "prompt", str) or ""
    if optional(body, "raw", bool):
        return _raw(body, prompt)
    system, images = optional(body, "system", str), optional(body, "images", list)
    content: Any = with_images(prompt, images, "images") if images else prompt
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    request = {**_common(body), "messages": [*messages, {"role": "user", "content": content}]}
    return _asked(body, "/v1/chat/completions", request, empty=not prompt and not images)


def _raw(body: Json, prompt: str) -> Asked:
    """A prompt that goes to the model as it is, so what a chat template would make of other fields is not made."""
    reason = "needs the chat template, which `raw` leaves out"
    unsupported(body, dict.fromkeys(("system", "images", "think", "logprobs"), reason))
    request = {**_common(body), "prompt": prompt}
    return _asked(body, "/v1/completions", request, empty=not prompt)


def _common(body: Json) -> Json:
    """An engine's stream says when its first token came and how many there were, so every answer is one."""
    options = optional(body, "options", dict) or {}
    request: Json = {"model": body["model"], "stream": True, "stream_options": {"include_usage": True}}
    request |= sampling(options) | response_format(body.get("format")) | thinking(body.get("think"))
    if optional(body, "logprobs", bool):
        request["logprobs"] = True
        if (top := optional(body, "top_logprobs", int)) is not None:
            request["top_logprobs"] = top
    elif body.get("top_logprobs"):
        raise invalid("top_logprobs", "needs `logprobs`")
    return request


def _asked(body: Json, path: str, request: Json, *, empty: bool) -> Asked:
    stream = optional(body, "stream", bool)
    return Asked(
        model=required(body, "model", str),
        stream=stream is not False,
        path=path,
        request=request,
        empty=empty,
        thoughts=body.get("think") is not False,
        keep_alive=body.get("keep_alive"),
        options=optional(body, "options", dict),
    )
