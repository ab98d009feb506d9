"""The rules in migrations/*.yaml: what becomes of each key of each vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import appliance
from appliance.config.positions import parse

Level = Literal["kept", "mapped", "dropped", "manual"]
"""kept: the same setting, the same value. mapped: said in another way. dropped: means nothing here. manual: needs a
person."""

LEVELS: tuple[Level, ...] = get_args(Level)
_FIELDS = frozenset({"from", "level", "why", "to", "how", "secret", "order", "source"})


@dataclass(frozen=True, slots=True)
class Rule:
    """`how` names a transform, `to` the key it sets (`=` in it: the same name), `order` when it runs among others."""

    level: Level
    why: str
    source: str
    to: str | None = None
    how: str | None = None
    secret: bool = False
    order: int = 0


UNKNOWN = Rule("manual", "Not known to this version, so nothing was done with it.", "")


@dataclass(frozen=True)
class Vocabulary:
    name: str
    rules: Mapping[str, Rule]
    patterns: tuple[tuple[str, Rule], ...]

    def rule(self, word: str) -> Rule | None:
        """An exact name first, then the pattern with the most letters of its own."""
        if word in self.rules:
            return self.rules[word]
        matching = [(pattern, rule) for pattern, rule in self.patterns if fnmatchcase(word, pattern)]
        return max(matching, key=lambda each: len(each[0].replace("*", "")))[1] if matching else None


def shipped_migrations() -> Path:
    """In a wheel they are packaged data, in a checkout they are at its root."""
    package = Path(appliance.__file__).parent
    packaged = package / "data" / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


@cache
def vocabulary(name: str) -> Vocabulary:
    """Raises for a file that breaks its own format: it ships with the package, so that is a bug."""
    path = shipped_migrations() / f"{name}.yaml"
    document = parse(path.read_text(encoding="utf-8"), str(path))
    if document.problems or document.data.get("vocabulary") != name:
        raise ValueError(f"{path}: {document.problems or 'names another vocabulary'}")
    rules: dict[str, Rule] = {}
    patterns: list[tuple[str, Rule]] = []
    for number, entry in enumerate(document.data["rules"]):
        rule = _rule(entry, document.data["source"], f"{path}, rule {number + 1}")
        for word in entry["from"]:
            if word in rules:
                raise ValueError(f"{path}: two rules for `{word}`")
            rules[word] = rule
            if "*" in word:
                patterns.append((word, rule))
    return Vocabulary(name, rules, tuple(patterns))


def _rule(entry: Mapping[str, Any], source: str, where: str) -> Rule:
    if entry.keys() - _FIELDS or not {"from", "level", "why"} <= entry.keys() or entry["level"] not in LEVELS:
        raise ValueError(f"{where}: {sorted(entry)}")
    fields = {name: value for name, value in entry.items() if name != "from"}
    return Rule(**{"source": source, **fields})


def vocabularies() -> Iterator[Vocabulary]:
    for path in sorted(shipped_migrations().glob("*.yaml")):
        if path.stem != "models":
            yield vocabulary(path.stem)


def find_rule(vocabulary_name: str, word: str) -> Rule:
    """The rule for a word; variables are looked up in both lists that speak of variables."""
    names = ("model-runner-variables", "engine-variables") if vocabulary_name == "variables" else (vocabulary_name,)
    found = [rule for name in names if (rule := vocabulary(name).rule(word)) is not None]
    return found[0] if found else UNKNOWN
