"""Prompts of about so many tokens, made of common words; no two alike but for the prefix that they may share."""

from __future__ import annotations

import random
from dataclasses import dataclass

WORDS = """
    time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother
    area money story fact month lot right study book eye job word business issue side kind head house service friend
    father power hour game line end member law car city name team minute idea body back parent face others level
    office door health person art war history party result change morning reason research girl guy moment air
    teacher
""".split()  # noqa: SIM905 - a hundred literals would hide the rest
"""Nearly all of them are one token to nearly every tokenizer."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How this model counts: `tokens = overhead + per_word * words`."""

    overhead: float = 0.0
    per_word: float = 1.0

    @classmethod
    def through(cls, few: tuple[int, int], many: tuple[int, int]) -> Scale:
        """From two prompts, each as words and the tokens that it was counted as."""
        per_word = (many[1] - few[1]) / (many[0] - few[0])
        if per_word <= 0:  # nothing was counted
            return cls()
        return cls(few[1] - per_word * few[0], per_word)

    def words(self, tokens: int) -> int:
        return max(1, round((tokens - self.overhead) / self.per_word))


class Prompts:
    """The same seed gives the same prompts. `input_tokens` come on top of the shared `prefix_tokens`."""

    def __init__(self, scale: Scale, *, input_tokens: int, prefix_tokens: int, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._own = scale.words(input_tokens)
        self._prefix = self.some(round(prefix_tokens / scale.per_word)) if prefix_tokens else ""

    def some(self, words: int) -> str:
        return " ".join(self._random.choices(WORDS, k=words))

    def next(self) -> str:
        return f"{self._prefix} {self.some(self._own)}".strip()
