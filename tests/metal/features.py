"""Run by path inside the Metal engine environment: sleep, adapters, embeddings. Prints one JSON object.

features.py CHECKPOINT SCRATCH
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.metal.reply import reply

PROMPTS = ["The capital of France is", "Once upon a time", "Water boils at"]
RANK, ALPHA = 4, 16


def main(checkpoint: str, scratch: str) -> dict[str, Any]:
    return {
        "generation": generation(checkpoint, Path(scratch)),
        "embeddings": embeddings(checkpoint),
    }


def generation(checkpoint: str, scratch: Path) -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    adapters = [write_adapter(scratch / name, seed) for name, seed in (("one", 1), ("two", 2))]
    engine = LLM(
        checkpoint,
        max_model_len=128,
        kv_cache_memory_bytes=256 << 20,
        enable_sleep_mode=True,
        enable_lora=True,
        max_loras=2,
        max_lora_rank=8,
    )
    sampling = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    requests = [LoRARequest("one", 1, str(adapters[0])), LoRARequest("two", 2, str(adapters[1])), None]

    def generate(loras: list[Any] | None = None) -> list[list[int]]:
        results = engine.generate(PROMPTS, sampling, lora_request=loras, use_tqdm=False)
        return [list(each.outputs[0].token_ids) for each in results]

    plain, adapted = generate(), generate(requests)
    prompts = [engine.get_tokenizer()(each).input_ids for each in PROMPTS]
    awake = resident()
    engine.sleep(1)
    asleep = resident()
    engine.wake_up()
    return {
        "adapted": adapted,
        "merged": [merged(checkpoint, adapters[row] if row < 2 else None, prompts[row], 10) for row in range(3)],
        "plain": plain,
        "resident": {"awake": awake, "asleep": asleep, "awake again": resident()},
        "after sleep": [generate() == plain, generate(requests) == adapted],
    }


def write_adapter(path: Path, seed: int) -> Path:
    """In PEFT's format, strong enough to change what is said."""
    import mlx.core as mx

    path.mkdir()
    mx.random.seed(seed)
    weights = {}
    for layer in range(0, 30, 5):
        for name, (inputs, outputs) in {"self_attn.q_proj": (576, 576), "mlp.down_proj": (1536, 576)}.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            weights[f"{key}.lora_A.weight"] = mx.random.normal((RANK, inputs)) * 0.08
            weights[f"{key}.lora_B.weight"] = mx.random.normal((outputs, RANK)) * 0.08
    mx.save_safetensors(str(path / "adapter_model.safetensors"), weights)
    config = {"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA", "target_modules": ["q_proj", "down_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def merged(checkpoint: str, adapter: Path | None, prompt: list[int], count: int) -> list[int]:
    """What mlx_lm generates with the adapter added to the weights themselves."""
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import generate_step

    model, _ = mlx_lm.load(checkpoint)
    model.set_dtype(mx.float32)
    if adapter:
        weights = mx.load(str(adapter / "adapter_model.safetensors"))
        modules = dict(model.named_modules())
        for key in [each for each in weights if ".lora_A." in each]:
            down, up = weights[key], weights[key.replace(".lora_A.", ".lora_B.")]
            module = modules[key.removeprefix("base_model.model.").partition(".lora_A.")[0]]
            module.weight = module.weight + (up @ down) * (ALPHA / RANK)
    return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=count)]


def embeddings(checkpoint: str) -> dict[str, Any]:
    import mlx.core as mx
    import mlx_lm
    import numpy as np
    from vllm import LLM

    engine = LLM(
        checkpoint, runner="pooling", max_model_len=128, kv_cache_memory_bytes=64 << 20, max_num_batched_tokens=16
    )
    texts = [
        *PROMPTS,
        "A long sentence that does not fit into sixteen tokens, so that it is computed in several steps.",
    ]
    ours = [np.array(each.outputs.embedding) for each in engine.embed(texts, use_tqdm=False)]
    model, _ = mlx_lm.load(checkpoint)
    model.set_dtype(mx.float32)
    theirs = []
    for text in texts:
        state = np.array(model.model(mx.array([engine.get_tokenizer()(text).input_ids]))[0, -1])
        theirs.append(state / np.linalg.norm(state))
    return {
        "cosines": [float(a @ b) for a, b in zip(ours, theirs, strict=True)],
        "between": float(ours[0] @ ours[1]),
        "norms": [float(np.linalg.norm(each)) for each in ours],
    }


def resident() -> int:
    """MiB of this process in memory, the part that is mapped from files left out."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) // 1024


if __name__ == "__main__":
    reply(main)
