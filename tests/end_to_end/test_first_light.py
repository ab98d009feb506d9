"""The product's first promise, kept by the real model in real vLLM."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import openai
import psutil
import pytest

from tests.end_to_end.conftest import Served
from tests.support import wait_until

pytestmark = pytest.mark.engine

QUESTION: list[openai.types.chat.ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
GREEDY = {"temperature": 0.0, "max_tokens": 24}


def test_the_official_sdk_is_answered_by_the_real_model(served: Served) -> None:
    with served.client() as sdk:
        answer = sdk.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=24)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.model == "smollm2"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 5


def test_a_stream_says_the_same_piece_by_piece(served: Served) -> None:
    with served.client() as sdk:
        chunks = list(
            sdk.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=24, stream=True)
        )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "The capital of France is Paris."
    assert len(pieces) > 4


def test_the_command_of_the_readme_works_without_a_content_type(served: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.base).netloc, timeout=60)
    body = {"model": "smollm2", "stream": True, "messages": QUESTION, **GREEDY}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/x-www-form-urlencoded"}
    )
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    assert "Paris" in text
    assert text.rstrip().endswith("data: [DONE]")


def test_an_alias_answers_under_its_own_name(served: Served) -> None:
    with served.client() as sdk:
        chunks = list(sdk.chat.completions.create(model="ai/smollm2", messages=QUESTION, max_tokens=4, stream=True))
        assert {chunk.model for chunk in chunks} == {"ai/smollm2"}
        assert "ai/smollm2" in [model.id for model in sdk.models.list()]


def test_completions_and_responses_reach_the_engine(served: Served) -> None:
    with served.client() as sdk:
        text = sdk.completions.create(model="smollm2", prompt="The capital of France is", max_tokens=3, temperature=0)
        assert "Paris" in text.choices[0].text
        response = sdk.responses.create(model="smollm2", input="What is the capital of France?", max_output_tokens=24)
        assert response.status in {"completed", "incomplete"}
        assert response.output_text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"max_tokens": 10_000_000}, 400),
        ({"temperature": "hot"}, 400),
        ({"messages": []}, 400),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400),
        ({"model": "nobody"}, 404),
    ],
)
def test_a_bad_request_is_refused_in_shape_and_the_engine_lives_on(
    served: Served, change: dict[str, object], status: int
) -> None:
    with served.client() as sdk:
        with pytest.raises(openai.APIStatusError) as error:
            sdk.chat.completions.create(**{"model": "smollm2", "messages": QUESTION, **change})  # type: ignore[call-overload]
        assert error.value.status_code == status
        assert isinstance(error.value.body, dict)
        assert {"message", "type", "param", "code"} <= error.value.body.keys()
        assert sdk.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=1).choices


def test_a_client_that_goes_away_aborts_its_generation(served: Served) -> None:
    with served.client() as sdk:
        stream = sdk.chat.completions.create(
            model="smollm2", messages=QUESTION, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        assert served.status()["models"][0]["engines"][0]["in_flight"] == 1
        stream.close()
    idle = lambda: served.status()["models"][0]["engines"][0]["in_flight"] == 0  # noqa: E731
    wait_until(idle, what="the request is given up")


def test_the_control_process_stays_small(served: Served) -> None:
    assert psutil.Process(served.status()["pid"]).memory_info().rss < 80 * 2**20


def test_the_environment_proves_its_platform(served: Served, engine_python: Path) -> None:
    verified = served.command("env", "verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout == "vllm: CpuPlatform\n"
    listed = json.loads(served.command("env", "list", "--json").stdout)
    (environment,) = [each for each in listed if each["name"] == engine_python.parents[1].name]
    assert environment["complete"]
    refused = served.command("env", "remove", environment["name"])
    assert refused.returncode == 1
    assert "in use" in refused.stderr


def test_the_weights_are_listed_with_their_size(served: Served) -> None:
    (row,) = json.loads(served.command("models", "--json").stdout)
    assert row["present"]
    assert row["kind"] == "gguf"


def test_no_key_of_an_engine_is_visible(served: Served) -> None:
    (engine,) = served.status()["models"][0]["engines"]
    assert "key" not in engine
    tree = [psutil.Process(engine["pid"]), *psutil.Process(engine["pid"]).children(recursive=True)]
    assert not any("--api-key" in process.cmdline() for process in tree)


def test_a_killed_engine_leaves_nothing_and_another_takes_its_place(served: Served) -> None:
    (engine,) = served.status()["models"][0]["engines"]
    tree = [psutil.Process(engine["pid"]), *psutil.Process(engine["pid"]).children(recursive=True)]
    os.kill(engine["pid"], signal.SIGKILL)
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not alive
    wait_until(lambda: served.status()["ready"], within=120, what="another engine is ready")
    assert served.status()["models"][0]["restarts"] == 1
    with served.client() as sdk:
        assert sdk.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=1).choices
