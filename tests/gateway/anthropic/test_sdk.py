"""The official client, as its users use it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock

from appliance.errors import NotReady
from tests.gateway.anthropic.asking import QUESTION, TIME, WEATHER, ask, call, fake
from tests.gateway.served import Served, key
from tests.gateway.test_streaming import fragile, stats
from tests.support import wait_until

TEXT = "tiny answers"
CALLS = {"content": "Let me look. ", "tool_calls": [call("weather", {"city": "Paris"}), call("time", {"zone": "UTC"})]}


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def test_a_message_is_answered(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.create(model="tiny", max_tokens=50, messages=QUESTION)
    assert text_of(message).startswith(TEXT)
    assert (message.type, message.role, message.model) == ("message", "assistant", "tiny")
    assert message.id.startswith("msg_")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert message._request_id


def test_an_alias_answers_under_its_own_name(sdk: anthropic.Anthropic) -> None:
    assert sdk.messages.create(model="claude-opus-4", max_tokens=5, messages=QUESTION).model == "claude-opus-4"
    with sdk.messages.stream(model="claude-opus-4", max_tokens=5, messages=QUESTION) as stream:
        assert stream.get_final_message().model == "claude-opus-4"


def test_a_stream_has_anthropics_events_in_order_and_adds_up_to_the_same_message(sdk: anthropic.Anthropic) -> None:
    whole = sdk.messages.create(model="tiny", max_tokens=50, messages=QUESTION)
    events = list(sdk.messages.create(model="tiny", max_tokens=50, messages=QUESTION, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert len(kinds) > 8
    with sdk.messages.stream(model="tiny", max_tokens=50, messages=QUESTION) as stream:
        streamed = stream.get_final_message()
    assert text_of(streamed) == text_of(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_the_first_event_of_a_stream_knows_the_length_of_the_prompt(sdk: anthropic.Anthropic) -> None:
    first = next(iter(sdk.messages.create(model="tiny", max_tokens=5, messages=QUESTION, stream=True)))
    assert first.type == "message_start"
    assert first.message.usage.input_tokens > 0
    assert first.message.id.startswith("msg_")
    assert first.message.stop_reason is None


def test_the_raw_stream_pings_and_names_every_event(gateway: Served) -> None:
    body = {"model": "tiny", "max_tokens": 5, "messages": QUESTION, "stream": True}
    answer = gateway.ask("POST", "/v1/messages", body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.content.split(b"\n\n")[:-1]
    for event in events:
        name, _, data = event.partition(b"\ndata: ")
        assert name == b"event: " + json.loads(data)["type"].encode()
    assert events[1] == b'event: ping\ndata: {"type": "ping"}'
    assert b"[DONE]" not in answer.content


def test_tools_are_offered_and_their_calls_come_back(sdk: anthropic.Anthropic, engine: Path) -> None:
    message = sdk.messages.create(
        model="tiny", max_tokens=99, messages=fake(message=CALLS, finish="tool_calls"), tools=[WEATHER, TIME]
    )
    first, *calls = message.content
    assert isinstance(first, TextBlock)
    assert [(c.name, c.input) for c in calls if isinstance(c, ToolUseBlock)] == [
        ("weather", {"city": "Paris"}),
        ("time", {"zone": "UTC"}),
    ]
    assert all(c.id.startswith("toolu_") for c in calls if isinstance(c, ToolUseBlock))
    assert message.stop_reason == "tool_use"
    seen = stats(engine)["last_body"]
    assert seen["tool_choice"] == "auto"
    assert seen["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]


def test_parallel_calls_are_streamed_one_block_after_the_other(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(
        model="tiny", max_tokens=99, messages=fake(message=CALLS, finish="tool_calls"), tools=[WEATHER, TIME]
    ) as stream:
        events = list(stream)
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in message.content if isinstance(block, ToolUseBlock)] == [
        {"city": "Paris"},
        {"zone": "UTC"},
    ]
    assert message.stop_reason == "tool_use"
    assert sum(event.type == "input_json" for event in events) > 4


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_forced_call_obeys_its_schema(sdk: anthropic.Anthropic, engine: Path, stream: bool, named: bool) -> None:
    choice = {"type": "tool", "name": "weather"} if named else {"type": "any"}
    message = ask(sdk, stream=stream, tools=[TIME, WEATHER], tool_choice=choice)
    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert (block.name, block.input) == ("weather", {"city": "text", "days": 1})
    assert message.stop_reason == "tool_use"
    assert stats(engine)["last_body"]["tool_choice"] == "none"


@pytest.mark.parametrize("said", ['"Paris"', "{", "{}", '{"city": 7}', "Paris it is"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_disobeys_a_forced_call_is_an_api_error(
    sdk: anthropic.Anthropic, said: str, stream: bool
) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(sdk, stream=stream, messages=fake(text=said), tools=[WEATHER], tool_choice={"type": "any"})
    assert caught.value.type == "api_error"
    assert "weather" in str(caught.value)


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_the_limit_cut_is_not_acted_upon(sdk: anthropic.Anthropic, stream: bool) -> None:
    message = {"tool_calls": [call("weather", '{"city": "Par')]}
    answer = ask(sdk, stream=stream, messages=fake(message=message, finish="length"), tools=[WEATHER])
    assert answer.stop_reason == "max_tokens"
    assert stream or answer.content == []


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_comes_in_blocks_of_its_own(sdk: anthropic.Anthropic, engine: Path, stream: bool) -> None:
    said = {"reasoning": "Paris is in France.", "content": "Paris."}
    thinks = {"type": "enabled", "budget_tokens": 1024}
    message = ask(sdk, stream=stream, messages=fake(message=said), max_tokens=2000, thinking=thinks)
    thinking, text = message.content
    assert isinstance(thinking, ThinkingBlock)
    assert isinstance(text, TextBlock)
    assert (thinking.thinking, text.text) == ("Paris is in France.", "Paris.")
    assert thinking.signature
    assert stats(engine)["last_body"]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}


@pytest.mark.parametrize("stream", [True, False])
def test_without_being_asked_no_thinking_is_shown(sdk: anthropic.Anthropic, engine: Path, stream: bool) -> None:
    messages = fake(message={"reasoning": "Hm.", "content": "Paris."})
    assert [block.type for block in ask(sdk, stream=stream, messages=messages).content] == ["text"]
    assert stats(engine)["last_body"]["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}


def test_a_prefilled_answer_is_continued(sdk: anthropic.Anthropic, engine: Path) -> None:
    sdk.messages.create(
        model="tiny", max_tokens=9, messages=[*QUESTION, {"role": "assistant", "content": "The capital is"}]
    )
    seen = stats(engine)["last_body"]
    assert (seen["continue_final_message"], seen["add_generation_prompt"]) == (True, False)
    assert seen["messages"][-1] == {"role": "assistant", "content": "The capital is"}


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_sequence_is_named(sdk: anthropic.Anthropic, stream: bool) -> None:
    messages = fake(text="one two", stop_reason="END")
    answer = ask(sdk, stream=stream, messages=messages, stop_sequences=["END", "STOP"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")


def test_an_answer_cut_by_its_limit_says_so(sdk: anthropic.Anthropic) -> None:
    assert sdk.messages.create(model="tiny", max_tokens=2, messages=QUESTION).stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [True, False])
def test_a_limit_beyond_the_context_is_the_context(sdk: anthropic.Anthropic, engine: Path, stream: bool) -> None:
    answer = ask(sdk, stream=stream, messages=fake(context=4096, finish="length"), max_tokens=20_000)
    assert answer.stop_reason == "model_context_window_exceeded"
    assert "max_tokens" not in stats(engine)["last_body"]


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_whose_template_takes_no_arguments_is_asked_without(
    sdk: anthropic.Anthropic, engine: Path, stream: bool
) -> None:
    messages = fake(no_template_arguments=True, context=4096, finish="length")
    assert ask(sdk, stream=stream, messages=messages, max_tokens=9000).stop_reason == "model_context_window_exceeded"
    assert not {"chat_template_kwargs", "max_tokens"} & set(stats(engine)["last_body"])


def test_a_prompt_beyond_the_context_is_refused_in_the_words_that_agents_know(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 12 tokens > 10 maximum"):
        sdk.messages.create(model="tiny", max_tokens=5, messages=fake(context=0))


def test_tokens_are_counted_by_the_engine(sdk: anthropic.Anthropic, engine: Path) -> None:
    counted = sdk.messages.count_tokens(model="tiny", messages=QUESTION, tools=[WEATHER], system="Be brief.")
    assert counted.input_tokens == 6
    seen = stats(engine)
    assert seen["last_path"] == "/tokenize"
    assert seen["last_body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert seen["last_body"]["tools"][0]["function"]["name"] == "weather"


def test_the_beta_client_works_with_its_headers(sdk: anthropic.Anthropic) -> None:
    message = sdk.beta.messages.create(
        model="tiny",
        max_tokens=50,
        messages=[{"role": "user", "content": "hello"}],
        betas=["context-management-2025-06-27", "fine-grained-tool-streaming-2025-05-14"],
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
    )
    assert message.stop_reason == "end_turn"


def test_an_answer_with_a_schema_is_parsed(sdk: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    message = ask(sdk, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert text_of(message) == '{"city": "text"}'


def test_models_are_listed_and_found_in_anthropics_shape(sdk: anthropic.Anthropic) -> None:
    page = sdk.models.list()
    assert [model.id for model in page] == ["tiny", "other", "gpt-test"]
    model = sdk.models.retrieve("claude-opus-4")
    assert (model.type, model.id, model.display_name) == ("model", "claude-opus-4", "claude-opus-4")
    assert model.created_at.year > 2020
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("nobody")


def test_all_of_it_is_under_anthropic_too(gateway: Served) -> None:
    with anthropic.Anthropic(base_url=f"{gateway.base}/anthropic", api_key="none", max_retries=0) as sdk:
        assert text_of(sdk.messages.create(model="tiny", max_tokens=50, messages=QUESTION)).startswith(TEXT)
        assert sdk.messages.count_tokens(model="tiny", messages=QUESTION).input_tokens == 6
        assert sdk.models.retrieve("tiny").id == "tiny"
        assert len(sdk.models.list().data) == 3


# Errors


def test_an_unknown_model_is_not_found(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.messages.create(model="nobody", max_tokens=5, messages=QUESTION)
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id


def test_keys_are_taken_from_either_header_and_refused_in_shape(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"), key("watch", "sk-watch", scopes=("metrics",))))
    for header, token in (("sk-one", None), (None, "sk-one")):
        with anthropic.Anthropic(base_url=gateway.base, max_retries=0, api_key=header, auth_token=token) as sdk:
            assert sdk.messages.create(model="tiny", max_tokens=5, messages=QUESTION).content
    with anthropic.Anthropic(base_url=gateway.base, api_key="sk-wrong", max_retries=0) as sdk:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            sdk.messages.create(model="tiny", max_tokens=5, messages=QUESTION)
        assert caught.value.type == "authentication_error"
    with anthropic.Anthropic(base_url=gateway.base, api_key="sk-watch", max_retries=0) as sdk:
        with pytest.raises(anthropic.PermissionDeniedError) as denied:
            sdk.messages.create(model="tiny", max_tokens=5, messages=QUESTION)
        assert denied.value.type == "permission_error"


def test_a_model_that_is_not_ready_is_overloaded_and_says_when_to_come_back(
    gateway: Served, sdk: anthropic.Anthropic
) -> None:
    gateway.state.coming["other"] = NotReady("model `other` is loading", retry_after=3.0)
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model="other", max_tokens=5, messages=QUESTION)
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
    assert caught.value.response.headers["retry-after"] == "3"
    gateway.state.coming["other"] = NotReady("model `other` failed: no such kernel")
    with pytest.raises(anthropic.InternalServerError) as failed:
        sdk.messages.create(model="other", max_tokens=5, messages=QUESTION)
    assert (failed.value.status_code, failed.value.type) == (500, "api_error")


def test_a_body_over_the_limit_is_too_large(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.RequestTooLargeError) as caught:
        sdk.messages.create(model="tiny", max_tokens=5, messages=[{"role": "user", "content": "x" * (1 << 20)}])
    assert caught.value.response.json()["error"]["type"] == "request_too_large"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_tokens": None}, "max_tokens: is required"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"max_tokens": "many"}, "max_tokens: must be an integer"),
        ({"messages": None}, "messages: is required"),
        ({"messages": []}, "messages: must have at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: is required"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type: is required"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content: must be a list"),
        ({"messages": ["x"]}, "messages.0: must be an object"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "It is "}]}, "trailing whitespace"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}]}
                ]
            },
            "their `tool_result` blocks must follow",
        ),
        (
            {
                "messages": [*QUESTION, {"role": "assistant", "content": "It is"}],
                "tools": [WEATHER],
                "tool_choice": {"type": "any"},
            },
            "cannot continue",
        ),
        ({"system": 7}, "system: must be a list"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"stream": 1}, "`stream` must be true or false"),
        ({"model": None}, "`model` is missing"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema: is required"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "give the tool an `input_schema`"),
        ({"tool_choice": {"type": "any"}}, "there is no tool to choose"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "there is no tool `x`"),
        ({"tools": [WEATHER], "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    ],
)
def test_a_bad_request_is_refused_by_the_place_that_is_wrong(gateway: Served, change: Any, says: str) -> None:
    body = {"model": "tiny", "max_tokens": 5, "messages": QUESTION, **change}
    answer = gateway.ask("POST", "/v1/messages", {name: value for name, value in body.items() if value is not None})
    assert answer.status == 400
    assert answer.error()["type"] == "invalid_request_error"
    assert says in answer.error()["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error"), (503, "overloaded_error")],
)
def test_the_engines_own_errors_get_anthropics_types(sdk: anthropic.Anthropic, status: int, kind: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model="tiny", max_tokens=5, messages=fake(status=status))
    assert caught.value.type == kind


@pytest.mark.parametrize("behaviour", [{"error_after": 3}, {"finish": "abort"}])
def test_a_generation_that_fails_ends_its_stream_with_one_error_event(gateway: Served, behaviour: Any) -> None:
    body = {"model": "tiny", "max_tokens": 50, "messages": fake(**behaviour), "stream": True}
    events = gateway.ask("POST", "/v1/messages", body).content.split(b"\n\n")[:-1]
    assert sum(event.startswith(b"event: error\n") for event in events) == 1
    assert events[-1].startswith(b'event: error\ndata: {"type": "error", "error": {"type": "api_error"')
    assert not any(b"message_stop" in event for event in events)


def test_an_engine_killed_in_a_stream_ends_it_with_one_error_event(directory: Path) -> None:
    with fragile(directory) as (served, _, _):
        body = {"model": "tiny", "max_tokens": 50, "messages": fake(crash_after=3), "stream": True}
        events = served.ask("POST", "/v1/messages", body).content.split(b"\n\n")[:-1]
    assert sum(event.startswith(b"event: error\n") for event in events) == 1
    assert b'"api_error"' in events[-1]


def test_the_client_raises_what_a_stream_ends_with(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(sdk.messages.create(model="tiny", max_tokens=50, messages=fake(error_after=3), stream=True))
    assert caught.value.type == "api_error"


# Waiting and going away


def test_a_client_that_closes_its_stream_ends_the_generation(gateway: Served, engine: Path) -> None:
    before = stats(engine)["aborted"]

    async def main() -> None:
        async with anthropic.AsyncAnthropic(base_url=gateway.base, api_key="none", max_retries=0) as client:
            messages = fake(stall_after=2)
            async with client.messages.stream(model="tiny", max_tokens=50, messages=messages) as stream:
                async for _ in stream.text_stream:
                    break

    asyncio.run(main())
    wait_until(lambda: stats(engine)["aborted"] == before + 1)


def test_a_client_that_times_out_ends_the_generation(gateway: Served, engine: Path, sdk: anthropic.Anthropic) -> None:
    before = stats(engine)["aborted"]
    with pytest.raises(anthropic.APITimeoutError):
        ask(sdk.with_options(timeout=0.3), messages=fake(stall_after=0))
    wait_until(lambda: stats(engine)["aborted"] == before + 1)
