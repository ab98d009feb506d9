"""Run by path inside the Metal engine environment. Prints one JSON object.

Quantized layers as a GPU is given them, beside the layers that mlx-lm has.
"""

from __future__ import annotations

import os
from typing import Any

from appliance_metal import kernels, linear
from appliance_metal.device import mlx
from mlx import nn

from tests.metal.reply import reply

FORMS = ({"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}, {"group_size": 32, "bits": 4, "mode": "mxfp4"})


class Two(nn.Module):  # type: ignore[misc]
    def __init__(self, **form: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, 64).to_quantized(**form)
        self.layer = nn.Linear(64, 40, bias=True).to_quantized(**form)


def difference(form: dict[str, Any], rows: int) -> float:
    """The largest of both layers, for activations of (rows, 1, width)."""
    mx = mlx()
    two, inputs = Two(**form), mx.random.normal((rows, 1, 64))
    plain = two.layer(inputs), two.embedding.as_linear(inputs), two.embedding(mx.array([[3], [5]]))
    linear.flatten(two)
    assert type(two.layer) is not nn.QuantizedLinear
    assert type(two.embedding) is not nn.QuantizedEmbedding
    flat = two.layer(inputs), two.embedding.as_linear(inputs), two.embedding(mx.array([[3], [5]]))
    return float(max(mx.abs(one - two).max().item() for one, two in zip(plain, flat, strict=True)))


def refusal() -> str:
    os.environ[kernels.VARIABLE] = "perhaps"
    try:
        kernels.enabled()
    except ValueError as error:
        return str(error)
    return ""


def main() -> dict[str, Any]:
    mlx().random.seed(1)
    rows = (1, 3, linear.DENSE - 1, linear.DENSE)
    return {"differences": [difference(form, each) for form in FORMS for each in rows], "refusal": refusal()}


if __name__ == "__main__":
    reply(main)
