"""How a model's states become one vector, as the files that sentence-transformers keeps beside a checkpoint."""

from __future__ import annotations

from typing import Any

from .keys import short
from .refused import unsupported

_MODES = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}
_NONE, _RANK = 0, 4
_ALL = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def pooling_files(metadata: dict[str, Any], hidden: int) -> dict[str, Any]:
    """modules.json and what it names, by path; nothing where the file does not say that it is for embeddings.

    llama.cpp makes every vector one of length one, so that is among the modules.
    """
    kind = metadata.get(f"{metadata['general.architecture']}.pooling_type", _NONE)
    if kind in (_NONE, _RANK):
        return {}
    if type(kind) is not int or kind not in _MODES:
        raise unsupported(f"the pooling type `{short(kind)}` is not supported in a GGUF file")
    modules = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
    return {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
            for index, (path, name) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": hidden,
            **{f"pooling_mode_{mode}": mode == _MODES[kind] for mode in _ALL},
        },
    }
