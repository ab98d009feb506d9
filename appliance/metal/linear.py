"""Quantized layers with the rows of a step as one matrix.

A step's activations are (tokens, 1, width), and MLX takes every axis before the last two for a batch: its CUDA back end
would multiply each token with the whole weight by itself. Dense layers are flattened by MLX.
"""

from __future__ import annotations

from typing import Any

from .device import mlx

DENSE = 128
"""From so many rows on, weights are dequantized for one product in their full type: a third faster at 500 rows."""


def flatten(module: Any) -> None:
    """Every quantized linear layer, and every quantized embedding that is a language model head as well."""
    from mlx import nn

    class Linear(nn.QuantizedLinear):
        def __call__(self, inputs: Any) -> Any:
            output = _product(self, inputs)
            return output + self["bias"] if "bias" in self else output

    class Embedding(nn.QuantizedEmbedding):
        def as_linear(self, inputs: Any) -> Any:
            return _product(self, inputs)

    for each in module.modules():
        for plain, flat in ((nn.QuantizedLinear, Linear), (nn.QuantizedEmbedding, Embedding)):
            if type(each) is plain:
                each.__class__ = flat


def _product(layer: Any, inputs: Any) -> Any:
    """(..., width) to (..., outputs)."""
    mx = mlx()
    rows = inputs.reshape(-1, inputs.shape[-1])
    form = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    weight, scales, biases = layer["weight"], layer["scales"], layer.get("biases")
    if len(rows) >= DENSE:
        output = rows @ mx.dequantize(weight, scales, biases, **form, dtype=rows.dtype).T
    else:
        output = mx.quantized_matmul(rows, weight, scales=scales, biases=biases, transpose=True, **form)
    return output.reshape(*inputs.shape[:-1], -1)
