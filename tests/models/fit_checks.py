"""What vLLM itself counts for tiny checkpoints of every architecture. Run by name, as engine_checks.py is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from vllm.config import set_current_vllm_config
from vllm.distributed import destroy_model_parallel, init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models import ModelRegistry
from vllm.v1.core import kv_cache_utils

SMALL: dict[str, Any] = {
    "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 64, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32,
    "v_head_dim": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 64, "first_k_dense_replace": 1,
}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64,
}  # fmt: skip
WINDOWED = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "many heads": ("LlamaConfig", {"num_key_value_heads": 4, "head_dim": 64}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 64}),
    "phi3": ("Phi3Config", {"pad_token_id": 0, "sliding_window": None}),
    "mistral": ("MistralConfig", {"sliding_window": 512}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 32, "sliding_window": 256, "layer_types": WINDOWED}),
    "mixtral": ("MixtralConfig", {**EXPERTS, "sliding_window": None}),
    "qwen3 experts": ("Qwen3MoeConfig", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}),
    "deepseek": ("DeepseekV3Config", LATENT),
    "linear": ("Qwen3NextConfig", LINEAR),
}


def write(directory: str) -> dict[str, Any]:
    """A checkpoint of random weights for each of them; the paths."""
    paths = {}
    for name, (kind, settings) in CONFIGS.items():
        path = Path(directory) / name.replace(" ", "-")
        config = getattr(transformers, kind)(**{**SMALL, **settings})
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(path)
        paths[name] = str(path)
    return paths


def counted(paths: str, length: int) -> dict[str, Any]:
    """Bytes of weights, and of cache for one sequence of `length` tokens, as vLLM has them."""
    torch.set_default_dtype(torch.bfloat16)
    found: dict[str, Any] = {}
    init_distributed_environment(1, 0, f"file://{Path(next(iter(json.loads(paths).values())))}/rendezvous", 0, "gloo")
    for name, path in json.loads(paths).items():
        arguments = EngineArgs(
            model=path, tokenizer=path, skip_tokenizer_init=True, max_model_len=length, enforce_eager=True,
            max_num_batched_tokens=512, max_num_seqs=4, dtype="bfloat16",
        )  # fmt: skip
        known(path)
        config = arguments.create_engine_config()
        with set_current_vllm_config(config):
            destroy_model_parallel()  # that of a mixture of experts has a group more
            initialize_model_parallel()
            model = initialize_model(config)
        layers = config.compilation_config.static_forward_context
        attention = {each: layer for each, layer in layers.items() if isinstance(layer, AttentionLayerBase)}
        specs = {each: spec for each, layer in attention.items() if (spec := layer.get_kv_cache_spec(config))}
        config.cache_config.kv_cache_layout = "LBHNC"  # which order they lie in changes no count
        groups = kv_cache_utils.get_kv_cache_groups(config, specs)
        found[name] = {
            "weights": sum(each.numel() * each.element_size() for each in model.parameters()),
            "cache": kv_cache_utils._max_memory_usage_bytes_from_groups(config, groups),
            "kinds": sorted({type(spec).__name__ for spec in specs.values()}),
            "block": config.cache_config.block_size,
        }
    return found


def known(path: str) -> None:
    """Have vLLM take the model's class as it is here: otherwise it looks at it in a process of its own, for seconds."""
    (architecture,) = json.loads((Path(path) / "config.json").read_bytes())["architectures"]
    ModelRegistry.register_model(architecture, ModelRegistry.models[architecture].load_model_cls())


def both(directory: str, length: str) -> dict[str, Any]:
    paths = write(directory)
    return {"paths": paths, "counted": counted(json.dumps(paths), int(length))}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
