"""Turns of blocks as messages of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.errors import RequestError
from appliance.gateway.anthropic.content import chat_messages, system_text

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=1a2b3;"}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **more}


USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, ""),
        ("", ""),
        ("Be brief.", "Be brief."),
        ([text("One.", cache_control={"type": "ephemeral"}), text("Two.")], "One.\n\nTwo."),
        ([BILLING, text("One.")], "One."),
        ([BILLING], ""),
        (f"{BILLING['text']}\n\nOne.", "One."),
        ([{"type": "unknown"}], ""),
    ],
)
def test_the_system_prompt_is_one_text_without_the_billing_header(system: Any, expected: str) -> None:
    assert system_text(system) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
        ([user(text("one"), text("two", cache_control={}))], [{"role": "user", "content": "one\ntwo"}]),
        ([user(text("look"), PNG)], [{"role": "user", "content": [text("look"), SHOWN]}]),
        (
            [user({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}})],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}],
        ),
        # Turns of one role are one turn
        ([user(text("one")), user(text("two"))], [{"role": "user", "content": "one\ntwo"}]),
        (
            [user(text("q")), assistant(text("a")), assistant(text("b"))],
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a\nb"}],
        ),
        # Tools
        (
            [user(text("q")), assistant(text("I look."), USE), user(result("12 °C"))],
            [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "toolu_1", "content": "12 °C"},
            ],
        ),
        ([assistant(USE)], [{"role": "assistant", "content": None, "tool_calls": [CALL]}]),
        (
            [user(text("and now?"), result([text("1"), text("2")]))],
            [{"role": "tool", "tool_call_id": "toolu_1", "content": "1\n2"}, {"role": "user", "content": "and now?"}],
        ),
        ([user(result(None))], [{"role": "tool", "tool_call_id": "toolu_1", "content": ""}]),
        (
            [user(result("no such city", is_error=True))],
            [{"role": "tool", "tool_call_id": "toolu_1", "content": "Error: no such city"}],
        ),
        (
            [user(result("error: none", is_error=True))],
            [{"role": "tool", "tool_call_id": "toolu_1", "content": "error: none"}],
        ),
        (
            [user(result([text("a chart"), PNG]))],
            [
                {"role": "tool", "tool_call_id": "toolu_1", "content": "a chart"},
                {"role": "user", "content": [text("The result of tool call toolu_1 has these images:"), SHOWN]},
            ],
        ),
        # Thinking goes back to the template, which knows what to keep
        (
            [assistant({"type": "thinking", "thinking": "Hm.", "signature": "x"}, text("Yes."))],
            [{"role": "assistant", "content": "Yes.", "reasoning": "Hm.", "reasoning_content": "Hm."}],
        ),
        (
            [assistant({"type": "redacted_thinking", "data": "x"}, text("Yes."))],
            [{"role": "assistant", "content": "Yes."}],
        ),
        # What Anthropic's servers did, and kinds that are to come
        (
            [
                assistant(
                    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                    text("Found."),
                )
            ],
            [{"role": "assistant", "content": "Found."}],
        ),
        ([user({"type": "brand_new", "text": "read me"}, text("q"))], [{"role": "user", "content": "read me\nq"}]),
        ([user({"type": "brand_new", "data": 1}, text("q"))], [{"role": "user", "content": "q"}]),
        # Documents
        (
            [user({"type": "document", "title": "Notes", "source": {"type": "text", "data": "All of it."}})],
            [{"role": "user", "content": "Notes\nAll of it."}],
        ),
        (
            [user({"type": "document", "source": {"type": "content", "content": [text("A"), PNG]}})],
            [{"role": "user", "content": [text("A"), SHOWN]}],
        ),
        (
            [user({"type": "search_result", "title": "T", "source": "s", "content": [text("found")]})],
            [{"role": "user", "content": "T\ns\nfound"}],
        ),
        (
            [user(text("q")), {"role": "system", "content": "Mind the time."}],
            [{"role": "user", "content": "q\n<system>\nMind the time.\n</system>"}],
        ),
        (
            [user(text("q")), assistant(USE), user(result("1")), {"role": "system", "content": [text("Go on.")]}],
            [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "toolu_1", "content": "1"},
                {"role": "user", "content": "<system>\nGo on.\n</system>"},
            ],
        ),
        (
            [{"role": "system", "content": "Be brief."}, user(text("q"))],
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}],
        ),
    ],
)
def test_turns_become_messages(messages: list[Any], expected: list[Any]) -> None:
    assert chat_messages(None, messages) == expected


def test_instructions_before_the_conversation_join_the_system_prompt() -> None:
    messages = [{"role": "system", "content": "And kind."}, user(text("q"))]
    assert chat_messages("Be brief.", messages)[0] == {"role": "system", "content": "Be brief.\n\nAnd kind."}


def test_the_system_prompt_comes_first() -> None:
    assert chat_messages("Be brief.", [user(text("q"))])[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("block", "place"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "x"}}, "messages.0.content.0.source.type"),
        ({"type": "image", "source": {"type": "base64", "media_type": "text/html", "data": ""}}, "media_type"),
        ({"type": "image"}, "messages.0.content.0.source: is required"),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}, "PDF"),
        ({"type": "tool_result"}, "messages.0.content.0.tool_use_id"),
        ({"type": "text", "text": 7}, "messages.0.content.0.text"),
        (result(None, is_error="yes"), "messages.0.content.0.is_error"),
        ({"type": "brand_new"}, "messages.0.content: has nothing"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(block: Any, place: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat_messages(None, [user(block)])
    assert caught.value.status == 400
    assert place in caught.value.message
