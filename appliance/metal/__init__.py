"""vLLM on MLX: the platform, the worker and the model runner behind `backend: vllm-metal`.

Runs inside engine environments only, under the name `appliance_metal` (see site/appliance_metal.py): vLLM's engine,
scheduler, tokenizer and API server stay as they are, and mlx-lm's model definitions do the forward pass. Imports
nothing of the control plane, and nothing there imports it.
"""
