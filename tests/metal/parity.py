"""Run by path inside the Metal engine environment: vLLM over MLX beside mlx_lm, token by token. Prints one JSON object.

parity.py CHECKPOINT TOKENS [alone] [preempted] [short] [few] [dtype=NAME]

`few` asks four of the questions, `dtype` is the engine's. `short` has a line in the place of the chat template, since
mlx_lm's quantized products on the CPU take a tenth of a second for each token. With it a prompt still fills a block,
and grows beyond another.
"""

from __future__ import annotations

import os
from typing import Any

from tests.metal.reply import reply

QUESTIONS = [
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Who wrote Hamlet?",
    "Explain in one sentence why the sky is blue.",
    "What is 7 times 8?",
    "Translate `good morning` into Spanish.",
    "List the planets of the solar system.",
    "What does HTTP stand for?",
    "Write a haiku about the sea.",
    "Which animal barks?",
    "What is the boiling point of water?",
    "Tell me a short joke.",
    "What is the largest ocean?",
    "How many legs has a spider?",
    "What is photosynthesis?",
    "Say hello in French.",
    "Who painted the Mona Lisa?",
    "What comes after Wednesday?",
    "Give a synonym of happy.",
    "What is the opposite of hot?",
]
PREFACE = "Please answer the following question in one short and plain sentence, as you would at a dinner table. "
CHUNK = 24
"""Tokens of one step: prompts with their template are longer, so each is prefilled in chunks, beside decodes."""


def main(checkpoint: str, count: str, *modes: str) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    chunk = 8 if "short" in modes else CHUNK
    settings: dict[str, Any] = {"model": checkpoint, "max_model_len": 256, "seed": 0, "max_num_batched_tokens": chunk}
    settings["max_num_seqs"] = 8
    settings |= dict(mode.split("=") for mode in modes if "=" in mode)
    engine = LLM(**settings, kv_cache_memory_bytes=256 << 20, disable_log_stats=False)
    tokenizer = engine.get_tokenizer()

    def tokens(question: str) -> list[int]:
        if "short" in modes:
            return list(tokenizer(PREFACE + question).input_ids)
        messages = [{"role": "user", "content": question}]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])

    prompts = [tokens(each) for each in (QUESTIONS[:4] if "few" in modes else QUESTIONS)]
    sampling = SamplingParams(temperature=0, max_tokens=int(count), ignore_eos=True)

    def generate(engine: Any, prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
        results = engine.generate([{"prompt_token_ids": each} for each in prompts], sampling, use_tqdm=False)
        return [list(each.outputs[0].token_ids) for each in results], [each.num_cached_tokens for each in results]

    answers: dict[str, list[list[int]]] = {}
    answers["batched"], cold = generate(engine, prompts)
    answers["prefix-cached"], warm = generate(engine, prompts)
    if "alone" in modes:
        engine.reset_prefix_cache()
        answers["alone"] = [generate(engine, [each])[0][0] for each in prompts]
    preemptions = 0
    if "preempted" in modes:
        settings |= {"max_model_len": 64, "num_gpu_blocks_override": 12}
        if "short" in modes:  # all run at once, so that one which grows finds no block
            settings |= {"max_num_batched_tokens": 64, "num_gpu_blocks_override": 9}
        few = LLM(**settings, disable_log_stats=False)
        answers["preempted"], _ = generate(few, prompts)
        preemptions = _counter(few, "vllm:num_preemptions")
    return {
        "platform": _platform(),
        "steps": {"longest prompt": max(map(len, prompts)), "chunk": chunk},
        "cached": [sum(cold), sum(warm)],
        "preemptions": preemptions,
        "differences": {name: judge(checkpoint, prompts, found) for name, found in answers.items()},
    }


def judge(checkpoint: str, prompts: list[list[int]], answers: list[list[int]]) -> list[dict[str, Any]]:
    """Every place where mlx_lm would have taken another token, with how much likelier it is in mlx_lm's logits.

    mlx_lm reads prompt and answer at once: each token that is its likeliest continuation of all before it is the one
    that it generates.
    """
    import mlx.core as mx

    model = _reference(checkpoint)
    found = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        logits = _logits(model, tuple(prompt), tuple(answer))
        best = mx.argmax(logits, axis=-1).tolist()
        for index, (ours, theirs) in enumerate(zip(answer, best, strict=True)):
            if ours != theirs:
                gap = (logits[index, theirs] - logits[index, ours]).item()
                found.append({"prompt": number, "index": index, "ours": ours, "theirs": theirs, "gap": gap})
                break
    return found


_MODELS: dict[str, Any] = {}
_SEEN: dict[Any, Any] = {}


def _reference(checkpoint: str) -> Any:
    """mlx_lm's model as it is stored, quantized or not, computing in float32."""
    import mlx.core as mx
    import mlx_lm

    if checkpoint not in _MODELS:
        model, _ = mlx_lm.load(checkpoint)
        model.set_dtype(mx.float32)
        _MODELS[checkpoint] = model
    return _MODELS[checkpoint]


def _logits(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Any:
    import mlx.core as mx

    if (prompt, answer) not in _SEEN:
        logits = model(mx.array([[*prompt, *answer[:-1]]]))[0, len(prompt) - 1 :]
        mx.eval(logits)
        _SEEN[prompt, answer] = logits
    return _SEEN[prompt, answer]


def _platform() -> str:
    from vllm.platforms import current_platform

    return f"{type(current_platform).__module__}.{type(current_platform).__name__}"


def _counter(engine: Any, name: str) -> int:
    return int(sum(each.value for each in engine.get_metrics() if each.name == name))


if __name__ == "__main__":
    reply(main)
