"""What OpenAI's API promises, held by the official client with its answers validated strictly."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from appliance.errors import NotReady
from appliance.routing import Route
from tests.gateway.served import QUESTION, Served, key
from tests.gateway.test_streaming import stats
from tests.support import wait_until

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}


@pytest.fixture
def strict(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway.base}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def tiny(gateway: Served, **changes: Any) -> Route:
    """The model's route, changed so for the requests to come."""
    found = gateway.state.table.routes["tiny"]
    assert found is not None
    changed = replace(found, **changes)
    gateway.change(routes={**gateway.state.table.routes, "tiny": changed})
    return changed


# Tools


def test_a_named_tools_arguments_obey_its_schema(strict: openai.OpenAI) -> None:
    answer = strict.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments).keys() == {"city", "days"}


def test_required_tools_stream_their_calls_by_index(strict: openai.OpenAI) -> None:
    with strict.chat.completions.stream(
        model="tiny", messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice="required"
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [(event.index, event.name) for event in done] == [(0, "weather"), (1, "clock")]
    assert all(isinstance(json.loads(event.arguments), dict) for event in done)
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls is not None
    assert len({call.id for call in final.message.tool_calls}) == 2


def test_parallel_calls_can_be_declined(strict: openai.OpenAI) -> None:
    answer = strict.chat.completions.create(
        model="tiny", messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls or ()) == 1


def test_only_demanded_tools_are_made_strict(strict: openai.OpenAI, engine: Path) -> None:
    for choice in ("auto", "none"):
        strict.chat.completions.create(model="tiny", messages=QUESTION, tools=[WEATHER], tool_choice=choice)
        assert stats(engine)["last_body"]["tools"] == [WEATHER]


def test_a_conversation_with_a_tools_result_goes_on(strict: openai.OpenAI, engine: Path) -> None:
    conversation: list[ChatCompletionMessageParam] = [
        *QUESTION,
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    answer = strict.chat.completions.create(model="tiny", messages=conversation, tools=[CLOCK])
    assert "noon" in (answer.choices[0].message.content or "")
    assert stats(engine)["last_body"]["messages"] == conversation


# Structured output


class Place(BaseModel):
    city: str
    population: int
    capital: bool
    districts: list[str]


def test_a_schema_is_parsed_into_its_type(strict: openai.OpenAI) -> None:
    answer = strict.chat.completions.parse(model="tiny", messages=QUESTION, response_format=Place)
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_a_typed_tool_is_parsed_into_its_type(strict: openai.OpenAI) -> None:
    answer = strict.chat.completions.parse(
        model="tiny", messages=QUESTION, tools=[openai.pydantic_function_tool(Place)], tool_choice="required"
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [type(call.function.parsed_arguments) for call in calls] == [Place]


def test_a_json_object_is_one(strict: openai.OpenAI) -> None:
    answer = strict.chat.completions.create(model="tiny", messages=QUESTION, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_responses_format_is_parsed_into_its_type(sdk: openai.OpenAI) -> None:
    assert isinstance(sdk.responses.parse(model="tiny", input="hello", text_format=Place).output_parsed, Place)


# What else a chat may ask


def test_logprobs_come_with_their_alternatives_streamed_or_not(strict: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    whole = strict.chat.completions.create(**ask).choices[0].logprobs
    chunks = strict.chat.completions.create(**ask, stream=True)
    said = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    pieces = [token for logprobs in said for token in logprobs.content or ()]
    assert whole is not None
    assert whole.content == pieces
    assert all(len(token.top_logprobs) == 2 for token in pieces)


def test_n_choices_are_numbered_streamed_or_not(strict: openai.OpenAI) -> None:
    whole = strict.chat.completions.create(model="tiny", messages=QUESTION, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = {0: "", 1: "", 2: ""}
    for chunk in strict.chat.completions.create(model="tiny", messages=QUESTION, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert set(texts.values()) == {whole.choices[0].message.content}


@pytest.mark.parametrize("stop", ["capital", ["nowhere", "capital"]])
def test_stop_may_be_one_string_or_several(strict: openai.OpenAI, stop: Any) -> None:
    (choice,) = strict.chat.completions.create(model="tiny", messages=QUESTION, stop=stop).choices
    assert choice.finish_reason == "stop"
    assert (choice.message.content or "").rstrip().endswith("what is the")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_limit_ends_the_answer(strict: openai.OpenAI, name: str) -> None:
    answer = strict.chat.completions.create(model="tiny", messages=QUESTION, **{name: 2})  # type: ignore[call-overload]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_a_developers_message_is_the_systems_where_the_template_knows_no_other(
    gateway: Served, strict: openai.OpenAI, engine: Path
) -> None:
    def roles() -> list[str]:
        messages: list[ChatCompletionMessageParam] = [{"role": "developer", "content": "be brief"}, *QUESTION]
        strict.chat.completions.create(model="tiny", messages=messages)
        return [message["role"] for message in stats(engine)["last_body"]["messages"]]

    assert roles() == ["system", "user"]
    tiny(gateway, developer=True)
    assert roles() == ["developer", "user"]


def test_content_may_come_in_parts(strict: openai.OpenAI) -> None:
    parts: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    ]
    assert "one two" in (strict.chat.completions.create(model="tiny", messages=parts).choices[0].message.content or "")


@pytest.mark.parametrize("model", ["tiny", "gpt-test"])
def test_reasoning_has_both_of_its_names_where_the_engine_reasons(
    gateway: Served, strict: openai.OpenAI, model: str
) -> None:
    thought = 'first "reasoning": then\n\\"reasoning\\":\\"x\\"'
    ask: dict[str, Any] = {"model": model, "messages": QUESTION, "extra_body": {"fake": {"reasoning": thought}}}
    tiny(gateway, reasons=True)
    message = strict.chat.completions.create(**ask).choices[0].message
    assert (message.model_extra or {})["reasoning"] == (message.model_extra or {})["reasoning_content"] == thought
    streamed = {"reasoning": "", "reasoning_content": ""}
    for chunk in strict.chat.completions.create(**ask, stream=True):
        for name in streamed:
            streamed[name] += (chunk.choices[0].delta.model_extra or {}).get(name) or ""
    assert streamed == {"reasoning": thought, "reasoning_content": thought}
    tiny(gateway, reasons=False)
    message = strict.chat.completions.create(**ask).choices[0].message
    assert "reasoning_content" not in (message.model_extra or {})


# Embeddings, ranking, tokens


def test_embeddings_are_the_same_in_base64_and_as_numbers(
    sdk: openai.OpenAI, strict: openai.OpenAI, engine: Path
) -> None:
    packed = sdk.embeddings.create(model="tiny", input=["a", "b"])
    assert stats(engine)["last_body"]["encoding_format"] == "base64"  # which is what this client asks for by itself
    plain = strict.embeddings.create(model="tiny", input=["a", "b"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_documents_are_ranked(gateway: Served, path: str) -> None:
    body = {"model": "gpt-test", "query": "big cat", "documents": ["a dog", "a big cat", "a cat"], "top_n": 2}
    answer = gateway.ask("POST", path, body).json()
    assert answer["model"] == "gpt-test"
    assert [result["index"] for result in answer["results"]] == [1, 2]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_pairs_are_scored(gateway: Served, path: str) -> None:
    answer = gateway.ask("POST", path, {"model": "tiny", "text_1": "a cat", "text_2": ["a dog", "a cat"]}).json()
    assert [entry["score"] for entry in answer["data"]] == [0.5, 1.0]


def test_tokens_are_counted_for_those_who_may_ask(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    for path, body in (("/tokenize", {"prompt": "a b c"}), ("/detokenize", {"tokens": [1, 2]})):
        assert gateway.ask("POST", path, {"model": "tiny", **body}).status == 401
        answer = gateway.ask("POST", path, {"model": "gpt-test", **body}, {"x-api-key": "sk-one"})
        assert answer.status == 200
        assert gateway.ask("POST", path, body, {"x-api-key": "sk-one"}).error()["param"] == "model"


# Audio


def test_a_recording_is_transcribed(strict: openai.OpenAI, engine: Path) -> None:
    sound = bytes(range(256)) * 3000
    for model in ("tiny", "gpt-test"):
        answer = strict.audio.transcriptions.create(
            model=model, file=("speech.wav", io.BytesIO(sound)), language="fr", response_format="json"
        )
        assert answer.text.startswith("tiny heard ")
        assert stats(engine)["last_body"] == {
            "model": "tiny",
            "file": len(sound),
            "language": "fr",
            "response_format": "json",
        }


def test_a_transcript_is_streamed(strict: openai.OpenAI) -> None:
    stream = strict.audio.transcriptions.create(model="tiny", file=("speech.wav", b"sound"), stream=True)
    events = list(stream)
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta").startswith("tiny heard")
    assert events[-1].type == "transcript.text.done"


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    head = b"--x\r\ncontent-disposition: form-data; "
    return b"".join(head + name.encode() + b"\r\n\r\n" + value + b"\r\n" for name, value in parts) + end


MODEL = ('name="model"', b"tiny")
FILE = ('name="file"; filename="a.wav"', b"sound")


def test_a_model_is_found_wherever_it_stands_and_not_within_a_file(gateway: Served, engine: Path) -> None:
    trap = ('name="file"; filename="a.wav"', b'--y\r\ncontent-disposition: form-data; name="model"\r\n\r\nother')
    for parts in ((MODEL, trap), (trap, ('name="model"', b"gpt-test"))):
        answer = gateway.ask(
            "POST", "/v1/audio/transcriptions", form(*parts), {"content-type": 'multipart/form-data; boundary="x"'}
        )
        assert answer.status == 200
        assert stats(engine)["last_body"] == {"model": "tiny", "file": len(trap[1])}


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (form(FILE), "multipart/form-data; boundary=x", "`model` is missing"),
        (form(MODEL, MODEL, FILE), "multipart/form-data; boundary=x", "twice"),
        (form(MODEL, end=b""), "multipart/form-data; boundary=x", "ends in the middle"),
        (form(MODEL), "multipart/form-data", "boundary"),
        (form(MODEL), "application/json", "multipart/form-data"),
        (form(MODEL), "multipart/form-data; boundary=" + "y" * 300, "form"),
        (b"nonsense", "multipart/form-data; boundary=x", "form"),
        (b"", "multipart/form-data; boundary=x", "ends in the middle"),
        (form(('name="model"', b"x" * 2000)), "multipart/form-data; boundary=x", "longer than"),
        (form(('name="model"', b"\xff")), "multipart/form-data; boundary=x", "must be text"),
        (form(*[FILE] * 100, MODEL), "multipart/form-data; boundary=x", "more than 64 fields"),
        (form(('name="model"; filename="f"', b"tiny")), "multipart/form-data; boundary=x", "`model` is missing"),
    ],
)
def test_a_bad_form_is_a_400_that_says_what_is_wrong(gateway: Served, body: bytes, kind: str, says: str) -> None:
    answer = gateway.ask("POST", "/v1/audio/transcriptions", body, {"content-type": kind})
    assert answer.status == 400
    assert says in answer.error()["message"]


# Errors, time and giving up


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, openai.BadRequestError, None),
        (422, openai.UnprocessableEntityError, None),
        (429, openai.RateLimitError, None),
        (500, openai.InternalServerError, "engine_failed"),
        (503, openai.InternalServerError, "engine_failed"),
    ],
)
def test_an_engines_errors_are_the_clients_own_types(
    strict: openai.OpenAI, status: int, error: type[openai.APIStatusError], code: str | None
) -> None:
    for stream in (True, False):
        with pytest.raises(error) as caught:
            strict.chat.completions.create(
                model="tiny", messages=QUESTION, stream=stream, extra_body={"fake": {"status": status}}
            )
        assert caught.value.code == code
        assert isinstance(caught.value.body, dict)
        assert caught.value.body.keys() == {"message", "type", "param", "code", "request_id"}
        assert caught.value.request_id == caught.value.body["request_id"]


def test_an_error_in_the_middle_of_a_stream_is_raised(strict: openai.OpenAI) -> None:
    stream = strict.chat.completions.create(
        model="tiny", messages=QUESTION, stream=True, extra_body={"fake": {"error_after": 2}}
    )
    with pytest.raises(openai.APIError, match="EngineCore"):
        list(stream)


def test_the_raw_answer_has_a_request_id(strict: openai.OpenAI) -> None:
    raw = strict.chat.completions.with_raw_response.create(
        model="tiny", messages=QUESTION, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().choices


def test_a_client_that_runs_out_of_time_ends_its_generation(strict: openai.OpenAI, engine: Path) -> None:
    before = stats(engine)["aborted"]
    with pytest.raises(openai.APITimeoutError):
        strict.with_options(timeout=0.3).chat.completions.create(
            model="tiny", messages=QUESTION, extra_body={"fake": {"stall_after": 1}}
        )
    wait_until(lambda: stats(engine)["aborted"] == before + 1)


def test_a_client_tries_again_when_it_is_told_to(gateway: Served) -> None:
    ready = tiny(gateway)
    gateway.state.coming["other"] = NotReady("not yet", retry_after=0.5)

    def ask() -> str:
        with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="none", max_retries=2) as client:
            return client.chat.completions.create(model="other", messages=QUESTION).model

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        wait_until(gateway.lines)
        gateway.state.coming["other"] = ready
        assert asked.result(20) == "other"
    assert [line["status"] for line in gateway.lines()] == [503, 200]


@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_task_ends_its_generation(gateway: Served, engine: Path, stream: bool) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.base}/v1", api_key="none") as client:

            async def ask() -> None:
                answer: Any = await client.chat.completions.create(
                    model="tiny",
                    messages=QUESTION,
                    stream=stream,
                    extra_body={"fake": {"stall_after": 1}},
                )
                async for _ in answer:
                    pass

            task = asyncio.create_task(ask())
            await asyncio.to_thread(wait_until, lambda: stats(engine)["running"] == 1)
            task.cancel()
            await asyncio.wait([task])

    before = stats(engine)["aborted"]
    asyncio.run(main())
    wait_until(lambda: stats(engine)["aborted"] == before + 1)


def test_many_async_requests_share_a_few_connections(gateway: Served) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.base}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.completions.create(model="tiny", prompt=f"number{number}") for number in range(50))
            )
            return [answer.choices[0].text for answer in answers]

    texts = asyncio.run(main())
    assert all(f"number{number}" in text for number, text in enumerate(texts))
