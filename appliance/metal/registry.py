"""Architectures as vLLM is to take them here: as language models, whose prompts are text.

vLLM asks a class of its own what a model can do, and mlx-lm's definition is what runs. Of Qwen3.5 it would ask
a class that sees images, and cannot be imported without torchvision, which this environment leaves out.
"""

from __future__ import annotations

_LIKE = "vllm.model_executor.models.qwen3_next:Qwen3NextForCausalLM"
"""Gated delta nets and attention, and a prompt of text alone."""

QWEN3_5 = tuple(f"Qwen3_5{kind}For{task}" for kind in ("", "Moe") for task in ("CausalLM", "ConditionalGeneration"))


def register() -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture in QWEN3_5:
        ModelRegistry.register_model(architecture, _LIKE)
