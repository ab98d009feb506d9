from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.engines import vllm_arguments
from appliance.engines.driver import Choice, Launch, LayerCache, Shape
from appliance.engines.vllm_metal import SITE, VLLMMetal
from appliance.plan.desired import EngineSpec

LAUNCH = Launch(
    python=Path("/env/bin/python"),
    model=Path("/models/smol"),
    directory=Path("/run/e-1"),
    key="s3cret",
    platform="MetalPlatform",
)
ON_CPU, ON_METAL = VLLMMetal(mac=False), VLLMMetal(mac=True)
GIB = 1024**3


def spec(**engine: Any) -> EngineSpec:
    given = tuple(sorted((name, json.dumps(value)) for name, value in engine.items()))
    return EngineSpec(model="smol", backend="vllm-metal", source="/models/smol", engine=given)


def test_command_proves_the_platform_before_it_serves() -> None:
    assert ON_CPU.argv(spec(max_model_len=2048), LAUNCH) == (
        "/env/bin/python",
        "-m",
        "appliance_metal.serve",
        "--model=/models/smol",
        "--uds=/run/e-1/engine.sock",
        "--served-model-name",
        "smol",
        "--allowed-media-domains",
        "none.invalid",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
        f"--kv-cache-memory-bytes={GIB}",
        "--max-model-len=2048",
        "--max-num-batched-tokens=512",
    )


def test_plug_in_is_that_of_this_installation_and_nothing_else_is_on_the_path() -> None:
    env = ON_CPU.env(spec(), LAUNCH)
    assert (env["PYTHONPATH"], env["VLLM_PLUGINS"]) == (str(SITE), "appliance_metal")
    assert sorted(each.name for each in SITE.iterdir() if each.name != "__pycache__") == [
        "appliance_metal.dist-info",
        "appliance_metal.py",
    ]
    assert "appliance_metal:register" in (SITE / "appliance_metal.dist-info" / "entry_points.txt").read_text()


def test_key_is_in_the_environment_and_not_in_the_command() -> None:
    assert ON_CPU.env(spec(), LAUNCH)["VLLM_API_KEY"] == "s3cret"
    assert not any("s3cret" in word for word in ON_CPU.argv(spec(), LAUNCH))


@pytest.mark.parametrize(
    "engine",
    [
        {"tensor_parallel_size": 2},
        {"speculative_config": {"method": "ngram"}},
        {"kv_cache_dtype": "fp8"},
        {"quantization": "awq"},
        {"trust_remote_code": True},
        {"cpu_offload_gb": 4},
        {"spec_method": "ngram"},
        {"lora_dtype": "float16"},
        {"model_impl": "transformers"},
    ],
    ids=lambda engine: next(iter(engine)),
)
def test_argument_that_would_not_reach_the_model_is_refused_by_name(engine: dict[str, Any]) -> None:
    (problem,) = ON_CPU.check(engine)
    assert (problem.key, problem.message) == (next(iter(engine)), "not supported by vllm-metal")
    assert problem.hint


def test_other_arguments_are_checked_as_vllms_own() -> None:
    assert list(ON_CPU.check({"max_model_len": 2048, "gpu_memory_utilization": 0.5})) == []
    (problem,) = ON_CPU.check({"max_model_length": 2048})
    assert problem.hint == "did you mean `max_model_len`?"


def test_quantized_weights_are_counted_as_float32_where_the_cpu_computes() -> None:
    four_bits = Shape(weights=100, bits=5.0)
    on_cpu, on_metal = ON_CPU.memory(spec(), LAUNCH, four_bits), ON_METAL.memory(spec(), LAUNCH, four_bits)
    assert on_cpu is not None
    assert on_metal is not None
    assert on_cpu - on_metal == 640 - 100
    assert ON_CPU.memory(spec(dtype="bfloat16"), LAUNCH, four_bits) == on_cpu - 320


CUDA = replace(LAUNCH, versions=(("mlx", "0.32.4"), ("mlx-cuda-13", "0.32.4")), kernels=Path("/state/kernels"))


@pytest.mark.parametrize(
    ("driver", "launch", "device", "batched"),
    [
        (ON_CPU, LAUNCH, None, 512),
        (ON_CPU, LAUNCH, "gpu", 2048),
        (ON_CPU, CUDA, None, 2048),
        (ON_CPU, CUDA, "cpu", 512),
        (ON_METAL, LAUNCH, None, 2048),
        (ON_METAL, LAUNCH, "cpu", 512),
    ],
    ids=["Linux", "Linux, told", "CUDA", "CUDA, told", "Mac", "Mac, told"],
)
def test_a_step_has_as_many_tokens_as_what_computes_it_is_good_for(
    driver: VLLMMetal, launch: Launch, device: str | None, batched: int
) -> None:
    told = replace(spec(), env=(("METAL_DEVICE", device),) if device else ())
    assert f"--max-num-batched-tokens={batched}" in driver.argv(told, launch)
    quantized = Shape(weights=100, bits=5.0)
    at_most = driver.memory(told, launch, quantized), driver.memory(told, launch, Shape(weights=0))
    assert at_most[0] is not None
    assert at_most[1] is not None
    assert at_most[0] - at_most[1] == (640 if batched == 512 else 100)
    asked = replace(told, engine=(("max_num_batched_tokens", "64"),))
    assert "--max-num-batched-tokens=64" in driver.argv(asked, launch)


def test_a_steps_activations_and_logits_are_part_of_the_estimate() -> None:
    wide = Shape(weights=100, width=1000, vocabulary=50)
    with_them, without = ON_METAL.memory(spec(), LAUNCH, wide), ON_METAL.memory(spec(), LAUNCH, Shape(weights=100))
    assert with_them is not None
    assert without is not None
    assert with_them - without == 2048 * 1000 * 2 + 128 * 50 * 4


def test_kernels_that_are_compiled_outlive_the_engine() -> None:
    assert ON_CPU.env(spec(), CUDA)["MLX_PTX_CACHE_DIR"] == "/state/kernels/mlx-cuda-13-0.32.4"
    assert "MLX_PTX_CACHE_DIR" not in ON_CPU.env(spec(), LAUNCH)


def test_cache_that_is_a_share_of_the_device_cannot_be_told_beforehand() -> None:
    assert ON_METAL.memory(spec(kv_cache_memory_bytes=None), LAUNCH, Shape(100)) is None


def test_fitting_context_is_counted_at_the_width_of_the_cache() -> None:
    shape = Shape(weights=0, cache=(LayerCache(1, 512),), context=10**9)
    available = ON_CPU.memory(spec(kv_cache_memory_bytes=GIB), LAUNCH, shape)
    assert available is not None
    assert ON_METAL.fitting(spec(), LAUNCH, shape, available) == {
        "max_model_len": GIB // 1024,
        "kv_cache_memory_bytes": GIB,
    }
    assert ON_CPU.fitting(spec(), LAUNCH, shape, available) == {
        "max_model_len": GIB // 2048,
        "kv_cache_memory_bytes": GIB,
    }
    assert ON_CPU.fitting(spec(), LAUNCH, replace(shape, weights=2 * GIB, floats=GIB), available) is None


@pytest.mark.parametrize("name", sorted({*vllm_arguments.arguments(), *vllm_arguments.OWNED}))
def test_every_argument_reaches_vllm_or_is_refused(name: str) -> None:
    """Some servers drop a few of them without a word."""
    argument = vllm_arguments.arguments().get(name, {"type": "str"})
    value = sample(argument)
    problems = list(ON_CPU.check({name: value}))
    if problems:
        assert [problem.key for problem in problems] == [name]
        assert problems[0].hint
    else:
        without, command = ON_CPU.argv(spec(), LAUNCH), ON_CPU.argv(spec(**{name: value}), LAUNCH)
        flags = {argument["flag"], argument.get("negative")}
        assert any(word.partition("=")[0] in flags for word in set(command) - set(without)), command


def sample(argument: Mapping[str, Any]) -> Any:
    """A value that the argument takes."""
    if argument.get("choices"):
        return [argument["choices"][0]] if argument["type"] == "list" else argument["choices"][0]
    values = {"bool": argument.get("default") is not True, "int": 3, "float": 0.5, "str": "text", "json": {"a": 1}}
    return [values[argument["items"]]] if argument["type"] == "list" else values[argument["type"]]


def test_encoder_reads_a_text_at_once_and_keeps_nothing_of_it() -> None:
    launch = replace(LAUNCH, chosen=(Choice("runner", "pooling", "an encoder"),))
    assert not [word for word in ON_CPU.argv(spec(), launch) if word.startswith("--max-num-batched-tokens")]
    keeps = ON_CPU.memory(spec(), launch, Shape(weights=0, cache=(LayerCache(1, 512),)))
    assert keeps is not None
    assert ON_CPU.memory(spec(), launch, Shape(weights=0, cache=())) == keeps - GIB
