from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.engines.driver import Launch
from appliance.engines.vllm import VLLM
from appliance.engines.vllm_metal import VLLMMetal
from appliance.errors import ConfigError
from appliance.models.fit import SEQUENCES, cache_of, fits, lengths, parse_target
from appliance.models.shape import Stored, measure
from appliance.plan.desired import EngineSpec

GIB = 2**30
LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32, "hidden_size": 4096}
SHAPE = measure({**LLAMA, "max_position_embeddings": 8192}, [Stored("a", "BF16", (4 * GIB,), 8 * GIB)])
CPU = Launch(python=None, model=Path(), directory=Path(), key="", platform="CpuPlatform")


def spec(**engine: object) -> EngineSpec:
    arguments = tuple(sorted((name, json.dumps(value)) for name, value in engine.items()))
    return EngineSpec(model="m", backend="vllm", source="x", engine=arguments)


@pytest.mark.parametrize(
    ("text", "memory", "limit"),
    [
        ("m2-16gb", 16 * GIB, 16 * GIB * 2 // 3),
        ("M3-Max-64GB", 64 * GIB, 48 * GIB),
        ("m4-pro-36gb", 36 * GIB, 24 * GIB),
    ],
)
def test_target_is_a_chip_and_its_memory(text: str, memory: int, limit: int) -> None:
    target = parse_target(text)
    assert (target.memory, target.limit) == (memory, limit)


@pytest.mark.parametrize("text", ["m2", "16gb", "m2-0gb", "h100-80gb", "m2-16g", ""])
def test_unknown_target_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert "m2-16gb" in str(caught.value.hint)


def test_table_ends_at_the_models_own_context() -> None:
    assert lengths(SHAPE) == (1024, 2048, 4096, 8192)
    assert lengths(measure({"max_position_embeddings": 40960}, []))[-2:] == (32768, 40960)


def test_more_and_longer_sequences_take_more_and_the_budget_decides() -> None:
    table = fits(VLLM(), {}, SHAPE, 12 * GIB, platform="CpuPlatform")
    assert len(table) == 4 * len(SEQUENCES)
    by_size = {(each.max_model_len, each.max_num_seqs): each for each in table}
    assert by_size[1024, 1].memory < by_size[1024, 2].memory < by_size[2048, 2].memory
    assert by_size[1024, 1].fits
    assert not by_size[8192, 64].fits
    assert all(each.fits == (each.memory <= 12 * GIB) for each in table)
    assert by_size[8192, 64].cache == 64 * 8192 * 131072 + 128 * 131072


def test_table_is_empty_where_nobody_can_tell() -> None:
    assert fits(VLLM(), {}, SHAPE, 12 * GIB, platform="CudaPlatform") == ()


def test_longest_context_that_is_told_of_a_refusal_agrees_with_the_table() -> None:
    budget = int(10.4 * GIB)
    found = VLLM().fitting(spec(max_num_seqs=1), CPU, SHAPE, budget)
    assert found is not None
    length = found["max_model_len"]
    assert 0 < length < 8192
    assert length % 128 == 0
    assert found["kv_cache_memory_bytes"] >= cache_of(SHAPE, {}, length, 1)

    def memory(tokens: int) -> int:
        sized = spec(kv_cache_memory_bytes=cache_of(SHAPE, {}, tokens, 1), max_num_seqs=1)
        return VLLM().memory(sized, CPU, SHAPE) or 0

    assert memory(length) <= budget < memory(length + 256)


def test_no_context_fits_where_the_weights_alone_do_not() -> None:
    assert VLLM().fitting(spec(), CPU, SHAPE, 8 * GIB) is None
    assert VLLM().fitting(spec(), CPU, measure({}, []), 80 * GIB) is None


def test_eight_bit_cache_takes_half() -> None:
    half = cache_of(SHAPE, {"kv_cache_dtype": "fp8"}, 4096, 4)
    assert half * 2 == cache_of(SHAPE, {}, 4096, 4)
    assert cache_of(SHAPE, {"dtype": "float32"}, 4096, 4) == 2 * cache_of(SHAPE, {}, 4096, 4)


def test_windows_bound_the_cache_of_engines_that_forget_what_is_outside() -> None:
    windowed = measure({**LLAMA, "sliding_window": 1024, "max_position_embeddings": 8192}, [])

    def cache(driver: VLLM | VLLMMetal) -> int:
        table = fits(driver, {}, windowed, 12 * GIB, platform="CpuPlatform")
        return next(each.cache for each in table if (each.max_model_len, each.max_num_seqs) == (8192, 1))

    per_token = windowed.cache_per_token or 0
    assert cache(VLLM()) == (3072 + 128) * per_token + 256 * per_token
    assert cache(VLLMMetal()) == (8192 + 128) * per_token
