"""Run by path inside the Metal engine environment: BERT-like encoders beside transformers. Prints one JSON object.

encoders.py SCRATCH
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.metal.reply import reply

LENGTHS = [5, 1, 17, 9]
SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": 90}
SIZES |= {"max_position_embeddings": 40}


def main(scratch: str) -> dict[str, Any]:
    return {
        "differences": {name: difference(name, Path(scratch)) for name in models()},
        "pooled": pooled(),
        "refused": {name: refusal(Path(scratch), name, **own) for name, own in REFUSED.items()},
    }


def models() -> dict[str, Any]:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, XLMRobertaConfig, XLMRobertaModel

    return {
        "bert": BertModel(BertConfig(**SIZES)),
        "bert with another activation": BertModel(BertConfig(**SIZES, hidden_act="gelu_new")),
        "roberta": RobertaModel(RobertaConfig(**SIZES, pad_token_id=1)),
        "xlm-roberta": XLMRobertaModel(XLMRobertaConfig(**SIZES, pad_token_id=1)),
    }


def difference(name: str, scratch: Path) -> dict[str, float]:
    """The largest of any hidden state, several sequences in one step, beside the spread of the states."""
    import mlx.core as mx
    import numpy as np
    import torch
    from appliance_metal.encoder import load_encoder

    torch.manual_seed(3)
    model = models()[name].eval()
    for parameter in model.parameters():  # initial weights are too small to tell one mistake from another
        parameter.data = parameter.data + torch.randn_like(parameter) * 0.2
    path = scratch / name
    model.save_pretrained(path)
    sequences = [torch.randint(3, SIZES["vocab_size"], (length,)).tolist() for length in LENGTHS]
    encoder = load_encoder(path, "float32")
    ours = np.array(encoder.hidden(mx.array([token for each in sequences for token in each]), LENGTHS))
    with torch.no_grad():
        theirs = np.concatenate([model(torch.tensor([each])).last_hidden_state[0].numpy() for each in sequences])
        shuffled = model(torch.tensor([sequences[2][::-1]])).last_hidden_state[0].flip(0).numpy()
    start = sum(LENGTHS[:2])
    return {
        "largest": float(np.abs(ours - theirs).max()),
        "spread": float(theirs.std()),
        "longest": encoder.longest,
        "of another order": float(np.abs(ours[start : start + LENGTHS[2]] - shuffled).max()),
    }


def pooled() -> dict[str, list[list[float]]]:
    """Of two sequences of known states, with each kind of pooling."""
    import mlx.core as mx
    from appliance_metal.batch import Batch, Entry
    from appliance_metal.pooling import KINDS, Pooler

    hidden = mx.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [0.0, 6.0]])
    entries = []
    for start, count, settings in ((0, 1, {"use_activation": False}), (1, 3, {"use_activation": True})):
        pooling = SimpleNamespace(dimensions=None, **settings)
        request: Any = SimpleNamespace(id=str(start), computed=0, pooling=pooling)
        entries.append(Entry(request, start, count, 0, samples=True))
    batch = Batch(tuple(entries))
    return {kind: [each.tolist() for each in Pooler(kind)(batch, hidden).pooler_output] for kind in KINDS}


REFUSED: dict[str, dict[str, Any]] = {
    "positions": {"config": {"position_embedding_type": "relative_key"}},
    "activation": {"config": {"hidden_act": "silu"}},
    "module": {"modules": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]},
    "weights": {"config": {"num_hidden_layers": 4}},
}


def refusal(scratch: Path, name: str, config: dict[str, Any] | None = None, modules: Any = None) -> str:
    from appliance_metal.encoder import load_encoder
    from appliance_metal.model import Unsupported

    path = scratch / f"refused-{name}"
    models()["bert"].save_pretrained(path)
    if config:
        file = path / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    if modules:
        (path / "modules.json").write_text(json.dumps(modules))
    try:
        load_encoder(path, "float32")
    except Unsupported as error:
        return str(error)
    return ""


if __name__ == "__main__":
    reply(main)
