"""What a reader hands on: settings as they were found, each exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.migrate.draft import Model, Mount, Origin


@dataclass(frozen=True, slots=True)
class Found:
    """One key of an input. `vocabulary` and `word` lead to its rule; `key` is where a person finds it again."""

    place: str
    key: str
    value: Any = field(repr=False)
    vocabulary: str
    word: str
    model: Model | None = None
    """None: about all models of the input."""
    also: tuple[Model, ...] = ()
    """Further models that the same key is about."""
    level: str | None = None
    """What the reader knows better than the rule does."""
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Consumer:
    """A Compose service that was told where a model is: variable → what it held."""

    service: str
    model: Model
    url_variable: str
    model_variable: str


@dataclass(slots=True)
class Reading:
    """All that was found in all inputs."""

    founds: list[Found] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    addresses: dict[tuple[str, str], str] = field(default_factory=dict)
    """What variables of Compose services said of where an engine is, `${NAME}` filled in, by service and variable."""
    replaced: dict[str, set[str]] = field(default_factory=dict)
    """Compose services that the appliance takes the place of, by file."""
    secrets: set[str] = field(default_factory=set, repr=False)
    problems: list[str] = field(default_factory=list)
    read_files: list[Path] = field(default_factory=list)
    _seen: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    def model(
        self, label: str, origin: Origin, base: Path, mounts: Iterable[Mount] = (), *, names: Iterable[str] = ()
    ) -> Model:
        model = Model(label, origin, base, tuple(mounts), names=list(names))
        self.models.append(model)
        return model

    def add(
        self,
        vocabulary: str,
        word: str,
        value: Any,
        *,
        key: str,
        place: str,
        model: Model | None = None,
        also: Iterable[Model] = (),
        level: str | None = None,
        why: str | None = None,
    ) -> None:
        count = self._seen[place, key] = self._seen.get((place, key), 0) + 1
        named = key if count == 1 else f"{key} #{count}"  # given twice: two rows that can be told apart
        self.founds.append(Found(place, named, value, vocabulary, word, model, tuple(also), level, why))
        if is_secret_name(key.rpartition(".")[2]):
            self.hide(value)
        else:
            self.secrets.update(secrets_in(value))

    def hide(self, value: Any) -> None:
        """This value, and whatever text is inside it, appears in no report and no file."""
        match value:
            case str() if len(value) >= 4:
                self.secrets.add(value)
                self.secrets.update(part.strip() for part in value.split(",") if len(part.strip()) >= 4)
            case dict():
                for inner in value.values():
                    self.hide(inner)
            case list() | tuple():
                for inner in value:
                    self.hide(inner)


_SECRET_NAME = re.compile(
    r"(?:^|[^a-z])(?:api[-_]?key|apikeys?|token|secret|password|passwd|credentials?|private[-_]?key|auth|master[-_]?key)"
    r"(?:s)?(?:$|[^a-z])",
    re.IGNORECASE,
)
_NOT_SECRET = re.compile(r"max[-_]|tokens|tokenizer|_file$|-file$|parser|budget", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\b(?:sk-[\w-]{8,}|hf_\w{8,}|gh[pousr]_\w{16,}|xox[a-z]-[\w-]{8,}|AKIA\w{12,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|nvapi-[\w-]{8,}|glpat-[\w-]{8,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?<=[Bb]earer )[\w.~+/-]{8,}=*"
)


def is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))) and not _NOT_SECRET.search(name)


def secrets_in(value: Any) -> set[str]:
    """What looks like a key, a token, or a URL's user and password, wherever it stands in a value."""
    match value:
        case str():
            return {match[0] for match in _SECRET_VALUE.finditer(value)}
        case dict():
            named = {str(inner) for name, inner in value.items() if is_secret_name(str(name)) and len(str(inner)) >= 4}
            return named.union(*(secrets_in(inner) for inner in value.values()))
        case list() | tuple():
            return set[str]().union(*(secrets_in(inner) for inner in value))
    return set()
