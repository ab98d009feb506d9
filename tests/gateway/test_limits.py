"""What a key may ask for, and what it hears when that is used up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from appliance.config.models import Limits
from appliance.routing import Routing
from tests.gateway.served import QUESTION, Answer, FakePort, Served, chat, key, raw_post, route, serve
from tests.gateway.test_streaming import stats
from tests.support import wait_until

CHAT = "/v1/chat/completions"
MINE = {"authorization": "Bearer sk-mine"}


@contextmanager
def limited(engine: Path, **limits: int) -> Iterator[Served]:
    """A gateway whose key `mine` has these limits, and whose key `other` has none."""
    table = Routing(routes={"tiny": route(engine)}, aliases={"gpt-test": "tiny"}, keys=keys(**limits))
    with serve(FakePort(table)) as served:
        yield served


def keys(**limits: int) -> tuple[Any, ...]:
    return key("mine", "sk-mine", limits=Limits(**limits)), key("other", "sk-other")


def left(answer: Answer, kind: str) -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{kind}"])


def test_the_sdk_sees_a_rate_limit_error_with_what_is_left_and_when_to_come_back(engine: Path) -> None:
    with (
        limited(engine, requests_per_minute=2, tokens_per_minute=100_000) as served,
        openai.OpenAI(base_url=f"{served.base}/v1", api_key="sk-mine", max_retries=0) as sdk,
    ):
        for remaining in ("1", "0"):
            raw = sdk.chat.completions.with_raw_response.create(model="tiny", messages=QUESTION)
            assert raw.headers["x-ratelimit-limit-requests"] == "2"
            assert raw.headers["x-ratelimit-remaining-requests"] == remaining
            assert raw.headers["x-ratelimit-limit-tokens"] == "100000"
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.chat.completions.create(model="tiny", messages=QUESTION)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert "`mine` may make 2 requests per minute" in caught.value.message
        headers = caught.value.response.headers
        assert 25 <= int(headers["retry-after"]) <= 30
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        # Another key has its own.
        assert served.ask("POST", CHAT, chat(), {"authorization": "Bearer sk-other"}).status == 200
        assert served.lines()[2]["error"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat()), ("/v1/completions", {"model": "tiny", "prompt": "one two"}), ("/v1/responses", {"model": "tiny"})],
)
def test_tokens_are_counted_as_the_engine_counts_them(
    engine: Path, path: str, body: dict[str, Any], stream: bool
) -> None:
    with limited(engine, tokens_per_minute=60) as served:
        asked = {**body, "input": "one two", "stream": stream, "fake": {"events": 1000}}
        answer = served.ask("POST", path, asked, MINE)
        assert answer.status == 200
        (line,) = wait_until(served.lines)
        assert line["completion_tokens"] == 1000
        assert line["prompt_tokens"] == (6 if path == CHAT else 2)
        refused = served.ask("POST", path, asked, MINE)
        assert (refused.status, refused.error()["code"]) == (429, "rate_limit_exceeded")
        assert "60 tokens per minute" in refused.error()["message"]
        # 1002 or more of 60 were used: that is some sixteen minutes' worth.
        assert 900 < int(refused.headers["retry-after"]) < 1000


def test_embeddings_count_their_input(engine: Path) -> None:
    with limited(engine, tokens_per_minute=100) as served:
        served.ask("POST", "/v1/embeddings", {"model": "tiny", "input": ["a", "b", "c"]}, MINE)
        (line,) = wait_until(served.lines)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 0)


def test_what_an_engine_refuses_costs_no_tokens(engine: Path) -> None:
    with limited(engine, tokens_per_minute=1000) as served:
        for _ in range(3):
            assert served.ask("POST", CHAT, chat(fake={"status": 400}), MINE).status == 400
        assert left(served.ask("POST", CHAT, chat(), MINE), "tokens") > 900


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_called_off_is_charged_for_what_it_used(engine: Path, stream: bool) -> None:
    with limited(engine, tokens_per_minute=600) as served, served.connect() as client:
        body = chat(stream=stream, fake={"events": 400, "stall_after": 200}, padding="x" * 400)
        client.sendall(raw_post(CHAT, body, authorization="Bearer sk-mine"))
        received = b""
        while stream and received.count(b"data: ") < 201:
            received += client.recv(65536)
        wait_until(lambda: stats(engine)["running"] == 1)
        client.close()
        (line,) = wait_until(served.lines)
        assert line["prompt_tokens"] > 100
        assert 150 < line["completion_tokens"] < 250 if stream else line["completion_tokens"] == 0
        assert left(served.ask("POST", CHAT, chat(), MINE), "tokens") < (400 if stream else 520)


def test_requests_at_once_are_limited_until_one_has_ended(engine: Path) -> None:
    with limited(engine, concurrent=1) as served:
        with served.connect() as client:
            client.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 1}), authorization="Bearer sk-mine"))
            wait_until(lambda: stats(engine)["running"] == 1)
            refused = served.ask("POST", CHAT, chat(), MINE)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "1 requests at once" in refused.error()["message"]
        wait_until(served.lines)
        wait_until(lambda: served.ask("POST", CHAT, chat(), MINE).status == 200)


def test_a_changed_limit_applies_to_the_next_request(engine: Path) -> None:
    with limited(engine, requests_per_minute=1) as served:
        assert [served.ask("POST", CHAT, chat(), MINE).status for _ in range(2)] == [200, 429]
        served.change(keys=keys(requests_per_minute=3))
        assert [served.ask("POST", CHAT, chat(), MINE).status for _ in range(3)] == [200, 200, 429]
        served.change(keys=keys(requests_per_minute=3))  # saved again, nothing changed
        assert served.ask("POST", CHAT, chat(), MINE).status == 429
        served.change(keys=keys())
        assert served.ask("POST", CHAT, chat(), MINE).status == 200


def test_a_revoked_key_finishes_what_runs_and_begins_nothing(engine: Path) -> None:
    with limited(engine, concurrent=4) as served:
        with served.connect() as client:
            body = chat(stream=True, fake={"events": 60, "interval": 0.02})
            client.sendall(raw_post(CHAT, body, authorization="Bearer sk-mine", connection="close"))
            received = client.recv(65536)
            served.change(keys=(key("other", "sk-other"),))
            assert served.ask("POST", CHAT, chat(), MINE).status == 401
            assert stats(engine)["running"] == 1
            while data := client.recv(65536):
                received += data
        assert received.count(b"data: ") == 62
        assert b"data: [DONE]" in received


def test_models_and_health_are_not_limited(engine: Path) -> None:
    with limited(engine, requests_per_minute=1) as served:
        for _ in range(3):
            assert served.ask("GET", "/v1/models", headers=MINE).status == 200
            assert served.ask("GET", "/healthz", headers=MINE).status == 200
        assert served.ask("POST", CHAT, chat(), MINE).status == 200


@pytest.mark.parametrize("model", ["tiny", "gpt-test"])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize(
    ("options", "trailer"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": False}}, False),
        ({"stream_options": {"include_usage": True}}, True),
    ],
)
def test_a_stream_has_its_usage_exactly_where_its_client_asked(
    engine: Path, model: str, path: str, options: dict[str, Any], trailer: bool
) -> None:
    body = chat(stream=True, prompt="say usage", model=model, fake={"events": 9}, **options)
    plain = Routing(routes={"tiny": route(engine)}, aliases={"gpt-test": "tiny"})
    with serve(FakePort(plain)) as served:
        expected = served.ask("POST", path, body, {"x-request-id": "same"}).content
    with limited(engine, tokens_per_minute=100_000) as served:
        got = served.ask("POST", path, body, {**MINE, "x-request-id": "same"}).content
        (line,) = wait_until(served.lines)
        assert line["completion_tokens"] == 9
    assert events(got) == events(expected)
    assert sum(isinstance(each, dict) and each["choices"] == [] for each in events(got)) == trailer
    assert (b'"usage"' in got) == trailer


def events(stream: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line]
    return [line if line == b"[DONE]" else {**json.loads(line), "created": 0} for line in lines]


def test_an_engine_is_asked_for_usage_only_where_somebody_wants_it(engine: Path) -> None:
    with limited(engine, requests_per_minute=100) as served:
        served.ask("POST", CHAT, chat(stream=True), MINE)
        assert "stream_options" not in stats(engine)["last_body"]
    with limited(engine, tokens_per_minute=100) as served:
        served.ask("POST", CHAT, chat(stream=True), MINE)
        assert stats(engine)["last_body"]["stream_options"] == {"include_usage": True}
        served.ask("POST", CHAT, chat(stream=False), {"authorization": "Bearer sk-other"})
        assert "stream_options" not in stats(engine)["last_body"]


def test_stream_options_that_make_no_sense_are_the_engines_to_refuse(engine: Path) -> None:
    with limited(engine, tokens_per_minute=100_000) as served:
        served.ask("POST", CHAT, chat(stream=True, stream_options=7), MINE)
        assert stats(engine)["last_body"]["stream_options"] == 7


def test_anthropics_sdk_sees_a_rate_limit_error(engine: Path) -> None:
    with (
        limited(engine, requests_per_minute=1) as served,
        anthropic.Anthropic(base_url=served.base, api_key="sk-mine", max_retries=0) as sdk,
    ):
        question: Any = {"model": "tiny", "max_tokens": 5, "messages": QUESTION}
        assert sdk.messages.create(**question).content
        with pytest.raises(anthropic.RateLimitError) as caught:
            sdk.messages.create(**question)
        assert caught.value.response.headers["retry-after"]
