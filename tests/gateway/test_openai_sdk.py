"""The official client, as its users use it."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

from appliance.errors import NotReady
from tests.gateway.served import QUESTION, Served, key

TEXT = "tiny answers"


def test_a_chat_is_answered(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="tiny", messages=QUESTION)
    assert answer.model == "tiny"
    assert (answer.choices[0].message.content or "").startswith(TEXT)
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def test_a_chat_is_streamed_with_its_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="tiny", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    events = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in events if event.choices).startswith(TEXT)
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens > 0


def test_completions_responses_and_embeddings_pass(sdk: openai.OpenAI) -> None:
    assert sdk.completions.create(model="tiny", prompt="hello").choices[0].text.startswith(TEXT)
    assert sdk.responses.create(model="tiny", input="hello").output_text.startswith(TEXT)
    assert len(sdk.embeddings.create(model="tiny", input=["a", "b"]).data) == 2


def test_responses_are_streamed_in_order(sdk: openai.OpenAI) -> None:
    kinds = [event.type for event in sdk.responses.create(model="tiny", input="hello", stream=True)]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_the_async_client_streams(gateway: Served) -> None:
    async def main() -> str:
        async with openai.AsyncOpenAI(base_url=f"{gateway.base}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model="tiny", messages=QUESTION, stream=True)
            return "".join([event.choices[0].delta.content or "" async for event in stream])

    assert asyncio.run(main()).startswith(TEXT)


def test_models_are_listed_with_their_aliases_and_found_by_any_name(sdk: openai.OpenAI) -> None:
    assert {model.id for model in sdk.models.list()} == {"tiny", "other", "gpt-test"}
    for name in ("tiny", "gpt-test", "claude-opus", "ai/tiny:latest"):
        model = sdk.models.retrieve(name)
        assert model.id == name
        assert model.owned_by == "appliance"
        assert model.created > 0


def test_an_alias_is_answered_under_its_own_name(sdk: openai.OpenAI) -> None:
    for name in ("gpt-test", "claude-opus", "ai/tiny:latest"):
        assert sdk.chat.completions.create(model=name, messages=QUESTION).model == name
        events = list(sdk.chat.completions.create(model=name, messages=QUESTION, stream=True))
        assert {event.model for event in events} == {name}


def test_an_unknown_model_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nonsense", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert "nonsense" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nonsense")


def test_a_wrong_or_expired_key_is_an_authentication_error(gateway: Served) -> None:
    gateway.change(keys=(key("old", "sk-old", expires="2020-01-01"), key("now", "sk-now")))
    for clear in ("sk-old", "sk-wrong"):
        with (
            openai.OpenAI(base_url=f"{gateway.base}/v1", api_key=clear, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            client.models.list()
        assert caught.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="sk-now") as client:
        assert client.models.list().data


def test_a_key_without_the_scope_is_denied(gateway: Served) -> None:
    gateway.change(keys=(key("scraper", "sk-metrics", scopes=("metrics",)),))
    with (
        openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="sk-metrics", max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "insufficient_scope"


def test_an_engines_refusal_is_a_bad_request_whose_code_is_no_number(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="tiny", messages=QUESTION, extra_body={"fake": {"status": 400}})
    assert caught.value.code is None
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_an_engines_failure_is_a_server_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="tiny", messages=QUESTION, extra_body={"fake": {"status": 500}})
    assert caught.value.code == "engine_failed"


def test_a_model_that_is_not_ready_says_when_to_come_back(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="other", messages=QUESTION)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "5"


def test_a_failed_model_says_why_without_this_machines_directories(gateway: Served, sdk: openai.OpenAI) -> None:
    gateway.state.coming["other"] = NotReady("model `other` failed: no weights in /home/me/models/other.gguf")
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="other", messages=QUESTION)
    assert "no weights in …/other.gguf" in str(caught.value)
    assert "retry-after" not in caught.value.response.headers


def test_a_model_that_has_failed_for_good_is_asked_once_whatever_the_sdk(gateway: Served) -> None:
    gateway.state.coming["other"] = NotReady("model `other` failed: no weights")
    with (
        openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="none", max_retries=2) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.chat.completions.create(model="other", messages=QUESTION)
    with (
        anthropic.Anthropic(base_url=gateway.base, api_key="none", max_retries=2) as claude,
        pytest.raises(anthropic.InternalServerError),
    ):
        claude.messages.create(model="other", max_tokens=5, messages=[{"role": "user", "content": "hello"}])
    assert [line["status"] for line in gateway.lines()] == [503, 500]


def test_a_model_that_becomes_ready_in_time_is_asked(gateway: Served, sdk: openai.OpenAI) -> None:
    ready = gateway.state.table.routes["tiny"]
    assert ready is not None
    gateway.state.coming["other"] = ready
    assert sdk.chat.completions.create(model="other", messages=QUESTION).model == "other"
    assert ready.lease.in_flight == 0
