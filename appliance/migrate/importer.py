"""What the importer of GGUF files reads, asked of the importer itself, and by names before a file is here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from appliance.migrate.catalogue import Known
from appliance.models.convert.architecture import DECODERS, ENCODERS
from appliance.models.convert.byte_level import PRE_TOKENIZERS
from appliance.models.convert.gguf_file import TYPES, Header, read_header
from appliance.models.convert.refused import Refused

FLOATS = frozenset({"F16", "BF16", "F32"})
"""Types of GGUF's that are not quantized."""
WHOLE = frozenset({"llama", "bert", "t5"})
"""What `tokenizer.ggml.model` may be, but for byte-level BPE, of which the pre-tokenizer is a part."""


def architectures() -> tuple[str, ...]:
    """What `general.architecture` of a GGUF may be."""
    return (*DECODERS, *ENCODERS)


def unread(known: Known | None, kind: str | None) -> str | None:
    """What keeps a GGUF from being imported, as in "a GGUF …"; None where nothing is known to."""
    if known is not None:
        if known.unread:
            return f"of {known.unread}"
        if known.architecture and known.architecture not in architectures():
            return f"of the architecture `{known.architecture}`"
        if known.tokenizer and not reads_tokenizer(known.tokenizer):
            return f"with the tokenizer `{known.tokenizer}`"
    if kind and not reads_type(kind):
        return f"in {kind}"
    return None


def reads_type(kind: str) -> bool:
    """Whether the tensors of such a file are read. `Q4_K_M` is a mixture of Q4_K and Q6_K."""
    known = {name for name, _, _ in TYPES.values()}
    if kind in known:
        return True
    match = re.fullmatch(r"Q(\d)_K(?:_[SML])?", kind)
    return match is not None and {f"Q{match[1]}_K", "Q6_K"} <= known


def reads_tokenizer(word: str) -> bool:
    """A tokenizer by its pre-tokenizer, or by its model where that says it all (`llama`, `bert`)."""
    return word in WHOLE or word in PRE_TOKENIZERS


def of_file(path: Path) -> tuple[Known, str | None] | str:
    """What a GGUF file that is here says of itself, and the type of most of its bytes; or what is wrong with it."""
    try:
        header = read_header(path, vocabulary=False)
    except Refused as problem:
        return problem.message
    except (OSError, ValueError) as problem:
        return f"cannot be read: {problem}"
    return _described(header), _type(header)


def _described(header: Header) -> Known:
    architecture, model, pre = (
        str(header.metadata.get(key) or "")[:40]
        for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    mixture = any("_exps" in name for name in header.tensors)
    return Known(
        architecture=architecture,
        tokenizer=pre or "default" if model == "gpt2" else model,
        unread="a mixture of experts" if mixture else None,
    )


def _type(header: Header) -> str | None:
    sizes = Counter[str]()
    for tensor in header.tensors.values():
        sizes[tensor.type] += tensor.size
    return sizes.most_common(1)[0][0] if sizes else None
