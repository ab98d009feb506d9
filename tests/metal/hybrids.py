"""Run by path inside the Metal engine environment: models with recurrent layers through vLLM, beside mlx_lm.

hybrids.py TOKENIZER SCRATCH checkpoint NAME    writes a tiny random checkpoint with this tokenizer, and prints its path
hybrids.py TOKENIZER SCRATCH engine NAME        prints what became of requests in every way of scheduling them
hybrids.py CHECKPOINT PROMPTS judge ANSWERS     prints where mlx_lm would have taken another token, both lists as JSON
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from tests.metal.architectures import COMMON, RECURRENT, save
from tests.metal.reply import reply

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CLASSES = {
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "lfm2": "Lfm2ForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "falcon_h1": "FalconH1ForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
}
ROOM = {"qwen3_5": 40 << 10, "mamba2": 90 << 10}
"""Bytes of cache: five states, and keys and values of the longest sequence, where six sequences may run at once."""
VOCABULARY = 49152
LENGTH, CHUNK, BLOCKS = 96, 24, 12
"""Tokens of the longest sequence and of one step; blocks of 16, which not all sequences that run at once find."""


def main(tokenizer: str, scratch: str, what: str, name: str) -> dict[str, Any]:
    if what == "judge":
        return {"wrong": wrong(Path(tokenizer), json.loads(scratch), json.loads(name))}
    path = checkpoint(name, Path(tokenizer), Path(scratch))
    return {"path": str(path)} if what == "checkpoint" else engine(path)


def checkpoint(name: str, tokenizer: Path, scratch: Path) -> Path:
    own = {"vocab_size": VOCABULARY, "architectures": [CLASSES[name]], "bos_token_id": 1, "eos_token_id": 2}
    own["dtype"] = "float32"
    path = save(name, scratch, {**RECURRENT[name], **own})
    if name == "qwen3_5":
        _beside_a_vision_model(path)
    for file in TOKENIZER:
        if (tokenizer / file).exists():
            shutil.copy(tokenizer / file, path)
    return path


def _beside_a_vision_model(path: Path) -> None:
    """The config as published ones are: that of the language model inside of one that sees images."""
    config = json.loads((path / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    rope |= {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    layers = ["linear_attention", "linear_attention", "full_attention"]
    text = {**config, "model_type": "qwen3_5_text", "rope_parameters": rope, "layer_types": layers}
    outer = {key: config[key] for key in ("model_type", "architectures", "dtype", "tie_word_embeddings")}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": COMMON["hidden_size"]}
    (path / "config.json").write_text(json.dumps({**outer, "text_config": text, "vision_config": vision}))


def engine(path: Path) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    os.environ["METAL_WARM_UP"] = "on"
    llm = LLM(
        str(path),
        max_model_len=LENGTH,
        max_num_seqs=6,
        max_num_batched_tokens=CHUNK,
        num_gpu_blocks_override=BLOCKS,
        kv_cache_memory_bytes=ROOM[path.name.rstrip("-")],
        enable_sleep_mode=True,
        enable_lora=True,
        max_lora_rank=8,
        disable_log_stats=False,
    )
    dice = random.Random(3)  # noqa: S311 - repeatable on purpose
    prompts = [[dice.randrange(3, 1000) for _ in range(dice.choice((1, 7, 30, 61)))] for _ in range(10)]
    greedy = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    drawn = SamplingParams(temperature=1, seed=5, n=3, max_tokens=8)

    def generate(sampling: Any, prompts: list[list[int]] = prompts) -> list[list[list[int]]]:
        results = llm.generate([{"prompt_token_ids": each} for each in prompts], sampling, use_tqdm=False)
        return [[list(each.token_ids) for each in result.outputs] for result in results]

    answers = [outputs[0] for outputs in generate(greedy)]
    preemptions = int(sum(each.value for each in llm.get_metrics() if each.name == "vllm:num_preemptions"))
    several = generate(drawn, prompts[:2])
    alone = [generate(greedy, [each])[0][0] for each in prompts[:4]]
    aborted = abort(llm, prompts, greedy, dice)
    left = llm.collective_rpc(held)
    llm.sleep(1)
    asleep = llm.collective_rpc(held)
    llm.wake_up()
    return {
        "wrong": [each for each in zip(map(str, answers), wrong(path, prompts, answers), strict=True) if each[1]],
        "preemptions": preemptions,
        "alone": alone == answers[:4],
        "several": [len({tuple(each) for each in outputs}) for outputs in several],
        "seeded": generate(drawn, prompts[:2]) == several,
        "adapted": adapted(llm, path, prompts[:6], greedy),
        "aborted": aborted,
        "left": left,
        "asleep": asleep,
        "after sleep": [outputs[0] for outputs in generate(greedy)] == answers,
        "cached": llm.llm_engine.vllm_config.cache_config.enable_prefix_caching,
    }


ADAPTED = {"qwen3_5": "layers.0.linear_attn.in_proj_qkv", "mamba2": "layers.0.mixer.in_proj"}
"""A projection inside a recurrent layer."""


def adapted(llm: Any, path: Path, prompts: list[list[int]], sampling: Any) -> list[bool]:
    """Every other request with an adapter: whether it changes what is said, and each says what mlx_lm's weights do."""
    import mlx.core as mx
    from vllm.lora.request import LoRARequest

    stored = mx.load(str(path / "model.safetensors"))
    (key,) = [each for each in stored if each.endswith(f"{ADAPTED[path.name.rstrip('-')]}.weight")]
    outputs, inputs = stored[key].shape
    adapter = path / "adapter"
    adapter.mkdir()
    down, up = mx.random.normal((4, inputs)) * 0.5, mx.random.normal((outputs, 4)) * 0.5
    module = key.removesuffix(".weight").removeprefix("language_model.")  # transformers' name
    names = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
    mx.save_safetensors(str(adapter / "adapter_model.safetensors"), dict(zip(names, (down, up), strict=True)))
    config = {"r": 4, "lora_alpha": 4, "peft_type": "LORA", "target_modules": [module.rpartition(".")[2]]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    merged = path.parent / "merged"
    shutil.copytree(path, merged, ignore=shutil.ignore_patterns("adapter"))
    mx.save_safetensors(str(merged / "model.safetensors"), {**stored, key: stored[key] + up @ down})

    requests = [LoRARequest("one", 1, str(adapter)) if row % 2 else None for row in range(len(prompts))]
    asked = [{"prompt_token_ids": each} for each in prompts]
    results = llm.generate(asked, sampling, lora_request=requests, use_tqdm=False)
    answers = [list(each.outputs[0].token_ids) for each in results]
    checked = [wrong(merged if row % 2 else path, [prompts[row]], [answers[row]]) for row in range(len(prompts))]
    plain = wrong(path, prompts[1::2], answers[1::2])
    return [all(plain), checked == [[[]]] * len(prompts)]


def held(worker: Any) -> list[int]:
    """Requests with a state, and arrays of states."""
    runner = worker.model_runner
    return [len(runner.seats), sum(len(each.arrays) for each in runner.mlx_model.states)]


def abort(llm: Any, prompts: list[list[int]], sampling: Any, dice: random.Random) -> list[int]:
    """Clients that go at random. How many did, and the most states at once."""
    core, gone, most = llm.llm_engine, 0, 0
    waiting = [str(number) for number in range(30)]
    running: list[str] = []
    while waiting or core.has_unfinished_requests():
        if waiting and dice.random() < 0.5:
            running.append(waiting.pop())
            core.add_request(running[-1], {"prompt_token_ids": dice.choice(prompts)}, sampling)
        for output in core.step():
            if output.finished and output.request_id in running:
                running.remove(output.request_id)
        most = max(most, llm.collective_rpc(held)[0][0])
        if running and dice.random() < 0.3:
            core.abort_request([running.pop(dice.randrange(len(running)))])
            gone += 1
    core.step()  # the worker hears of the last ones with the next step
    return [gone, most]


def wrong(path: Path, prompts: list[list[int]], answers: list[list[int]]) -> list[list[float]]:
    """Of each answer, how much likelier mlx_lm finds another token where it differs: nothing where it does not."""
    import mlx.core as mx
    import mlx_lm.utils

    model, _ = mlx_lm.utils.load_model(path)
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(mx.array([[*prompt, *answer[:-1]]]))[0, len(prompt) - 1 :]
        best = mx.max(logits, axis=-1)
        ours = mx.take_along_axis(logits, mx.array(answer)[:, None], axis=-1)[:, 0]
        found.append([gap for gap in (best - ours).tolist() if gap > 0])
    return found


if __name__ == "__main__":
    reply(main)
