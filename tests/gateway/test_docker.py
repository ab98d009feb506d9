"""Docker Model Runner's clients find their paths, and are told where its settings are here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from appliance.errors import NotReady
from appliance.routing import Routing
from tests.gateway.served import QUESTION, FakePort, Served, chat, key, route, serve
from tests.gateway.test_streaming import stats

TEXT = "tiny answers"


@pytest.fixture
def gateway(engine: Path) -> Iterator[Served]:
    known = replace(route(engine), context=4096, idle_unload=600.0)
    table = Routing(routes={"tiny": known, "other": None}, aliases={"gpt-test": "tiny", "ai/tiny": "tiny"})
    with serve(FakePort(table)) as served:
        yield served


@pytest.mark.parametrize("prefix", ["/engines/v1", "/engines/llama.cpp/v1", "/engines/vllm/v1"])
def test_the_openai_sdk_works_beneath_engines(gateway: Served, prefix: str) -> None:
    with openai.OpenAI(base_url=f"{gateway.base}{prefix}", api_key="none", max_retries=0) as sdk:
        answer = sdk.chat.completions.create(model="ai/tiny", messages=QUESTION)
        assert (answer.choices[0].message.content or "").startswith(TEXT)
        assert answer.model == "ai/tiny"
        chunks = list(sdk.chat.completions.create(model="ai/tiny:latest", messages=QUESTION, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert sdk.completions.create(model="tiny", prompt="hello").choices[0].text.startswith(TEXT)
        assert len(sdk.embeddings.create(model="tiny", input="a").data) == 1
        assert "ai/tiny" in [model.id for model in sdk.models.list()]
        assert sdk.models.retrieve("ai/tiny").id == "ai/tiny"
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.chat.completions.create(model="nobody", messages=QUESTION)
        assert caught.value.code == "model_not_found"


def test_anthropics_sdk_works_beneath_engines_too(gateway: Served) -> None:
    for base in ("/engines", "/engines/vllm"):
        with anthropic.Anthropic(base_url=f"{gateway.base}{base}", api_key="none", max_retries=0) as sdk:
            message = sdk.messages.create(model="tiny", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
            assert message.type == "message"


@pytest.mark.parametrize("path", ["/responses", "/engines/responses", "/engines/vllm/v1/responses"])
def test_responses_are_found_where_it_has_them(gateway: Served, path: str) -> None:
    answer = gateway.ask("POST", path, {"model": "tiny", "input": "hello"}).json()
    assert answer["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/engines/nothing"),
        ("GET", "/engines/v2/models"),
        ("POST", "/engines/unknown-backend/v1/chat/completions"),
        ("POST", "/engines/vllm/health"),
        ("POST", "/engines//v1/chat/completions"),
        ("GET", "/engines/requests"),
    ],
)
def test_what_leads_nowhere_is_a_404_in_plain_text(gateway: Served, method: str, path: str) -> None:
    answer = gateway.ask(method, path, chat())
    assert (answer.status, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")


@pytest.mark.parametrize("path", ["/engines/v1/load_lora_adapter", "/engines/v1/nothing", "/engines/vllm/v1/healthz"])
def test_only_what_is_served_at_its_own_path_is_served_beneath_engines(gateway: Served, path: str) -> None:
    assert gateway.ask("POST", path, chat()).status == 404
    assert gateway.ask("GET", "/engines/v1/chat/completions").status == 405


def test_a_key_is_asked_for_in_the_callers_shape(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one", models=("oth*",)),))
    assert gateway.ask("POST", "/engines/v1/chat/completions", chat()).error()["code"] == "invalid_api_key"
    answer = gateway.ask("GET", "/models")
    assert (answer.status, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
    headers = {"authorization": "Bearer sk-one"}
    assert [model["tags"] for model in gateway.ask("GET", "/models", headers=headers).json()] == [["ai/other:latest"]]
    assert gateway.ask("GET", "/engines/ps", headers=headers).json() == []
    assert gateway.ask("GET", "/models/tiny", headers=headers).status == 404
    refused = gateway.ask("POST", "/engines/_configure", {"model": "tiny"}, headers)
    assert b"models.NAME.engine" in refused.content


def test_models_are_listed_once_with_all_of_their_names(gateway: Served) -> None:
    tiny, other = gateway.ask("GET", "/models").json()
    assert tiny["tags"] == ["ai/tiny:latest", "ai/gpt-test:latest"]
    assert tiny["id"].startswith("sha256:")
    assert len(tiny["id"]) == 71
    assert tiny["config"] == {"context_size": 4096}
    assert isinstance(tiny["created"], int)
    assert (other["tags"], other["config"]) == (["ai/other:latest"], {})


def test_a_model_is_found_by_any_name_and_by_its_id(gateway: Served) -> None:
    tiny = gateway.ask("GET", "/models").json()[0]
    identity = tiny["id"].removeprefix("sha256:")
    for name in ("tiny", "ai/tiny", "ai/tiny:latest", "docker.io/ai/tiny", "gpt-test", tiny["id"], identity[:12]):
        assert gateway.ask("GET", f"/models/{name}").json() == tiny
    assert gateway.ask("GET", "/models/ai/nobody").status == 404
    assert gateway.ask("GET", "/models/0123456789ab").status == 404


def test_what_runs_is_told(gateway: Served) -> None:
    (runner,) = gateway.ask("GET", "/engines/ps").json()
    assert runner.pop("last_used").endswith("Z")
    assert runner == {
        "backend_name": "vllm", "model_name": "ai/tiny:latest", "mode": "completion", "in_use": False,
        "loading": False, "keep_alive": "600s",
    }  # fmt: skip
    assert gateway.ask("GET", "/engines/status").json() == {"vllm": "Running: tiny (ready), other (stopped)"}
    usage = gateway.ask("GET", "/engines/df").json()
    assert usage == {"models_disk_usage": 1000, "default_backend_disk_usage": 5000}


def test_the_configuration_is_told_for_all_or_for_one(gateway: Served) -> None:
    found = gateway.ask("GET", "/engines/_configure").json()
    assert [each["Model"] for each in found] == ["ai/tiny:latest", "ai/other:latest"]
    assert found[1]["Config"] == {}  # nobody knows yet
    (one,) = gateway.ask("GET", "/engines/_configure?model=ai/tiny").json()
    assert one["ModelID"].startswith("sha256:")
    del one["ModelID"]
    assert one == {
        "Backend": "vllm", "Model": "ai/tiny:latest", "Mode": "completion",
        "Config": {"context-size": 4096, "keep_alive": "600s"},
    }  # fmt: skip
    assert gateway.ask("GET", "/engines/_configure?model=nobody").status == 404


def test_a_backend_whose_models_all_failed_is_an_error(gateway: Served) -> None:
    gateway.change(routes={"other": None})
    gateway.state.states["other"] = "failed"
    assert gateway.ask("GET", "/engines/status").json() == {"vllm": "Error: other (failed)"}


@pytest.mark.parametrize(
    ("method", "path", "body", "key_"),
    [
        ("POST", "/engines/_configure", {"model": "ai/tiny", "context-size": 8192}, "models.tiny.engine"),
        ("POST", "/engines/vllm/_configure", {"model": "gpt-test"}, "models.tiny.engine"),
        ("POST", "/engines/_configure", {"model": "nobody"}, "models.NAME.engine"),
        ("POST", "/engines/_configure", b"{", "models.NAME.engine"),
        ("POST", "/engines/unload", {"models": ["ai/tiny"]}, "models.NAME.idle_unload"),
        ("POST", "/engines/install-backend", {"backend": "vllm"}, "models.NAME.backend"),
        ("POST", "/models/create", {"from": "ai/tiny"}, "`models`"),
        ("POST", "/models/load", b"a tar", "`models`"),
        ("DELETE", "/models/purge", None, "`models`"),
        ("DELETE", "/models/ai/tiny", None, "`models.tiny`"),
        ("DELETE", "/models/nobody", None, "`models.NAME`"),
        ("POST", "/models/ai/tiny/tag?repo=x&tag=y", None, "`models.tiny`"),
        ("POST", "/models/tiny/push", {}, "`models.tiny`"),
    ],
)
def test_a_change_is_a_conflict_that_names_the_key_of_the_file(
    gateway: Served, method: str, path: str, body: Any, key_: str
) -> None:
    answer = gateway.ask(method, path, body)
    assert answer.status == 409
    assert key_ in answer.content.decode()
    assert "model-runner.yaml" in answer.content.decode()


def test_a_request_that_only_loads_its_model_is_not_answered(gateway: Served, engine: Path) -> None:
    gateway.state.coming["other"] = route(engine, "other", "tiny")
    before = stats(engine)["requests"]
    headers = {"x-preload-only": "true"}
    answer = gateway.ask("POST", "/engines/v1/chat/completions", chat(model="other"), headers)
    assert (answer.status, answer.content) == (200, b"")
    assert stats(engine)["requests"] == before
    gateway.change(routes={"tiny": None})
    gateway.state.coming["tiny"] = NotReady("model `tiny` failed")
    refused = gateway.ask("POST", "/engines/v1/chat/completions", chat(), headers)
    assert (refused.status, json.loads(refused.content)["error"]["code"]) == (503, "model_not_ready")
