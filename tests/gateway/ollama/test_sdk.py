"""The official client, as its users use it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from appliance.errors import NotReady
from appliance.routing import Routing
from tests.gateway.anthropic.asking import call
from tests.gateway.served import FakePort, Served, key, route, serve
from tests.gateway.test_streaming import fragile, stats
from tests.support import wait_until

TEXT = "tiny answers"
QUESTION = [{"role": "user", "content": "what is the capital of France?"}]
SECOND = 1_000_000_000
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 8).decode()


def fake(**behaviour: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"fake:{json.dumps(behaviour)}"}]


def ask(sdk: ollama.Client, *, stream: bool, **more: Any) -> list[ollama.ChatResponse]:
    """The lines of an answer; one where it is no stream."""
    asked: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "stream": stream, **more}
    found: Any = sdk.chat(**asked)
    return list(found) if stream else [found]


def test_a_chat_is_answered_with_counts_and_durations(sdk: ollama.Client) -> None:
    answer = sdk.chat(model="tiny", messages=QUESTION)
    assert (answer.message.content or "").startswith(TEXT)
    assert (answer.model, answer.done, answer.done_reason) == ("tiny", True, "stop")
    assert (answer.prompt_eval_count or 0) > 0
    assert (answer.eval_count or 0) > 0
    parts = (answer.load_duration or 0) + (answer.prompt_eval_duration or 0) + (answer.eval_duration or 0)
    assert 0 < parts <= (answer.total_duration or 0) < 20 * SECOND
    assert answer.created_at


def test_a_chat_is_streamed_and_adds_up(sdk: ollama.Client) -> None:
    whole = sdk.chat(model="tiny", messages=QUESTION)
    lines = list(sdk.chat(model="tiny", messages=QUESTION, stream=True))
    assert "".join(line.message.content or "" for line in lines) == whole.message.content
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 4
    assert lines[-1].eval_count == whole.eval_count
    assert {line.model for line in lines} == {"tiny"}


def test_every_line_of_a_stream_is_json(gateway: Served) -> None:
    answer = gateway.ask("POST", "/api/chat", {"model": "tiny", "messages": QUESTION})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.content.decode().split("\n")
    assert lines.pop() == ""
    assert all(json.loads(line)["model"] == "tiny" for line in lines)
    assert "load_duration" in json.loads(lines[-1])


def test_a_prompt_is_answered_through_the_chat_template(sdk: ollama.Client, engine: Path) -> None:
    answer = sdk.generate(model="tiny", prompt="hello there", system="Be brief.")
    assert (answer.response or "").startswith(TEXT)
    assert answer.done_reason == "stop"
    seen = stats(engine)
    assert seen["last_path"] == "/v1/chat/completions"
    assert [message["role"] for message in seen["last_body"]["messages"]] == ["system", "user"]
    lines = list(sdk.generate(model="tiny", prompt="hello there", stream=True))
    assert "".join(line.response or "" for line in lines) == answer.response


def test_a_raw_prompt_goes_to_the_model_as_it_is(sdk: ollama.Client, engine: Path) -> None:
    assert (sdk.generate(model="tiny", prompt="hello there", raw=True).response or "").startswith(TEXT)
    seen = stats(engine)
    assert (seen["last_path"], seen["last_body"]["prompt"]) == ("/v1/completions", "hello there")


@pytest.mark.parametrize("stream", [True, False])
def test_tools_are_called_with_objects(sdk: ollama.Client, engine: Path, stream: bool) -> None:
    said = {"content": "I look.", "tool_calls": [call("weather", {"city": "Paris"}), call("time", {})]}
    lines = ask(sdk, stream=stream, messages=fake(message=said, finish="tool_calls"), tools=[WEATHER])
    calls = [made.function for line in lines for made in line.message.tool_calls or ()]
    assert [(made.name, made.arguments) for made in calls] == [("weather", {"city": "Paris"}), ("time", {})]
    assert "".join(line.message.content or "" for line in lines) == "I look."
    assert lines[-1].done_reason == "stop"
    assert stats(engine)["last_body"]["tools"][0]["function"]["name"] == "weather"


def test_results_of_tools_find_their_calls(sdk: ollama.Client, engine: Path) -> None:
    calls = [{"function": {"name": name, "arguments": {"n": 1}}} for name in ("one", "two", "one")]
    sdk.chat(
        model="tiny",
        messages=[
            *QUESTION,
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "tool_name": "two", "content": "2"},
            {"role": "tool", "tool_name": "one", "content": "1"},
            {"role": "tool", "content": "3"},
        ],
    )
    seen = stats(engine)["last_body"]["messages"]
    assert [made["id"] for made in seen[1]["tool_calls"]] == ["call_0", "call_1", "call_2"]
    assert seen[1]["tool_calls"][0]["function"] == {"name": "one", "arguments": '{"n": 1}'}
    assert [message["tool_call_id"] for message in seen[2:]] == ["call_1", "call_0", "call_2"]


@pytest.mark.parametrize(
    ("think", "shown", "sent"),
    [
        (None, "Hm.", None),
        (True, "Hm.", {"enable_thinking": True, "thinking": True}),
        (False, None, {"enable_thinking": False, "thinking": False}),
        ("low", "Hm.", {"enable_thinking": True, "thinking": True}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_thinking_is_kept_apart_from_what_is_said(
    sdk: ollama.Client, engine: Path, think: Any, shown: str | None, sent: Any, stream: bool
) -> None:
    messages = fake(message={"reasoning": "Hm.", "content": "Paris."})
    lines = ask(sdk, stream=stream, messages=messages, think=think)
    assert ("".join(line.message.thinking or "" for line in lines) or None) == shown
    assert "".join(line.message.content or "" for line in lines) == "Paris."
    seen = stats(engine)["last_body"]
    assert seen.get("chat_template_kwargs") == sent
    assert seen.get("reasoning_effort") == ("low" if think == "low" else None)


def test_a_format_is_a_grammar(sdk: ollama.Client, engine: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    answer = sdk.chat(model="tiny", messages=QUESTION, format=schema)
    assert json.loads(answer.message.content or "") == {"city": "text"}
    sdk.chat(model="tiny", messages=QUESTION, format="json")
    assert stats(engine)["last_body"]["response_format"] == {"type": "json_object"}


def test_images_get_their_media_type(sdk: ollama.Client, engine: Path) -> None:
    sdk.chat(model="tiny", messages=[{"role": "user", "content": "what is it?", "images": [PNG]}])
    sdk.generate(model="tiny", prompt="what is it?", images=[PNG])
    parts = stats(engine)["last_body"]["messages"][0]["content"]
    assert parts[0] == {"type": "text", "text": "what is it?"}
    assert parts[1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    with pytest.raises(ollama.ResponseError, match="PNG, JPEG, GIF or WebP"):
        sdk.generate(model="tiny", prompt="x", images=["AAAA"])


@pytest.mark.parametrize("stream", [True, False])
def test_log_probabilities_come_along(sdk: ollama.Client, stream: bool) -> None:
    lines = ask(sdk, stream=stream, logprobs=True, top_logprobs=1)
    found = [each for line in lines for each in line.logprobs or ()]
    assert len(found) > 4
    assert found[0].logprob == -0.25
    assert found[0].top_logprobs


def test_options_are_mapped(sdk: ollama.Client, engine: Path) -> None:
    options = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7, "presence_penalty": 0.1,
        "frequency_penalty": 0.2, "repeat_penalty": 1.1, "repeat_last_n": -1, "num_predict": 20, "stop": ["END"],
        "mirostat": 0, "num_gpu": -1, "use_mmap": True,
    }  # fmt: skip
    sdk.chat(model="tiny", messages=QUESTION, options=options)
    seen = stats(engine)["last_body"]
    del seen["messages"]
    assert seen == {
        "model": "tiny", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 0.9,
        "top_k": 40, "min_p": 0.1, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "repetition_penalty": 1.1, "max_tokens": 20, "stop": ["END"],
    }  # fmt: skip


def test_a_limit_ends_the_answer_for_its_length(sdk: ollama.Client) -> None:
    assert sdk.generate(model="tiny", prompt="hello there", options={"num_predict": 2}).done_reason == "length"


def test_the_models_defaults_fill_in_and_no_limit_is_none(engine: Path) -> None:
    table = Routing(routes={"tiny": route(engine, temperature=0.5, max_tokens=2)})
    with serve(FakePort(table)) as served, ollama.Client(host=served.base) as sdk:
        assert sdk.chat(model="tiny", messages=QUESTION).done_reason == "length"
        assert stats(engine)["last_body"]["temperature"] == 0.5
        assert sdk.chat(model="tiny", messages=QUESTION, options={"num_predict": -1}).done_reason == "stop"
        assert "max_tokens" not in stats(engine)["last_body"]


@pytest.fixture
def knowing(engine: Path) -> Iterator[ollama.Client]:
    """A model whose engine says how long its context is, and that is unloaded after ten minutes."""
    known = replace(
        route(engine), context=4096, idle_unload=600.0, capabilities=frozenset(("completion", "tools", "thinking"))
    )
    with serve(FakePort(Routing(routes={"tiny": known}))) as served, ollama.Client(host=served.base) as sdk:
        yield sdk


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"options": {"num_ctx": 8192}}, "models.tiny.engine.max_model_len"),
        ({"keep_alive": 0}, "models.tiny.idle_unload"),
        ({"keep_alive": "1h"}, "600 s"),
        ({"keep_alive": -1}, "600 s"),
        ({"keep_alive": "soon"}, "no duration"),
    ],
)
def test_what_the_file_says_is_not_changed_by_a_request(knowing: ollama.Client, asked: Any, says: str) -> None:
    for ask in (
        lambda: knowing.chat(model="tiny", messages=QUESTION, **asked),
        lambda: knowing.generate(model="tiny", **asked),
        lambda: knowing.embed(model="tiny", input="x", **asked),
    ):
        with pytest.raises(ollama.ResponseError, match=says) as caught:
            ask()
        assert caught.value.status_code == 400


@pytest.mark.parametrize(
    "asked", [{"options": {"num_ctx": 2048}}, {"keep_alive": "5m"}, {"keep_alive": 600}, {"keep_alive": "90s"}]
)
def test_a_wish_that_the_file_fulfils_is_taken(knowing: ollama.Client, asked: Any) -> None:
    assert knowing.chat(model="tiny", messages=QUESTION, **asked).done


def test_a_model_without_a_prompt_is_loaded(gateway: Served, engine: Path, sdk: ollama.Client) -> None:
    gateway.state.coming["other"] = route(engine, "other", "tiny")
    gateway.state.delay = 0.2
    before = stats(engine)["requests"]
    loaded = sdk.generate(model="other")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    assert (loaded.load_duration or 0) > 0.1 * SECOND
    assert sdk.chat(model="other", messages=[]).done_reason == "load"
    assert stats(engine)["requests"] == before


def test_texts_are_embedded(sdk: ollama.Client, engine: Path) -> None:
    found = sdk.embed(model="tiny", input=["a", "b"])
    assert len(found.embeddings) == 2
    assert len(found.embeddings[0]) == 8
    assert found.prompt_eval_count == 2
    assert stats(engine)["last_body"]["truncate_prompt_tokens"] == -1
    assert sdk.embed(model="tiny", input="a", truncate=False).embeddings == [found.embeddings[0]]
    assert "truncate_prompt_tokens" not in stats(engine)["last_body"]
    assert sdk.embeddings(model="tiny", prompt="a").embedding == found.embeddings[0]


def test_models_are_listed_shown_and_seen_running(knowing: ollama.Client) -> None:
    (model,) = knowing.list().models
    assert model.model == "tiny:latest"
    assert len(model.digest or "") == 64
    shown = knowing.show("tiny:latest")
    assert shown.capabilities == ["completion", "thinking", "tools"]
    assert shown.modelinfo == {"general.architecture": "unknown", "unknown.context_length": 4096}
    (running,) = knowing.ps().models
    assert (running.model, running.context_length) == ("tiny:latest", 4096)
    assert running.expires_at


def test_only_what_a_key_may_use_is_listed(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one", models=("oth*",)),))
    with ollama.Client(host=gateway.base, headers={"authorization": "Bearer sk-one"}) as sdk:
        assert [model.model for model in sdk.list().models] == ["other:latest"]
        assert sdk.ps().models == []
        with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
            sdk.show("tiny")
    assert caught.value.status_code == 404
    with ollama.Client(host=gateway.base) as stranger, pytest.raises(ollama.ResponseError, match="no API key"):
        stranger.list()


def test_names_with_a_tag_and_aliases_are_found_and_kept(sdk: ollama.Client) -> None:
    for name in ("tiny:latest", "gpt-test", "gpt-test:latest", "claude-x"):
        assert sdk.chat(model=name, messages=QUESTION).model == name


def test_somebody_is_there(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    assert gateway.ask("GET", "/").content == b"Ollama is running"
    assert gateway.ask("HEAD", "/").status == 200
    assert gateway.ask("GET", "/api/version").json()["version"]


@pytest.mark.parametrize("verb", ["pull", "push", "create", "copy", "delete"])
def test_verbs_that_change_what_is_served_name_the_file(sdk: ollama.Client, verb: str) -> None:
    arguments = {"copy": ("tiny", "other"), "create": ("new", None, None, "tiny")}.get(verb, ("tiny",))
    with pytest.raises(ollama.ResponseError, match=r"model-runner\.yaml") as caught:
        getattr(sdk, verb)(*(argument for argument in arguments if argument))
    assert caught.value.status_code == 409


# Errors


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("chat", {"options": {"num_gpu": 3}}, "options.num_gpu"),
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat"),
        ("chat", {"options": {"tfs_z": 0.5}}, "options.tfs_z"),
        ("chat", {"options": {"brand_new": 1}}, "options.brand_new: there is no such option"),
        ("chat", {"options": {"temperature": "hot"}}, "options.temperature: must be a number"),
        ("chat", {"options": {"num_predict": 0}}, "options.num_predict"),
        ("chat", {"options": {"repeat_penalty": 1.1, "repeat_last_n": 64}}, "options.repeat_last_n"),
        ("chat", {"options": {"stop": 7}}, "options.stop"),
        ("chat", {"options": 7}, "options: must be an object"),
        ("chat", {"format": "xml"}, "format"),
        ("chat", {"think": "hard"}, "think"),
        ("chat", {"messages": "x"}, "messages: must be a list"),
        ("chat", {"messages": [{"content": "x"}]}, "messages.0.role"),
        ("chat", {"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ("chat", {"top_logprobs": 3}, "top_logprobs"),
        ("generate", {"suffix": "}"}, "suffix"),
        ("generate", {"template": "{{ .Prompt }}"}, "template"),
        ("generate", {"context": [1, 2]}, "context"),
        ("generate", {"raw": True, "system": "x"}, "system"),
        ("generate", {"prompt": 7}, "prompt"),
        ("embed", {"input": 7}, "input"),
        ("embed", {"input": []}, "input"),
        ("embed", {"input": [7]}, "input"),
        ("embed", {"input": "x", "options": {"num_thread": 4}}, "options.num_thread"),
        ("embeddings", {}, "prompt"),
        ("show", {"model": None}, "model: is required"),
        ("chat", {"model": None}, "`model` is missing"),
    ],
)
def test_what_has_no_meaning_here_is_refused_by_its_name(gateway: Served, path: str, change: Any, says: str) -> None:
    body = {"model": "tiny", **change}
    answer = gateway.ask("POST", f"/api/{path}", body)
    assert answer.status == 400
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]


def test_an_unknown_model_is_not_found(sdk: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="`nobody` does not exist") as caught:
        sdk.chat(model="nobody", messages=QUESTION)
    assert caught.value.status_code == 404


@pytest.mark.parametrize("behaviour", [{"error_after": 3}, {"finish": "abort"}])
def test_a_stream_that_fails_ends_with_one_error_line(gateway: Served, behaviour: Any) -> None:
    content = gateway.ask("POST", "/api/chat", {"model": "tiny", "messages": fake(**behaviour)}).content
    lines = [json.loads(line) for line in content.splitlines()]
    assert set(lines[-1]) == {"error"}
    assert not any("error" in line or line["done"] for line in lines[:-1])


def test_an_engine_killed_in_a_stream_is_raised_by_the_client(directory: Path) -> None:
    raised = pytest.raises(ollama.ResponseError, match="ended the connection")
    with fragile(directory) as (served, _, _), ollama.Client(host=served.base) as sdk, raised:
        ask(sdk, stream=True, messages=fake(crash_after=3))


@pytest.mark.parametrize("stream", [True, False])
def test_arguments_that_are_no_object_are_an_error_unless_the_limit_cut_them(sdk: ollama.Client, stream: bool) -> None:
    said = {"tool_calls": [call("weather", '{"city": "Par')]}
    with pytest.raises(ollama.ResponseError, match="weather"):
        ask(sdk, stream=stream, messages=fake(message=said), tools=[WEATHER])
    lines = ask(sdk, stream=stream, messages=fake(message=said, finish="length"), tools=[WEATHER])
    assert not any(line.message.tool_calls for line in lines)
    assert lines[-1].done_reason == "length"


# Waiting and going away


@pytest.fixture
def slow(engine: Path) -> Iterator[Served]:
    """One engine, and a model that takes four keep-alives to become it."""
    state = FakePort(Routing(routes={"tiny": None}), {"tiny": route(engine)}, delay=0.2)
    with serve(state, keep_alive=0.05) as served:
        yield served


def test_a_held_stream_is_kept_alive_by_lines_that_say_nothing(slow: Served) -> None:
    for path, body in (
        ("chat", {"messages": fake(first=0.2)}),
        ("generate", {"prompt": fake(first=0.2)[0]["content"]}),
    ):
        content = slow.ask("POST", f"/api/{path}", {"model": "tiny", **body}).content
        lines = [json.loads(line) for line in content.splitlines()]
        said = [line["response"] if path == "generate" else line["message"]["content"] for line in lines]
        assert said[:3] == ["", "", ""]
        assert "".join(said).startswith("tiny answers")
        assert lines[-1]["done"]


def test_the_official_client_reads_past_them(slow: Served) -> None:
    with ollama.Client(host=slow.base) as sdk:
        lines = list(sdk.chat(model="tiny", messages=QUESTION, stream=True))
    assert "".join(line.message.content or "" for line in lines).startswith(TEXT)
    assert (lines[-1].load_duration or 0) > 0.1 * SECOND


def test_a_held_stream_whose_model_fails_ends_with_one_error_line(slow: Served) -> None:
    slow.state.coming["tiny"] = NotReady("model `tiny` failed: no such kernel")
    content = slow.ask("POST", "/api/chat", {"model": "tiny", "messages": QUESTION}).content
    assert json.loads(content.splitlines()[-1]) == {"error": "model `tiny` failed: no such kernel"}


def test_a_client_that_closes_its_stream_ends_the_generation(gateway: Served, engine: Path) -> None:
    before = stats(engine)["aborted"]

    async def main() -> None:
        async with ollama.AsyncClient(host=gateway.base) as client:
            stream = await client.chat(model="tiny", messages=fake(stall_after=2), stream=True)
            async for _ in stream:
                break
            await stream.aclose()

    asyncio.run(main())
    wait_until(lambda: stats(engine)["aborted"] == before + 1)


def test_a_client_that_times_out_ends_the_generation(gateway: Served, engine: Path) -> None:
    before = stats(engine)["aborted"]
    with ollama.Client(host=gateway.base, timeout=0.3) as sdk, pytest.raises(httpx.ReadTimeout):
        sdk.chat(model="tiny", messages=fake(stall_after=0))
    wait_until(lambda: stats(engine)["aborted"] == before + 1)
