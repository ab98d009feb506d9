"""SentencePiece's two models: BPE (`llama`), and the unigram language model of T5 and XLM-RoBERTa (`t5`).

Spaces are written as `▁` in both. Of BPE a GGUF keeps no merges, but a score for each token, from which they follow; of
a unigram model the scores are the model.
"""

from __future__ import annotations

import base64

import numpy as np

from .byte_level import bpe, strips_in_phi3
from .refused import damaged
from .vocabulary import (
    BYTE,
    LONGEST_TOKEN,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Json,
    Vocabulary,
    between,
    scores_of,
)

_MERGED = (NORMAL, USER_DEFINED, UNUSED)
_LEAF, _HAS_LEAF, _EXTENDED = 1 << 31, 1 << 8, 1 << 9


class SentencePieceBpe(Vocabulary):
    """`llama`. What no token covers is spelled in bytes."""

    known_as = "llama"

    def model(self) -> Json:
        unknown = self.id_of("unknown_token_id")
        bytes_ = all(f"<0x{value:02X}>" in set(self.tokens) for value in (0, 127, 255))
        return bpe(self.tokens, self.merges()) | {
            "unk_token": self.tokens[unknown] if unknown is not None else None,
            "fuse_unk": True,
            "byte_fallback": bytes_,
            "ignore_merges": False,
        }

    def stages(self) -> Json:
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        decoders: list[Json] = [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        if not self.metadata.get("tokenizer.ggml.add_space_prefix", True):
            return {"normalizer": spaces, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": decoders}}
        before = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {"normalizer": before, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": decoders}}

    def strips(self, token: str) -> bool:
        return strips_in_phi3(self.metadata, token)

    def edges_by_default(self) -> tuple[str, ...]:
        return ("bos",)

    def merges(self) -> list[list[str]]:
        """Every way to put a token together from two others, the best score first."""
        scores = scores_of(self.metadata, len(self.tokens))
        ids = {token: index for index, token in enumerate(self.tokens) if self.kinds[index] in _MERGED}
        found = []
        for token, index in ids.items():
            if len(token) > LONGEST_TOKEN:
                raise damaged(f"`tokenizer.ggml.tokens` has a token of {len(token)} characters")
            for cut in range(1, len(token)):
                left, right = token[:cut], token[cut:]
                if left in ids and right in ids:
                    found.append((-scores[index], index, -cut, ids[left], ids[right]))
        return [[self.tokens[left], self.tokens[right]] for _, _, _, left, right in sorted(found)]


class Unigram(Vocabulary):
    """`t5`."""

    known_as = "t5"

    def model(self) -> Json:
        unknown = self.id_of("unknown_token_id")
        if unknown is None:
            unknown = next((index for index, kind in enumerate(self.kinds) if kind == UNKNOWN), None)
        if unknown is None and BYTE not in self.kinds:
            raise damaged("`tokenizer.ggml.tokens` has no token for what no other covers")
        scores = scores_of(self.metadata, len(self.tokens))
        # Fillers have a score far below all others, from which the score of what no token covers would be derived.
        used = [score for score, kind in zip(scores, self.kinds, strict=True) if kind != UNUSED]
        least = min(used, default=0.0)
        return {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": [[token, max(score, least)] for token, score in zip(self.tokens, scores, strict=True)],
            "byte_fallback": BYTE in self.kinds,
        }

    def stages(self) -> Json:
        scheme = "always" if self.metadata.get("tokenizer.ggml.add_space_prefix", True) else "never"
        spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
        steps: list[Json] = []
        if (charsmap := self._charsmap()) is not None:
            steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
        if self.metadata.get("tokenizer.ggml.remove_extra_whitespaces", True):
            steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
            steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, spaces]}
        return {
            "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
            "pre_tokenizer": spaces,
            "decoder": decoder if BYTE in self.kinds else spaces,
        }

    def post_processor(self) -> Json | None:
        """XLM-RoBERTa puts two ends between two texts, T5 one. All of a pair is of one type to both."""
        start, end = self.edge("bos"), self.edge("eos")
        if start is None and end is None:
            return None
        return between(start, end, (end,) if start else (), 0)

    def special(self) -> Json:
        named = {key: self.id_of(f"{key}_token_id") for key in ("cls", "mask")}
        named["sep"] = self.id_of("seperator_token_id")  # llama.cpp's own spelling
        return super().special() | {
            f"{key}_token": self.tokens[index] for key, index in named.items() if index is not None
        }

    def edges_by_default(self) -> tuple[str, ...]:
        """T5's; encoders have both."""
        return ("bos", "eos") if "bert" in str(self.metadata["general.architecture"]) else ("eos",)

    def _charsmap(self) -> str | None:
        """The table that SentencePiece normalizes text by, as it has compiled it."""
        numbers = self.metadata.get("tokenizer.ggml.precompiled_charsmap")
        if numbers is None:
            return None
        try:
            table = np.array(numbers, dtype=np.int64)
            if table.ndim != 1 or not ((table >= -128) & (table < 256)).all():
                raise ValueError("it holds no bytes")
            data = table.astype(np.uint8).tobytes()
            _check_charsmap(data)
        except (ValueError, TypeError, OverflowError) as error:
            raise damaged("`tokenizer.ggml.precompiled_charsmap` is no table of SentencePiece's") from error
        return base64.b64encode(data).decode()


def _check_charsmap(data: bytes) -> None:
    """Raise ValueError for a table whose reader would leave it: the `tokenizers` library ends the process then.

    It is the size of a trie (a double array of uint32, see darts-clone), the trie, and texts that end in NUL, which its
    leaves point into. From a unit at `i` one goes to `i ^ offset ^ byte`, and its leaf is at `i ^ offset`.
    """
    size = int.from_bytes(data[:4], "little")
    if size % 4 or size == 0 or 4 + size > len(data):
        raise ValueError("its trie is longer than it is")
    texts = data[4 + size :]
    texts.decode()
    units = np.frombuffer(data, "<u4", size // 4, offset=4).astype(np.int64)
    inner = (units & _LEAF) == 0
    offsets = (units >> 10) << ((units & _EXTENDED) >> 6)
    base = np.arange(len(units)) ^ offsets
    if (base[inner] | 0xFF).max(initial=0) >= len(units):
        raise ValueError("its trie leads out of it")
    leaves = units[base[inner & ((units & _HAS_LEAF) != 0)]]
    if (leaves & (_LEAF - 1)).max(initial=0) >= max(len(texts), 1):
        raise ValueError("its leaves lead out of it")
