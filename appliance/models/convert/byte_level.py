"""Byte-level BPE, whose merges a GGUF keeps and whose pre-tokenizer it only names."""

from __future__ import annotations

from .refused import damaged, unsupported
from .vocabulary import Json, Vocabulary, between, strings

_END_OF_TEXT = "<|endoftext|>"

_SHORTENED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPLIT = _SHORTENED + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LARGE, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LARGE}*{_SMALL}+%s|[^\r\n\p{{L}}\p{{N}}]?{_LARGE}+{_SMALL}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""A word ends before a large letter behind a small one; what shortens a word, where there is such, belongs to it."""

# One digit at a time, then GPT-2's own rule.
_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")
_ROBERTA = ("roberta-bpe",)
_GPT2 = ("gpt-2", "gpt2", "olmo", "jais", "phi-2", *_ROBERTA)
_QWEN = ("qwen2", "deepseek-r1-qwen")
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_WHOLE = (*_LLAMA3, "tekken")
"""Those that take a word that is a token as it is, whether or not merges lead there, and begin every text."""
_REGEX = {
    **dict.fromkeys(_QWEN, _SPLIT % ""),
    **dict.fromkeys((*_LLAMA3, "dbrx"), _SPLIT % "{1,3}"),
    "gpt-4o": _CASED % (f"{_SHORTENED}?", f"{_SHORTENED}?", "{1,3}"),
    "tekken": _CASED % ("", "", ""),
}
PRE_TOKENIZERS = (*_DIGITS, *_GPT2, *_REGEX)
"""What `tokenizer.ggml.pre` may be."""


class ByteLevel(Vocabulary):
    """`gpt2`."""

    known_as = "gpt2"

    def model(self) -> Json:
        return bpe(self.tokens, self.merges()) | {
            "ignore_merges": self.pre in _WHOLE,
        }

    def stages(self) -> Json:
        return {
            "normalizer": {"type": "NFC"} if self.pre in _QWEN else None,
            "pre_tokenizer": _pre_tokenizer(self.pre),
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        }

    def merges(self) -> list[list[str]]:
        known = set(self.tokens)
        merges = [merge.split(" ") for merge in strings(self.metadata, "tokenizer.ggml.merges")]
        for merge in merges:
            if len(merge) != 2 or not known.issuperset((*merge, "".join(merge))):
                raise damaged(f"`tokenizer.ggml.merges` has `{' '.join(merge)[:40]}`, which does not merge two tokens")
        return merges

    def strips(self, token: str) -> bool:
        return strips_in_phi3(self.metadata, token)

    def plain_post_processor(self) -> Json | None:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}

    def edges_by_default(self) -> tuple[str, ...]:
        """Of these only Llama 3 and Mistral begin their texts, and RoBERTa ends them, too."""
        return ("bos", "eos") if self.pre in _ROBERTA else ("bos",) if self.pre in _WHOLE else ()

    def post_processor(self) -> Json | None:
        """RoBERTa puts two ends between two texts, and all of a pair is of one type to it."""
        start, end = self.edge("bos"), self.edge("eos")
        if self.pre not in _ROBERTA or start is None or end is None:
            return super().post_processor()
        return {"type": "Sequence", "processors": [self.plain_post_processor(), between(start, end, (end,), 0)]}


def bpe(tokens: list[str], merges: list[list[str]]) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }


def strips_in_phi3(metadata: Json, token: str) -> bool:
    """Only Phi 3 has tokens behind which white space is not there, and a GGUF does not say so."""
    phi3 = metadata.get("general.architecture") == "phi3"
    return phi3 and token.startswith("<|") and token != _END_OF_TEXT


def _pre_tokenizer(pre: str) -> Json:
    def byte_level(*, regex: bool) -> Json:
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}

    if pre in _DIGITS:
        return _in_turn({"type": "Digits", "individual_digits": True}, byte_level(regex=True))
    if pre in _GPT2:
        return byte_level(regex=True)
    if pattern := _REGEX.get(pre):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        return _in_turn(split, byte_level(regex=False))
    known = sorted(PRE_TOKENIZERS)
    raise unsupported(
        f"the pre-tokenizer `{pre}` is not supported in a GGUF file", hint=f"supported are {', '.join(known)}"
    )


def _in_turn(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}
