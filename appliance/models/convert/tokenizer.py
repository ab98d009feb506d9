"""A tokenizer rebuilt from a GGUF's own vocabulary, as the files that the `tokenizers` library reads."""

from __future__ import annotations

from .byte_level import ByteLevel
from .refused import unsupported
from .sentencepiece import SentencePieceBpe, Unigram
from .vocabulary import Json, strings, token_id
from .wordpiece import WordPiece

_KINDS = {kind.known_as: kind for kind in (ByteLevel, SentencePieceBpe, WordPiece, Unigram)}


def tokenizer_files(metadata: Json) -> dict[str, Json]:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, by name."""
    kind = metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise unsupported(
            f"the tokenizer `{str(kind)[:40]}` is not supported in a GGUF file",
            hint="byte-level BPE (`gpt2`), SentencePiece's BPE (`llama`) and unigram model (`t5`), and WordPiece "
            "(`bert`) are; else use a Hugging Face checkpoint",
        )
    vocabulary = _KINDS[kind](metadata)
    return {
        "tokenizer.json": vocabulary.tokenizer(),
        "tokenizer_config.json": vocabulary.config(),
        "special_tokens_map.json": vocabulary.special(),
    }


def token_ids(metadata: Json) -> Json:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`, as config.json and generation_config.json spell them.

    A chat model may end a turn and a text with different tokens; then `eos_token_id` is a list.
    """
    size = len(strings(metadata, "tokenizer.ggml.tokens"))
    ids: Json = {}
    for key, field in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")):
        if (value := token_id(metadata, field, size)) is not None:
            ids[f"{key}_token_id"] = value
    ends = [ids.get("eos_token_id"), token_id(metadata, "eot_token_id", size), token_id(metadata, "eom_token_id", size)]
    distinct = list(dict.fromkeys(each for each in ends if each is not None))
    if len(distinct) > 1:
        ids["eos_token_id"] = distinct
    return ids
