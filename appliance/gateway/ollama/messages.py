"""Ollama's messages as those of a chat completion: calls have no ids there, and images no media type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from appliance.gateway.fields import checked, invalid, objects, optional, required

Json = dict[str, Any]

IMAGES: Mapping[str, str] = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}
"""How base64 of each format begins."""


def chat_messages(messages: list[Any]) -> list[Json]:
    """Raises RequestError."""
    found: list[Json] = []
    unanswered: list[Json] = []
    """Calls whose results are still to come, in their order."""
    count = 0
    for where, message in objects(messages, "messages"):
        role = required(message, "role", str, f"{where}.")
        content = optional(message, "content", str, f"{where}.") or ""
        if role == "tool":
            found.append({"role": "tool", "tool_call_id": _answered(message, unanswered), "content": content})
            continue
        turn: Json = {"role": role, "content": content}
        if images := optional(message, "images", list, f"{where}."):
            turn["content"] = with_images(content, images, f"{where}.images")
        if thought := optional(message, "thinking", str, f"{where}."):
            turn |= {"reasoning": thought, "reasoning_content": thought}
        if calls := optional(message, "tool_calls", list, f"{where}."):
            turn["tool_calls"] = unanswered = [
                _call(call, f"call_{count + number}", place)
                for number, (place, call) in enumerate(objects(calls, f"{where}.tool_calls"))
            ]
            count += len(calls)
            unanswered = [*unanswered]
        found.append(turn)
    return found


def _call(call: Json, identity: str, where: str) -> Json:
    function = required(call, "function", dict, f"{where}.")
    name = required(function, "name", str, f"{where}.function.")
    arguments = optional(function, "arguments", dict, f"{where}.function.") or {}
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": text}}


def _answered(message: Json, unanswered: list[Json]) -> str:
    """The id of the call that this is the result of: the first of that name, else the first."""
    name = message.get("tool_name") or message.get("name")
    call = next((call for call in unanswered if call["function"]["name"] == name), next(iter(unanswered), None))
    if call is None:
        return "call_0"
    unanswered.remove(call)
    return str(call["id"])


def with_images(text: str, images: list[Any], where: str) -> list[Json]:
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    for number, image in enumerate(images):
        place = f"{where}.{number}"
        data = checked(image, str, place)
        kind = next((kind for start, kind in IMAGES.items() if data.startswith(start)), None)
        if kind is None:
            raise invalid(place, "must be base64 of a PNG, JPEG, GIF or WebP image")
        parts.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}})
    return parts
