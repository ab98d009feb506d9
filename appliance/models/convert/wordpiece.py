"""BERT's WordPiece (`bert`).

llama.cpp writes `▁` before the tokens that begin a word and takes `##` from those that go on, which is undone here.
Whether a vocabulary tells upper from lower case is not in the file; that it has tokens in upper case says so.
"""

from __future__ import annotations

import re
from functools import cached_property

from .refused import damaged
from .vocabulary import CONTROL, NORMAL, SPACE, Json, Vocabulary, between

_GOES_ON = "##"
_BRACKETS = re.compile(r"\[.+\]")
_LONGEST_WORD = 100  # characters; BERT's own bound, beyond which a word is unknown
_PARTS = {
    "cls": ("cls", "[CLS]"),
    "sep": ("seperator", "[SEP]"),  # llama.cpp's own spelling
    "pad": ("padding", "[PAD]"),
    "unk": ("unknown", "[UNK]"),
    "mask": ("mask", "[MASK]"),
}
_NEEDED = ("cls", "sep", "unk")


class WordPiece(Vocabulary):
    """`bert`."""

    known_as = "bert"

    def __init__(self, metadata: Json) -> None:
        super().__init__(metadata)
        own = set(self.parts.values())  # special, whatever kind the file gives them
        self.kinds = [CONTROL if index in own else kind for index, kind in enumerate(self.kinds)]

    def spelled(self, token: str, kind: int) -> str:
        """As BERT's own vocab.txt has it. Early files left the likes of `[unused0]` alone."""
        if kind == CONTROL or token.startswith(SPACE):
            return token.removeprefix(SPACE)
        return token if _BRACKETS.fullmatch(token) else _GOES_ON + token

    def model(self) -> Json:
        return {
            "type": "WordPiece",
            "unk_token": self.tokens[self.parts["unk"]],
            "continuing_subword_prefix": _GOES_ON,
            "max_input_chars_per_word": _LONGEST_WORD,
            "vocab": {token: index for index, token in enumerate(self.tokens)},
        }

    def stages(self) -> Json:
        return {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": not self._cased,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": _GOES_ON, "cleanup": True},
        }

    @property
    def _cased(self) -> bool:
        return any(
            kind == NORMAL and token != token.lower() and not _BRACKETS.fullmatch(token)
            for token, kind in zip(self.tokens, self.kinds, strict=True)
        )

    @cached_property
    def parts(self) -> dict[str, int]:
        """The tokens that have a part, by what the file says or else by their usual names."""
        ids = {token: index for index, token in enumerate(self.tokens)}
        found = {}
        for part, (field, name) in _PARTS.items():
            index = self.id_of(f"{field}_token_id")
            index = ids.get(name) if index is None else index
            if index is not None:
                found[part] = index
        if missing := [_PARTS[part][1] for part in _NEEDED if part not in found]:
            raise damaged(f"`tokenizer.ggml.tokens` has no `{missing[0]}`")
        return found

    def config(self) -> Json:
        return super().config() | {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}

    def special(self) -> Json:
        return {f"{part}_token": self.tokens[index] for part, index in self.parts.items()}

    def post_processor(self) -> Json:
        start, end = ((self.tokens[self.parts[part]], self.parts[part]) for part in ("cls", "sep"))
        two = self.metadata.get("tokenizer.ggml.token_type_count", 2) != 1
        return between(start, end, (), 1 if two else 0)
