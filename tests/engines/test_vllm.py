from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines.driver import Choice, Launch, LayerCache, Shape
from appliance.engines.vllm import VLLM
from appliance.engines.vllm_arguments import OWNED, arguments
from appliance.plan.desired import EngineSpec

LAUNCH = Launch(
    python=Path("/env/bin/python"),
    model=Path("/models/smol"),
    directory=Path("/run/e-1"),
    key="s3cret",
    platform="CudaPlatform",
)
ON_CPU = replace(LAUNCH, platform="CpuPlatform")


def spec(**engine: Any) -> EngineSpec:
    given = tuple(sorted((name, json.dumps(value)) for name, value in engine.items()))
    return EngineSpec(model="smol", backend="vllm", source="/models/smol", engine=given)


def words(launch: Launch = LAUNCH, **engine: Any) -> tuple[str, ...]:
    """What of the command comes from `engine:` and the defaults."""
    argv = VLLM().argv(spec(**engine), launch)
    return argv[argv.index("--disable-fastapi-docs") + 1 :]


def test_command_runs_the_server_as_a_module_on_the_private_socket() -> None:
    assert VLLM().argv(spec(), LAUNCH) == (
        "/env/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model=/models/smol",
        "--uds=/run/e-1/engine.sock",
        "--served-model-name",
        "smol",
        "--allowed-media-domains",
        "none.invalid",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    )


def test_engine_fetches_media_from_the_listed_hosts_alone_and_follows_none_elsewhere() -> None:
    argv = VLLM().argv(spec(allowed_media_domains=["a.example", "b.example"]), LAUNCH)
    where = argv.index("--allowed-media-domains")
    assert argv[where + 1 : where + 4] == ("a.example", "b.example", "--disable-uvicorn-access-log")
    assert VLLM().env(spec(), LAUNCH)["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_what_the_checkpoint_decides_is_in_the_command_unless_the_file_says_otherwise() -> None:
    chosen = (Choice("tool_call_parser", "hermes", "why"), Choice("enable_auto_tool_choice", True, "why"))
    launch = replace(LAUNCH, chosen=chosen)
    assert words(launch) == ("--enable-auto-tool-choice", "--tool-call-parser=hermes")
    assert words(launch, tool_call_parser="glm47") == ("--enable-auto-tool-choice", "--tool-call-parser=glm47")


def test_key_is_in_the_environment_and_not_in_the_command() -> None:
    assert VLLM().env(spec(), LAUNCH)["VLLM_API_KEY"] == "s3cret"
    assert not any("s3cret" in word for word in VLLM().argv(spec(), LAUNCH))
    assert "s3cret" not in repr(spec())


def test_engine_reports_no_usage_and_fetches_nothing() -> None:
    env = VLLM().env(spec(), LAUNCH)
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1", "1")
    assert "VLLM_TARGET_DEVICE" not in env


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"max_model_len": 4096}, ("--max-model-len=4096",)),
        ({"max_model_len": "4k"}, ("--max-model-len=4k",)),
        ({"enforce_eager": True}, ("--enforce-eager",)),
        ({"enforce_eager": False}, ("--no-enforce-eager",)),
        ({"dtype": "bfloat16"}, ("--dtype=bfloat16",)),
        ({"hf_overrides": {"a": [1, None]}}, ('--hf-overrides={"a":[1,null]}',)),
        ({"cudagraph_capture_sizes": [1, 2]}, ("--cudagraph-capture-sizes", "1", "2")),
        ({"chat_template": "-x"}, ("--chat-template=-x",)),
        ({"max_model_len": None}, ()),
        ({"dtype": "auto", "block_size": 16}, ("--block-size=16", "--dtype=auto")),
    ],
)
def test_argument_becomes_words_of_the_command(engine: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert list(VLLM().check(engine)) == []
    assert words(**engine) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_model_len", "long", 'expected a whole number or `auto`, got `"long"`'),
        ("max_model_len", True, "expected a whole number or `auto`, got `true`"),
        ("max_num_seqs", 1.5, "expected a whole number, got `1.5`"),
        ("enforce_eager", "yes", 'expected true or false, got `"yes"`'),
        ("gpu_memory_utilization", "0.9", 'expected a number, got `"0.9"`'),
        ("cudagraph_capture_sizes", ["a"], 'expected a list of int values, got `["a"]`'),
        ("port", 80, "set by the appliance"),
    ],
)
def test_value_that_vllm_would_not_take_is_a_problem(name: str, value: object, message: str) -> None:
    (problem,) = VLLM().check({name: value})
    assert (problem.key, problem.message) == (name, message)


def test_choice_that_there_is_not_is_refused_with_the_choices() -> None:
    (problem,) = VLLM().check({"dtype": "int3"})
    assert problem.message.startswith("expected one of `auto`, `bfloat16`")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_model_length", "did you mean `max_model_len`?"),
        ("max-model-len", "did you mean `max_model_len`?"),
        ("--max-model-len", "did you mean `max_model_len`?"),
    ],
)
def test_unknown_argument_is_refused_with_the_one_that_was_meant(name: str, hint: str) -> None:
    (problem,) = VLLM().check({name: 1})
    assert (problem.message, problem.hint) == ("vLLM has no such argument", hint)


@pytest.mark.parametrize("name", ["api_key", "host", "model", "served_model_name", "ssl_keyfile", "allowed_origins"])
def test_argument_the_appliance_owns_is_refused_with_where_to_set_it(name: str) -> None:
    (problem,) = VLLM().check({name: "x"})
    assert problem.message == "set by the appliance"
    assert problem.hint


def test_every_owned_argument_exists() -> None:
    assert [name for name in OWNED if name not in arguments()] == []


def test_every_problem_is_reported() -> None:
    assert {problem.key for problem in VLLM().check({"a": 1, "port": 1, "dtype": 1, "max_num_seqs": 8})} == {
        "a",
        "port",
        "dtype",
    }


def test_start_on_the_cpu_is_eager_with_a_small_cache_unless_the_file_says_otherwise() -> None:
    assert words(ON_CPU) == ("--enforce-eager", "--kv-cache-memory-bytes=1073741824")
    assert words(ON_CPU, enforce_eager=False, kv_cache_memory_bytes="4G") == (
        "--no-enforce-eager",
        "--kv-cache-memory-bytes=4G",
    )
    assert words() == ()


def test_worker_on_the_cpu_lives_in_the_engine_core_unless_there_are_several() -> None:
    driver = VLLM()
    assert driver.env(spec(), ON_CPU)["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in driver.env(spec(tensor_parallel_size=2), ON_CPU)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in driver.env(spec(), LAUNCH)


SMOLLM2 = Shape(weights=270 * 2**20, cache=(LayerCache(30, 384),), context=8192)


@given(st.integers(0, 8 * 2**30), st.none() | st.integers(1, 40_000))
def test_arguments_that_are_said_to_fit_do_fit(available: int, wanted: int | None) -> None:
    driver = VLLM()
    given_: dict[str, Any] = {"max_model_len": wanted} if wanted else {}
    arguments = driver.fitting(spec(**given_), ON_CPU, SMOLLM2, available)
    if arguments is None:
        assert available < (driver.memory(spec(kv_cache_memory_bytes=257 * 23040), ON_CPU, SMOLLM2) or 0) + 2**20 or (
            wanted is not None and wanted < 128
        )
        return
    assert (driver.memory(spec(**{**given_, **arguments}), ON_CPU, SMOLLM2) or 0) <= available
    assert arguments["max_model_len"] * 23040 <= arguments["kv_cache_memory_bytes"]
    assert arguments["max_model_len"] <= (wanted or 8192)


def test_what_fits_on_a_gpu_is_not_told() -> None:
    assert VLLM().fitting(spec(), LAUNCH, SMOLLM2, 10**12) is None
