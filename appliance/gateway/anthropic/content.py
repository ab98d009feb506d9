"""Anthropic's turns of content blocks as the messages of a chat completion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from appliance.gateway.fields import checked, invalid, objects, optional, required

Json = dict[str, Any]

BILLING = "x-anthropic-billing-header"
"""How Claude Code's first system block begins. It changes with every request, and no prefix would ever be cached."""


def chat_messages(system: object, messages: list[Any]) -> list[Json]:
    """`system` and `messages` of a request to /v1/messages. Raises RequestError."""
    found: list[Json] = []
    instructions = [system_text(system)]
    for role, where, blocks in _turns(messages):
        if role == "user":
            found += _user(blocks, where)
        elif role == "assistant":
            found.append(_assistant(blocks))
        else:
            instructions.append(_text(blocks))
    told = "\n\n".join(filter(None, instructions))
    return [{"role": "system", "content": told}, *found] if told else found


def system_text(system: object) -> str:
    """A string, or blocks of text, without the one that is there for Anthropic's accounts."""
    if system is None:
        return ""
    if isinstance(system, str):
        first, _, rest = system.partition("\n")
        return rest.lstrip("\n") if first.startswith(BILLING) else system
    blocks = objects(checked(system, list, "system"), "system")
    texts = [optional(block, "text", str, f"{where}.") or "" for where, block in blocks]
    return "\n\n".join(text for text in texts if text and not text.startswith(BILLING))


Block = tuple[str, Json]


def _turns(messages: list[Any]) -> Iterator[tuple[str, str, list[Block]]]:
    """Role, place and blocks of each turn. Messages of one role that follow each other are one turn, as Anthropic has
    it: most chat templates insist on turns that alternate.

    For the same reason instructions amid a conversation, which agents send, are said within the user's turn: templates
    refuse such a message, or leave it out.
    """
    turn: tuple[str, str, list[Block]] | None = None
    for where, message in objects(messages, "messages"):
        role = required(message, "role", str, f"{where}.")
        if role not in {"user", "assistant", "system"}:
            raise invalid(f"{where}.role", "must be `user`, `assistant` or `system`")
        blocks = _blocks(message.get("content"), f"{where}.content")
        if role == "system" and turn is not None and turn[0] != "system":
            role, blocks = "user", [(where, {"type": "text", "text": f"<system>\n{_text(blocks)}\n</system>"})]
        if turn is not None and turn[0] == role:
            turn[2].extend(blocks)
            continue
        if turn is not None:
            yield turn
        turn = (role, where, blocks)
    if turn is not None:
        yield turn


def _blocks(content: object, where: str) -> list[Block]:
    if isinstance(content, str):
        return [(where, {"type": "text", "text": content})]
    if content is None:
        raise invalid(where, "is required")
    blocks = objects(checked(content, list, where), where)
    for place, block in blocks:
        required(block, "type", str, f"{place}.")
    return blocks


def _assistant(blocks: list[Block]) -> Json:
    """Text, thinking and tool calls. What Anthropic's own servers did (searches, code execution) is left out."""
    message: Json = {"role": "assistant", "content": _text(blocks) or None}
    thinking = [optional(block, "thinking", str, f"{where}.") or "" for where, block in blocks]
    if reasoning := "\n".join(filter(None, thinking)):
        # The older name for engines that know no other; vLLM takes either.
        message |= {"reasoning": reasoning, "reasoning_content": reasoning}
    if calls := [_call(block, where) for where, block in blocks if block["type"] == "tool_use"]:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    return message


def _call(block: Json, where: str) -> Json:
    arguments = json.dumps(optional(block, "input", dict, f"{where}.") or {}, ensure_ascii=False)
    function = {"name": required(block, "name", str, f"{where}."), "arguments": arguments}
    return {"id": required(block, "id", str, f"{where}."), "type": "function", "function": function}


def _user(blocks: list[Block], where: str) -> list[Json]:
    """The results of tools, each a message of its own, and then what else the user says.

    Images in a result follow it as the user's, since a tool's message is text to chat templates.
    """
    results: list[Json] = []
    parts: list[Json] = []
    for place, block in blocks:
        if block["type"] == "tool_result":
            result, images = _result(block, place)
            results.append(result)
            parts += images
        else:
            parts += _parts(block, place)
    if parts or not results:
        results.append({"role": "user", "content": _plain(parts, where)})
    return results


def _result(block: Json, where: str) -> tuple[Json, list[Json]]:
    identity = required(block, "tool_use_id", str, f"{where}.")
    content = block.get("content")
    inner = [] if content is None else _blocks(content, f"{where}.content")
    parts = [part for place, found in inner for part in _parts(found, place)]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    images = [part for part in parts if part["type"] != "text"]
    if images:
        images.insert(0, {"type": "text", "text": f"The result of tool call {identity} has these images:"})
    if optional(block, "is_error", bool, f"{where}.") and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": identity, "content": text}, images


def _parts(block: Json, where: str) -> list[Json]:
    """Content parts of a chat message. A block of an unknown kind counts for the text that it has, if any."""
    match block["type"]:
        case "image":
            return [_image(required(block, "source", dict, f"{where}."), f"{where}.source")]
        case "document":
            source = _document(required(block, "source", dict, f"{where}."), f"{where}.source")
            return [_text_part(_titled(block, where)), *source] if block.get("title") else source
        case "search_result":
            inner = _blocks(block.get("content"), f"{where}.content")
            found_at = optional(block, "source", str, f"{where}.") or ""
            return [_text_part(f"{_titled(block, where)}\n{found_at}\n{_text(inner)}".strip())]
        case _:
            text = optional(block, "text", str, f"{where}.")
            return [_text_part(text)] if text else []


def _image(source: Json, where: str) -> Json:
    match source.get("type"):
        case "base64":
            kind = required(source, "media_type", str, f"{where}.")
            if not kind.startswith("image/"):
                raise invalid(f"{where}.media_type", "must be an image's")
            url = f"data:{kind};base64,{required(source, 'data', str, f'{where}.')}"
        case "url":
            url = required(source, "url", str, f"{where}.")
        case _:
            raise invalid(f"{where}.type", "must be `base64` or `url`: there is no store of files here")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(source: Json, where: str) -> list[Json]:
    match source.get("type"):
        case "text":
            return [_text_part(required(source, "data", str, f"{where}."))]
        case "content":
            return [
                part
                for place, block in _blocks(source.get("content"), f"{where}.content")
                for part in _parts(block, place)
            ]
        case _:
            raise invalid(f"{where}.type", "must be `text` or `content`: nothing here reads a PDF")


def _titled(block: Json, where: str) -> str:
    return optional(block, "title", str, f"{where}.") or ""


def _text(blocks: list[Block]) -> str:
    return "\n".join(optional(block, "text", str, f"{where}.") or "" for where, block in blocks if block.get("text"))


def _text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def _plain(parts: list[Json], where: str) -> str | list[Json]:
    """One string where there is only text: what the templates of models without eyes take."""
    if any(part["type"] != "text" for part in parts):
        return parts
    if not parts:
        raise invalid(f"{where}.content", "has nothing that this model could read")
    return "\n".join(part["text"] for part in parts)
