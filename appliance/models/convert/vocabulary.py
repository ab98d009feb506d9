"""What every kind of tokenizer that a GGUF describes has in common."""

from __future__ import annotations

from typing import Any

from .refused import damaged

Json = dict[str, Any]

SPACE = "\u2581"
LONGEST_TOKEN = 1024  # characters; the longest that are known have a few hundred

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Vocabulary:
    """The tokens of a GGUF, and tokenizer.json around them. A kind of tokenizer fills in `model` and `stages`."""

    known_as = ""
    """`tokenizer.ggml.model` of this kind."""

    def __init__(self, metadata: Json) -> None:
        self.metadata = metadata
        self.tokens = self.own_tokens()
        self.kinds = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(self.tokens))
        if not isinstance(self.kinds, list) or len(self.kinds) != len(self.tokens):
            raise damaged("`tokenizer.ggml.token_type` and `tokenizer.ggml.tokens` differ in length")
        self.tokens = [self.spelled(token, kind) for token, kind in zip(self.tokens, self.kinds, strict=True)]
        if len(set(self.tokens)) != len(self.tokens):
            raise damaged("`tokenizer.ggml.tokens` has a token twice")

    def own_tokens(self) -> list[str]:
        """As the file has them."""
        return strings(self.metadata, "tokenizer.ggml.tokens")

    def spelled(self, token: str, _kind: int) -> str:
        """One of the file's tokens as the `tokenizers` library wants it."""
        return token

    def tokenizer(self) -> Json:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added(),
            "post_processor": self.post_processor(),
            "model": self.model(),
            **self.stages(),
        }

    def model(self) -> Json:
        """How a piece of text becomes tokens."""
        raise NotImplementedError

    def stages(self) -> Json:
        """What happens to text before and after the model: `normalizer`, `pre_tokenizer` and `decoder`."""
        raise NotImplementedError

    def config(self) -> Json:
        # The class that takes tokenizer.json as it is; a model's own class would rebuild parts of it.
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.metadata.get(f"{self.metadata['general.architecture']}.context_length"),
            "added_tokens_decoder": {
                str(token["id"]): {name: value for name, value in token.items() if name != "id"}
                for token in self.added()
            },
            **self.special(),
        }

    def special(self) -> Json:
        """The tokens that have a part, by transformers' names for it."""
        fields = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        ids = {key: self.id_of(f"{field}_token_id") for key, field in fields.items()}
        return {f"{key}_token": self.tokens[index] for key, index in ids.items() if index is not None}

    def id_of(self, field: str) -> int | None:
        return token_id(self.metadata, field, len(self.tokens))

    @property
    def pre(self) -> str:
        return str(self.metadata.get("tokenizer.ggml.pre", "default"))

    def added(self) -> list[Json]:
        """The tokens that are found in a text before anything else happens to it."""
        return [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": self.strips(token),
                "normalized": False,
                "special": kind in (CONTROL, UNKNOWN),
            }
            for index, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind in (CONTROL, UNKNOWN, USER_DEFINED) and token
        ]

    def strips(self, _token: str) -> bool:
        """Whether white space behind this token is not there."""
        return False

    def plain_post_processor(self) -> Json | None:
        """What comes before the tokens at the edges of a text."""
        return None

    def post_processor(self) -> Json | None:
        plain = self.plain_post_processor()
        start, end = self.edge("bos"), self.edge("eos")
        if start is None and end is None:
            return plain
        pair = [_special(start), _SEQUENCE, _special(end), _special(start, 1), _second(1), _special(end, 1)]
        template = template_of([_special(start), _SEQUENCE, _special(end)], pair, (start, end))
        return {"type": "Sequence", "processors": [plain, template]} if plain else template

    def edge(self, which: str) -> tuple[str, int] | None:
        """The token put at the start (`bos`) or end (`eos`) of every text, where the file asks for it."""
        default = which in self.edges_by_default()
        index = self.id_of(f"{which}_token_id")
        if not self.metadata.get(f"tokenizer.ggml.add_{which}_token", default) or index is None:
            return None
        return self.tokens[index], index

    def edges_by_default(self) -> tuple[str, ...]:
        """llama.cpp's own default where the file is silent: some of `bos` and `eos`."""
        return ()


Edge = tuple[str, int] | None

_SEQUENCE: Json = {"Sequence": {"id": "A", "type_id": 0}}


def template_of(single: list[Json | None], pair: list[Json | None], tokens: tuple[Edge, ...]) -> Json:
    """Where the special tokens of one text go, and of two."""
    named = {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in filter(None, tokens)}
    return {
        "type": "TemplateProcessing",
        "single": [each for each in single if each],
        "pair": [each for each in pair if each],
        "special_tokens": named,
    }


def _special(edge: Edge, type_id: int = 0) -> Json | None:
    return {"SpecialToken": {"id": edge[0], "type_id": type_id}} if edge else None


def _second(type_id: int) -> Json:
    return {"Sequence": {"id": "B", "type_id": type_id}}


def between(start: Edge, end: Edge, separators: tuple[Edge, ...], type_id: int) -> Json:
    """`start A end`, and of two texts `start A end`, the separators, and `B end` of this type."""
    pair = [_special(start), _SEQUENCE, _special(end), *(_special(each) for each in separators)]
    pair += [_second(type_id), _special(end, type_id)]
    return template_of([_special(start), _SEQUENCE, _special(end)], pair, (start, end, *separators))


def strings(metadata: Json, key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise damaged(f"`{key}` is missing or holds no strings")
    return value


def scores_of(metadata: Json, count: int) -> list[float]:
    """A score for each token, all of them numbers."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != count:
        raise damaged("`tokenizer.ggml.scores` is missing or differs in length from `tokenizer.ggml.tokens`")
    if not all(isinstance(score, float) and -1e30 < score < 1e30 for score in scores):
        raise damaged("`tokenizer.ggml.scores` holds something that is no number")
    return scores


def token_id(metadata: Json, field: str, size: int) -> int | None:
    """A token's number by its part, `bos_token_id` for one. None where the file does not say."""
    value = metadata.get(f"tokenizer.ggml.{field}")
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < size:
        raise damaged(f"`tokenizer.ggml.{field}` is `{value}`, outside the vocabulary of {size} tokens")
    return value
