"""Run by path inside the Metal engine environment: models with recurrent layers through vLLM, beside mlx_lm.

hybrids.py TOKENIZER SCRATCH checkpoint NAME    writes a tiny random checkpoint with this tokenizer, and prints its path
hybrids.py TOKENIZER SCRATCH engine NAME        prints what became of requests in every way of scheduling them
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

from tests.metal.architectures import RECURRENT, save
from tests.metal.reply import reply

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CLASSES = {
    "qwen3_next": "Qwen3NextForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "falcon_h1": "FalconH1ForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
}
VOCABULARY = 49152
LENGTH, CHUNK, BLOCKS = 96, 24, 12
"""Tokens of the longest sequence and of one step; blocks of 16, which not all sequences that run at once find."""


def main(tokenizer: str, scratch: str, what: str, name: str) -> dict[str, Any]:
    path = checkpoint(name, Path(tokenizer), Path(scratch))
    return {"path": str(path)} if what == "checkpoint" else engine(path)


def checkpoint(name: str, tokenizer: Path, scratch: Path) -> Path:
    own = {"vocab_size": VOCABULARY, "architectures": [CLASSES[name]], "bos_token_id": 1, "eos_token_id": 2}
    own["dtype"] = "float32"
    path = save(name, scratch, {**RECURRENT[name], **own})
    for file in TOKENIZER:
        if (tokenizer / file).exists():
            shutil.copy(tokenizer / file, path)
    return path


def engine(path: Path) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    os.environ["METAL_WARM_UP"] = "on"
    llm = LLM(
        str(path),
        max_model_len=LENGTH,
        max_num_seqs=6,
        max_num_batched_tokens=CHUNK,
        num_gpu_blocks_override=BLOCKS,
        kv_cache_memory_bytes=64 << 20,
        enable_sleep_mode=True,
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
        "aborted": aborted,
        "left": left,
        "asleep": asleep,
        "after sleep": [outputs[0] for outputs in generate(greedy)] == answers,
        "cached": llm.llm_engine.vllm_config.cache_config.enable_prefix_caching,
    }


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
