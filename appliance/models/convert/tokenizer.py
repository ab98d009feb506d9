"""A tokenizer rebuilt from a GGUF's own vocabulary, as the files that the `tokenizers` library reads.

Byte-level BPE (`tokenizer.ggml.model` is `gpt2`) and SentencePiece's BPE (`llama`). What a GGUF does not keep of the
first is the pre-tokenizer, the rule that cuts text before merges apply: `tokenizer.ggml.pre` names it. Of the second it
does not keep the merges, but a score for each token, from which they follow.
"""

from __future__ import annotations

from typing import Any

from .refused import damaged, unsupported

Json = dict[str, Any]

_SPACE, _END_OF_TEXT = "\u2581", "<|endoftext|>"
LONGEST_TOKEN = 1024  # characters; the longest that are known have a few hundred

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_MERGED = (_NORMAL, _USER_DEFINED, _UNUSED)

_SPLIT = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# One digit at a time, then GPT-2's own rule.
_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")
_GPT2 = ("gpt-2", "gpt2", "olmo", "jais", "phi-2")
_QWEN = ("qwen2", "deepseek-r1-qwen")
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_REGEX = dict.fromkeys(_QWEN, _SPLIT % "") | dict.fromkeys(_LLAMA3, _SPLIT % "{1,3}")


def tokenizer_files(metadata: Json) -> dict[str, Json]:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, by name."""
    vocabulary = _SentencePiece(metadata) if metadata.get("tokenizer.ggml.model") == "llama" else _Vocabulary(metadata)
    return {
        "tokenizer.json": vocabulary.tokenizer(),
        "tokenizer_config.json": vocabulary.config(),
        "special_tokens_map.json": vocabulary.special(),
    }


def token_ids(metadata: Json) -> Json:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`, as config.json and generation_config.json spell them.

    A chat model may end a turn and a text with different tokens; then `eos_token_id` is a list.
    """
    size = len(_strings(metadata, "tokenizer.ggml.tokens"))
    ids: Json = {}
    for key, field in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")):
        if (value := _id(metadata, field, size)) is not None:
            ids[f"{key}_token_id"] = value
    ends = [ids.get("eos_token_id"), _id(metadata, "eot_token_id", size), _id(metadata, "eom_token_id", size)]
    distinct = list(dict.fromkeys(each for each in ends if each is not None))
    if len(distinct) > 1:
        ids["eos_token_id"] = distinct
    return ids


class _Vocabulary:
    """Byte-level BPE."""

    known_as = "gpt2"

    def __init__(self, metadata: Json) -> None:
        model = metadata.get("tokenizer.ggml.model")
        if model != self.known_as:
            raise unsupported(
                f"the tokenizer `{model}` is not supported in a GGUF file",
                hint="byte-level BPE (`gpt2`) and SentencePiece (`llama`) are; else use a Hugging Face checkpoint",
            )
        self._metadata = metadata
        self._tokens = _strings(metadata, "tokenizer.ggml.tokens")
        self._kinds = metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(self._tokens))
        if not isinstance(self._kinds, list) or len(self._kinds) != len(self._tokens):
            raise damaged("`tokenizer.ggml.token_type` and `tokenizer.ggml.tokens` differ in length")
        if len(set(self._tokens)) != len(self._tokens):
            raise damaged("`tokenizer.ggml.tokens` has a token twice")

    def tokenizer(self) -> Json:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self._added(),
            "post_processor": self._post_processor(),
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                # Llama 3 takes a word that is a token as it is, whether or not merges lead there.
                "ignore_merges": self._pre() in _LLAMA3,
                "vocab": {token: index for index, token in enumerate(self._tokens)},
                "merges": self._merges(),
                **self._own_model(),
            },
            **self._stages(),
        }

    def _own_model(self) -> Json:
        return {}

    def _stages(self) -> Json:
        """What happens to text before and after the model."""
        return {
            "normalizer": {"type": "NFC"} if self._pre() in _QWEN else None,
            "pre_tokenizer": _pre_tokenizer(self._pre()),
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        }

    def config(self) -> Json:
        # The class that takes tokenizer.json as it is; a model's own class would rebuild parts of it.
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self._metadata.get(f"{self._metadata['general.architecture']}.context_length"),
            "added_tokens_decoder": {
                str(token["id"]): {name: value for name, value in token.items() if name != "id"}
                for token in self._added()
            },
            **self.special(),
        }

    def special(self) -> Json:
        fields = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        ids = {key: _id(self._metadata, f"{field}_token_id", len(self._tokens)) for key, field in fields.items()}
        return {f"{key}_token": self._tokens[index] for key, index in ids.items() if index is not None}

    def _pre(self) -> str:
        return str(self._metadata.get("tokenizer.ggml.pre", "default"))

    def _added(self) -> list[Json]:
        return [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": self._strips(token),
                "normalized": False,
                "special": kind in (_CONTROL, _UNKNOWN),
            }
            for index, (token, kind) in enumerate(zip(self._tokens, self._kinds, strict=True))
            if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED) and token
        ]

    def _merges(self) -> list[list[str]]:
        known = set(self._tokens)
        merges = [merge.split(" ") for merge in _strings(self._metadata, "tokenizer.ggml.merges")]
        for merge in merges:
            if len(merge) != 2 or not known.issuperset((*merge, "".join(merge))):
                raise damaged(f"`tokenizer.ggml.merges` has `{' '.join(merge)[:40]}`, which does not merge two tokens")
        return merges

    def _strips(self, token: str) -> bool:
        """Whether white space behind this token is not there. Only Phi 3 has such, and a GGUF does not say so."""
        phi3 = self._metadata.get("general.architecture") == "phi3"
        return phi3 and token.startswith("<|") and token != _END_OF_TEXT

    def _plain_post_processor(self) -> Json | None:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}

    def _post_processor(self) -> Json | None:
        plain = self._plain_post_processor()
        start = self._edge("bos")
        end = self._edge("eos")
        if start is None and end is None:
            return plain
        sequence: Json = {"Sequence": {"id": "A", "type_id": 0}}
        single = [_special(start), sequence, _special(end)]
        pair = [_special(start), sequence, _special(end), _special(start, 1), _second(sequence), _special(end, 1)]
        tokens = {
            token: {"id": token, "ids": [index], "tokens": [token]} for token, index in filter(None, (start, end))
        }
        template = {
            "type": "TemplateProcessing",
            "single": [each for each in single if each],
            "pair": [each for each in pair if each],
            "special_tokens": tokens,
        }
        return {"type": "Sequence", "processors": [plain, template]} if plain else template

    def _edge(self, which: str) -> tuple[str, int] | None:
        """The token put at the start (`bos`) or end (`eos`) of every text, where the file asks for it."""
        default = which == "bos" and self._starts_by_default()
        index = _id(self._metadata, f"{which}_token_id", len(self._tokens))
        if not self._metadata.get(f"tokenizer.ggml.add_{which}_token", default) or index is None:
            return None
        return self._tokens[index], index

    def _starts_by_default(self) -> bool:
        """llama.cpp's own default where the file is silent: for byte-level BPE only Llama 3 begins its texts."""
        return self._pre() in _LLAMA3


class _SentencePiece(_Vocabulary):
    """SentencePiece's BPE: spaces are written as `▁`, and what no token covers is spelled in bytes."""

    known_as = "llama"

    def _own_model(self) -> Json:
        unknown = _id(self._metadata, "unknown_token_id", len(self._tokens))
        bytes_ = all(f"<0x{value:02X}>" in set(self._tokens) for value in (0, 127, 255))
        return {
            "unk_token": self._tokens[unknown] if unknown is not None else None,
            "fuse_unk": True,
            "byte_fallback": bytes_,
            "ignore_merges": False,
        }

    def _stages(self) -> Json:
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        decoders: list[Json] = [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        if not self._metadata.get("tokenizer.ggml.add_space_prefix", True):
            return {"normalizer": spaces, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": decoders}}
        before = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, spaces]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {"normalizer": before, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": decoders}}

    def _plain_post_processor(self) -> None:
        return None

    def _starts_by_default(self) -> bool:
        return True

    def _merges(self) -> list[list[str]]:
        """Every way to put a token together from two others, the best score first."""
        scores = self._metadata.get("tokenizer.ggml.scores")
        if not isinstance(scores, list) or len(scores) != len(self._tokens):
            raise damaged("`tokenizer.ggml.scores` is missing or differs in length from `tokenizer.ggml.tokens`")
        if not all(isinstance(score, float) and -1e30 < score < 1e30 for score in scores):
            raise damaged("`tokenizer.ggml.scores` holds something that is no number")
        ids = {token: index for index, token in enumerate(self._tokens) if self._kinds[index] in _MERGED}
        found = []
        for token, index in ids.items():
            if len(token) > LONGEST_TOKEN:
                raise damaged(f"`tokenizer.ggml.tokens` has a token of {len(token)} characters")
            for cut in range(1, len(token)):
                left, right = token[:cut], token[cut:]
                if left in ids and right in ids:
                    found.append((-scores[index], index, -cut, ids[left], ids[right]))
        return [[self._tokens[left], self._tokens[right]] for _, _, _, left, right in sorted(found)]


def _special(edge: tuple[str, int] | None, type_id: int = 0) -> Json | None:
    return {"SpecialToken": {"id": edge[0], "type_id": type_id}} if edge else None


def _second(sequence: Json) -> Json:
    return {"Sequence": {**sequence["Sequence"], "id": "B", "type_id": 1}}


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
    known = sorted((*_DIGITS, *_GPT2, *_REGEX))
    raise unsupported(
        f"the pre-tokenizer `{pre}` is not supported in a GGUF file", hint=f"supported are {', '.join(known)}"
    )


def _in_turn(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _strings(metadata: Json, key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise damaged(f"`{key}` is missing or holds no strings")
    return value


def _id(metadata: Json, field: str, size: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{field}")
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < size:
        raise damaged(f"`tokenizer.ggml.{field}` is `{value}`, outside the vocabulary of {size} tokens")
    return value
