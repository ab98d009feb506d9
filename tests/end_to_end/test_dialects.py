"""The real model, through the SDKs of those whose dialects the gateway translates."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anthropic
import jsonschema
import ollama
import pytest
from anthropic.types import Message, MessageParam, TextBlock, ToolParam, ToolUseBlock

from tests.end_to_end.conftest import Served
from tests.gateway.anthropic.test_agents import CASE, HEADERS
from tests.support import wait_until

pytestmark = pytest.mark.engine

QUESTION: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."

WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather forecast of a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": False,
    },
}
CALCULATE: ToolParam = {
    "name": "calculate",
    "description": "Adds two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/number"}, "b": {"$ref": "#/$defs/number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "$defs": {"number": {"type": "integer", "minimum": 0, "maximum": 99}},
    },
}
SCHEMAS: dict[str, Any] = {tool["name"]: tool["input_schema"] for tool in (WEATHER, CALCULATE)}


@pytest.fixture
def claude(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.base, api_key="unused", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
def llama(served: Served) -> Iterator[ollama.Client]:
    with ollama.Client(host=served.base, timeout=120) as client:
        yield client


def ask(sdk: anthropic.Anthropic, *, stream: bool = False, **more: Any) -> Message:
    asked: dict[str, Any] = {"model": "smollm2", "max_tokens": 64, "messages": QUESTION, **more}
    if not stream:
        message: Message = sdk.messages.create(**asked)
        return message
    with sdk.messages.stream(**asked) as events:
        return events.get_final_message()


def said(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


@pytest.mark.parametrize("stream", [True, False])
def test_anthropics_sdk_is_answered(claude: anthropic.Anthropic, stream: bool) -> None:
    message = ask(claude, stream=stream)
    assert said(message) == ANSWER
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == claude.messages.count_tokens(model="smollm2", messages=QUESTION).input_tokens
    assert 5 < message.usage.output_tokens < 20


def test_the_first_event_knows_the_length_of_the_prompt(claude: anthropic.Anthropic) -> None:
    events = list(claude.messages.create(model="smollm2", max_tokens=8, messages=QUESTION, stream=True))
    first = events[0]
    assert first.type == "message_start"
    assert first.message.usage.input_tokens > 10
    assert sum(event.type == "content_block_delta" for event in events) > 4


def test_a_prefilled_answer_is_continued(claude: anthropic.Anthropic) -> None:
    message = ask(claude, messages=[*QUESTION, {"role": "assistant", "content": "The capital of France is"}])
    assert said(message).startswith(" Paris")


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_sequence_ends_the_answer_and_is_named(claude: anthropic.Anthropic, stream: bool) -> None:
    message = ask(claude, stream=stream, stop_sequences=["zebra", "France"])
    assert (said(message), message.stop_reason) == ("The capital of ", "stop_sequence")
    assert message.stop_sequence == "France"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "choice", [{"type": "tool", "name": "weather"}, {"type": "tool", "name": "calculate"}, {"type": "any"}]
)
def test_a_forced_call_obeys_its_schema(claude: anthropic.Anthropic, choice: Any, stream: bool) -> None:
    message = ask(claude, stream=stream, max_tokens=300, tools=[WEATHER, CALCULATE], tool_choice=choice)
    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert block.name == choice.get("name", block.name)
    jsonschema.validate(block.input, SCHEMAS[block.name])
    assert message.stop_reason == "tool_use"


def test_a_model_that_may_call_tools_answers(claude: anthropic.Anthropic) -> None:
    assert ask(claude, tools=[WEATHER]).stop_reason in {"end_turn", "tool_use", "max_tokens"}


def test_an_answer_has_the_schema_that_is_asked_for(claude: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}
    message = ask(claude, output_config={"format": {"type": "json_schema", "schema": schema}})
    jsonschema.validate(json.loads(said(message)), schema)


@pytest.mark.parametrize("stream", [True, False])
def test_a_limit_beyond_the_context_is_the_context(claude: anthropic.Anthropic, stream: bool) -> None:
    assert said(ask(claude, stream=stream, max_tokens=64_000)) == ANSWER
    assert said(ask(claude, stream=stream, max_tokens=2040)) == ANSWER


def test_a_prompt_beyond_the_context_is_refused_in_the_words_that_agents_know(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        ask(claude, messages=[{"role": "user", "content": "word " * 5000}])


def test_a_coding_agents_request_is_answered(served: Served, claude: anthropic.Anthropic) -> None:
    request = json.loads(CASE.read_text())
    del request["stream"], request["model"]
    with claude.messages.stream(
        model="smollm2", extra_headers=HEADERS, extra_body=request, **_required(request)
    ) as stream:
        message = stream.get_final_message()
    assert message.stop_reason
    counted = {name: request[name] for name in ("system", "tools", "thinking")}
    tokens = claude.messages.count_tokens(model="smollm2", messages=request["messages"], extra_body=counted)
    assert tokens.input_tokens == message.usage.input_tokens


def _required(request: dict[str, Any]) -> dict[str, Any]:
    return {"max_tokens": request.pop("max_tokens"), "messages": request["messages"]}


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": "hot"},
        {"stop_sequences": ["a", "b", "c", "d", "e"]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}],
                }
            ]
        },
    ],
)
def test_a_bad_request_is_refused_in_shape_and_the_engine_lives_on(claude: anthropic.Anthropic, change: Any) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(claude, extra_body=change)
    assert caught.value.type == "invalid_request_error"
    assert ask(claude, max_tokens=1).stop_reason == "max_tokens"


def test_a_client_that_goes_away_aborts_its_generation(served: Served, claude: anthropic.Anthropic) -> None:
    busy: list[MessageParam] = [{"role": "user", "content": "Write a very long story about a king and his castle."}]
    with claude.messages.stream(model="smollm2", max_tokens=1500, messages=busy) as stream:
        next(stream.text_stream)
        assert served.status()["models"][0]["engines"][0]["in_flight"] == 1
    idle = lambda: served.status()["models"][0]["engines"][0]["in_flight"] == 0  # noqa: E731
    wait_until(idle, what="the request is given up")


def test_ollamas_sdk_is_answered(llama: ollama.Client) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = llama.chat(model="smollm2", messages=messages)
    assert (answer.message.content, answer.done_reason) == (ANSWER, "stop")
    lines = list(llama.chat(model="smollm2:latest", messages=messages, stream=True))
    assert "".join(line.message.content or "" for line in lines) == ANSWER
    assert (lines[-1].prompt_eval_count, lines[-1].eval_count) == (answer.prompt_eval_count, answer.eval_count)
    assert 0 < (lines[-1].eval_duration or 0) < (lines[-1].total_duration or 0)
    assert llama.generate(model="smollm2", prompt="What is the capital of France?").response == ANSWER
    raw = llama.generate(model="smollm2", prompt="The capital of France is", raw=True, options={"num_predict": 3})
    assert "Paris" in (raw.response or "")
    assert raw.done_reason == "length"


def test_ollamas_formats_options_and_log_probabilities_reach_the_engine(llama: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"num_predict": 60, "num_ctx": 2048, "top_k": 1, "seed": 1, "repeat_penalty": 1.0, "min_p": 0.0}
    answer = llama.chat(model="smollm2", messages=messages, format=schema, options=options, keep_alive="10m")
    jsonschema.validate(json.loads(answer.message.content or ""), schema)
    told = llama.chat(model="smollm2", messages=messages, logprobs=True, top_logprobs=2)
    assert (told.logprobs or [])[0].token == "The"
    with pytest.raises(ollama.ResponseError, match="max_model_len"):
        llama.chat(model="smollm2", messages=messages, options={"num_ctx": 1_000_000})


def test_ollama_is_told_what_the_engine_says_of_itself(llama: ollama.Client) -> None:
    assert "smollm2:latest" in [model.model for model in llama.list().models]
    shown = llama.show("smollm2")
    assert (shown.modelinfo or {})["unknown.context_length"] == 2048
    assert "completion" in (shown.capabilities or [])
    (running,) = llama.ps().models
    assert running.context_length == 2048
    assert (running.size or 0) > 100_000_000
    with pytest.raises(ollama.ResponseError, match="does not serve"):
        llama.embed(model="smollm2", input="x")


def test_docker_model_runners_paths_lead_to_the_model(served: Served) -> None:
    with served.client().with_options(base_url=f"{served.base}/engines/llama.cpp/v1") as sdk:
        answer = sdk.chat.completions.create(
            model="ai/smollm2", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert answer.choices[0].message.content
    (found,) = _get(served, "/engines/_configure")
    assert found["Config"]["context-size"] == 2048
    usage = _get(served, "/engines/df")
    assert usage["models_disk_usage"] > 10_000_000
    assert usage["default_backend_disk_usage"] > 100_000_000


def _get(served: Served, path: str) -> Any:
    connection = http.client.HTTPConnection(urlsplit(served.base).netloc, timeout=60)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
