"""Run by path inside the Metal engine environment. Prints one JSON object.

Tiny random checkpoints of many architectures, made with mlx-lm's own classes: through paged attention, beside mlx-lm.

    architectures.py SCRATCH
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from tests.metal.reply import reply

COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
WINDOW = 12
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        }
    },
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "gemma3_text": {"sliding_window": WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "mistral": {
        "model_type": "llama",
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
    },
    "phi3": {},
    "granite": {
        "logits_scaling": 8.0,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "olmo2": {},
    "gemma2": {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 30.0},
    "starcoder2": {"norm_epsilon": 1e-5},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_scaling": None,
        "head_dim": 8,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere2": {"sliding_window": WINDOW, "sliding_window_pattern": 2, "layer_norm_eps": 1e-5, "logit_scale": 0.5},
    "deepseek_v2": {
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": None,
        "rope_scaling": {"type": "yarn", "factor": 2.0, "mscale_all_dim": 0, "original_max_position_embeddings": 64},
    },
}
MAMBA2 = {"mamba_d_conv": 4, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_heads": 8, "mamba_n_groups": 2}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 3,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        **DELTA,
        **EXPERTS,
        "decoder_sparse_step": 2,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [],
        "partial_rotary_factor": 0.5,
        "norm_topk_prob": True,
    },
    "qwen3_5": DELTA,
    "olmo_hybrid": {
        **DELTA,
        "num_key_value_heads": 4,
        "linear_num_key_heads": 4,
        "linear_allow_neg_eigval": True,
        "attention_bias": False,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "lfm2": {
        "layer_types": ["conv", "full_attention", "conv"],
        "norm_eps": 1e-5,
        "conv_bias": True,
        "conv_L_cache": 3,
        "block_dim": 32,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
    },
    "lfm2_moe": {
        **EXPERTS,
        "layer_types": ["conv", "full_attention", "conv"],
        "num_dense_layers": 1,
        "norm_topk_prob": True,
        "use_expert_bias": True,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
    },
    "granitemoehybrid": {
        **MAMBA2,
        "layer_types": ["mamba", "attention", "mamba"],
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.3,
        "attention_bias": False,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
        "mamba_proj_bias": False,
        "mamba_conv_bias": True,
        "position_embedding_type": "nope",
    },
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64, "lm_head_multiplier": 1.0},
    "nemotron_h": {
        "num_hidden_layers": 4,
        "hybrid_override_pattern": ["M", "*", "-", "M"],
        "attention_bias": False,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "mamba_proj_bias": False,
        "ssm_state_size": 16,
        "conv_kernel": 4,
        "n_groups": 2,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 3,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "mamba": {
        "state_size": 8,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
    },
    "mamba2": {
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 16,
        "conv_kernel": 4,
        "n_groups": 2,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": 1e-5,
    },
}
"""Layers that keep a state, with attention between or beside them, or without any."""
QUANTIZED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"affine-{bits}": ("llama", {"bits": bits, "group_size": 32}) for bits in (2, 3, 4, 5, 6, 8)},
    "mxfp4": ("llama", {"bits": 4, "group_size": 32, "mode": "mxfp4"}),
    "mxfp8": ("llama", {"bits": 8, "group_size": 32, "mode": "mxfp8"}),
    "nvfp4": ("llama", {"bits": 4, "group_size": 16, "mode": "nvfp4"}),
    "experts in mxfp4": ("gpt_oss", {"bits": 4, "group_size": 32, "mode": "mxfp4"}),
}
"""Of each an architecture, and what mlx_lm's `quantize_model` makes of it, as `mlx_lm.convert` does."""
REFUSED: dict[str, dict[str, Any]] = {
    "kimi_linear": {
        "linear_attn_config": {"kda_layers": [1, 3], "num_heads": 4, "head_dim": 8, "short_conv_kernel_size": 4},
        "model_max_length": 512,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "num_experts_per_token": 2,
        "num_shared_experts": 1,
    },
}
PROMPT, TOTAL = 21, 45
"""Tokens of each sequence: prefilled in chunks of unequal length, then decoded beside one another."""


def main(scratch: str) -> dict[str, Any]:
    return {
        "worst": {name: worst(name, Path(scratch)) for name in ARCHITECTURES},
        "recurrent": {name: worst(name, Path(scratch)) for name in RECURRENT},
        "kept": {name: kept(name, Path(scratch)) for name in RECURRENT},
        "quantized": {name: worst(name, Path(scratch)) for name in QUANTIZED},
        "refused": {name: refusal(name, Path(scratch)) for name in REFUSED},
    }


def save(name: str, scratch: Path, own: dict[str, Any], quantization: dict[str, Any] | None = None) -> Path:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import quantize_model

    config = {**COMMON, "model_type": name, **own}
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(7)
    model = module.Model(module.ModelArgs.from_dict(config))
    # Weights of the size that trained ones have: at mlx-lm's initial ones every token is as likely as the next.
    weights = {
        key: mx.random.normal(each.shape) * 0.25 if each.ndim > 1 else each
        for key, each in tree_flatten(model.parameters())
    }
    if quantization:
        model.update(tree_unflatten(list(weights.items())))
        settings = {"mode": "affine", **quantization}
        model, config = quantize_model(model, config, settings.pop("group_size"), settings.pop("bits"), **settings)
        weights = dict(tree_flatten(model.parameters()))
    path = scratch / f"{name}-{'-'.join(map(str, (quantization or {}).values()))}"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(path / "model.safetensors"), weights)
    return path


def worst(name: str, scratch: Path) -> dict[str, float]:
    """The largest difference of any logit at any step, beside the spread of the logits."""
    import mlx.core as mx
    import mlx_lm.utils
    from appliance_metal.model import load
    from appliance_metal.seats import Seats
    from appliance_metal.step import Span, Step

    architecture, quantization = QUANTIZED.get(name, (name, None))
    own = {**ARCHITECTURES, **RECURRENT}[architecture]
    own |= {"hidden_size": 64} if quantization else {}  # routers are in groups of 64
    path = save(architecture, scratch, own, quantization)
    mx.random.seed(1)
    sequences = [mx.random.randint(0, COMMON["vocab_size"], (TOTAL,)).tolist() for _ in range(3)]
    reference, _ = mlx_lm.utils.load_model(path)
    expected = [reference(mx.array([each]))[0] for each in sequences]
    mx.eval(expected)

    model, size = load(path, "float32"), 4
    model.compiled = architecture in RECURRENT  # steps of decodes alone are replayed, as on a GPU
    for cache in model.caches:
        cache.allocate(64, size, mx.float32)
    blocks = [[1 + 3 * index + offset for index in range(TOTAL // size + 1)] for offset in (0, 1, 2)]  # interleaved
    difference, done, seats = 0.0, [0, 0, 0], Seats()
    for number, step in enumerate(_schedule()):
        short = (0, 250)[number % 2]  # in every other step short chunks attend row by row
        step.sort(key=lambda each: _late(Span(done[each[0]], each[1], ()), short))
        seating = seats.arrange([(str(row), done[row], count) for row, count in step])
        spans = [Span(done[row], count, blocks[row][: -(-(done[row] + count) // size)]) for row, count in step]
        tokens = [token for (row, count) in step for token in sequences[row][done[row] : done[row] + count]]
        logits = model.logits(mx.array(tokens), Step.build(spans, size, short=short, seating=seating), None)
        start = 0
        for row, count in step:
            theirs = expected[row][done[row] : done[row] + count]
            difference = max(difference, mx.abs(logits[start : start + count] - theirs).max().item())
            start += count
            done[row] += count
    ruined = _ruined(model, sequences[0], blocks[0], size, expected[0])
    assert done == [TOTAL, TOTAL, PROMPT + 4], done
    return {"difference": difference, "ruined": ruined, "spread": max(mx.std(each).item() for each in expected)}


def _ruined(model: Any, sequence: list[int], blocks: list[int], size: int, expected: Any) -> float:
    """The difference of the last token once one layer's cache, or one layer's state, is another one: both do matter."""
    import mlx.core as mx
    from appliance_metal.seats import Seats
    from appliance_metal.step import Span, Step

    differences = []
    for stores in (model.caches, model.states):
        seats = Seats()
        for first, count in ((0, TOTAL - 1), (TOTAL - 1, 1)) if stores else ():
            span = Span(first, count, blocks[: -(-(first + count) // size)])
            step = Step.build([span], size, seating=seats.arrange([("again", first, count)]))
            logits = model.logits(mx.array(sequence[first : first + count]), step, None)
            if first == 0:
                stores[0].arrays = tuple(each * 1.5 for each in stores[0].arrays)
        if stores:
            differences.append(mx.abs(logits - expected[-1:]).max().item())
    return float(min(differences))


def _late(span: Any, short: int) -> tuple[bool, bool]:
    """Where the plug-in's batches have it, rows that attend for themselves first."""
    return not span.by_rows(short), not span.continuing


def _schedule() -> list[list[tuple[int, int]]]:
    """Steps of (sequence, tokens), single tokens first: chunks, chunks beside decodes, decodes of unequal length."""
    steps = [[(0, 9)], [(0, 12), (1, 7)], [(0, 1), (1, 13)], [(0, 1), (1, 1), (2, PROMPT)]]
    steps += [[(0, 1), (1, 1), (2, 1)]] * 4
    left = [TOTAL - PROMPT - 6, TOTAL - PROMPT - 4]
    while any(left):
        rows = [row for row in (0, 1) if left[row]]
        steps.append([(row, 1) for row in rows])
        for row in rows:
            left[row] -= 1
    return steps


def kept(name: str, scratch: Path) -> dict[str, Any]:
    """What it would keep on a Mac: numbers of each token in all layers, and bytes of states of each sequence."""
    from appliance_metal.model import load

    path = scratch / f"{name}-"
    model = load(path, "bfloat16")
    shapes = [cache.shape for cache in model.caches]
    values = sum(shape.heads * (shape.key_size + shape.value_size) for shape in shapes)
    return {"config": json.loads((path / "config.json").read_text()), "values": values, "state": model.state_bytes}


def refusal(name: str, scratch: Path) -> str:
    from appliance_metal.model import Unsupported, load

    path = save(name, scratch, REFUSED[name])
    try:
        load(path, "float32")
    except Unsupported as error:
        return str(error)
    return ""


if __name__ == "__main__":
    reply(main)
