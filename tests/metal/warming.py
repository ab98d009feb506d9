"""Run by path inside the Metal engine environment: engines with and without a warm-up. Prints one JSON object.

warming.py SCRATCH
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.random_checkpoint import write, write_tokenizer
from tests.metal.encoders import SIZES, models
from tests.metal.reply import reply

PROMPTS = [list(range(5, 45)), [7, 8, 9]]
BUDGET, SEQUENCES, LENGTH = 48, 4, 96


def main(scratch: str) -> dict[str, Any]:
    decoder, encoder = Path(scratch) / "llama", Path(scratch) / "bert"
    write("tiny", decoder)
    models()["bert"].save_pretrained(encoder)
    write_tokenizer(encoder, SIZES["vocab_size"])
    return {
        "generating": compared(generated, decoder),
        "embedding by a decoder": compared(embedded, decoder, max_model_len=LENGTH, max_num_batched_tokens=BUDGET),
        "embedding by an encoder": compared(embedded, encoder, max_model_len=40),
        "shapes": shapes(),
        "refusal": refusal(),
    }


def compared(run: Callable[..., dict[str, Any]], *arguments: Any, **settings: Any) -> dict[str, Any]:
    found = {}
    for choice in ("off", "on"):
        os.environ["METAL_WARM_UP"] = choice
        found[choice] = run(*arguments, **settings)
    return found


def generated(checkpoint: Path) -> dict[str, Any]:
    """Greedy, seeded and unseeded tokens of a new engine, and its state before them."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(checkpoint),
        max_model_len=LENGTH,
        max_num_batched_tokens=BUDGET,
        max_num_seqs=SEQUENCES,
        kv_cache_memory_bytes=4 << 20,
        seed=3,
    )
    state = _state(engine)
    prompts = [{"prompt_token_ids": each} for each in PROMPTS]
    params = [{"temperature": 0}, {"temperature": 1, "seed": 5}, {"temperature": 1}]
    tokens = [
        [list(each.outputs[0].token_ids) for each in engine.generate(prompts, _sampling(SamplingParams, own))]
        for own in params
    ]
    return {"tokens": tokens, **state}


def _sampling(kind: Any, own: dict[str, Any]) -> Any:
    return kind(max_tokens=12, ignore_eos=True, detokenize=False, **own)


def embedded(checkpoint: Path, **settings: Any) -> dict[str, Any]:
    from vllm import LLM

    engine = LLM(str(checkpoint), runner="pooling", kv_cache_memory_bytes=4 << 20, **settings)
    state = _state(engine)
    prompts = [{"prompt_token_ids": each[:30]} for each in PROMPTS]
    return {"vectors": [each.outputs.embedding for each in engine.embed(prompts, use_tqdm=False)], **state}


def _state(engine: Any) -> dict[str, Any]:
    import mlx.core as mx

    core = engine.llm_engine.engine_core.engine_core
    worker = core.model_executor.driver_worker.worker
    pools = worker.model_runner.pools()
    return {
        "pools": len(pools),
        "zero": all(not mx.any(each != 0).item() for each in pools),
        "requests": len(worker.model_runner.requests),
        "free blocks": core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
        "seconds": worker.compile_or_warm_up_model()._asdict(),
    }


def shapes() -> dict[str, list[list[int]]]:
    """What is tried for a GPU's budget, for a small one and for the smallest there is."""
    from appliance_metal.warm_up import embedded, generated

    limits = {"large": (2048, 256, 8192), "small": (48, 4, 96), "least": (1, 1, 1)}
    return {
        f"{kind} {name}": [[each.requests, each.count, each.context] for each in make(*limit)]
        for kind, make in (("generated", generated), ("embedded", embedded))
        for name, limit in limits.items()
    }


def refusal() -> str:
    from appliance_metal import warm_up

    os.environ[warm_up.VARIABLE] = "perhaps"
    try:
        warm_up.wanted()
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    reply(main)
