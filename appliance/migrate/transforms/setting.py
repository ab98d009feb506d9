"""What a transform is given, and what it says in return."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from appliance.migrate.draft import Draft, Model
from appliance.migrate.found import Found, Reading
from appliance.migrate.rules import Level, Rule


@dataclass(frozen=True, slots=True)
class Setting:
    found: Found
    rule: Rule
    draft: Draft
    reading: Reading

    @property
    def value(self) -> Any:
        return self.found.value

    @property
    def models(self) -> list[Model]:
        return [*self.draft.of(self.found.model), *self.found.also]

    @property
    def name(self) -> str:
        """The last part of what the rule sets, `top_p` of `models.*.sampling.top_p`; `=` is the same word."""
        last = (self.rule.to or "").rpartition(".")[2]
        return self.found.word if last == "=" else last


@dataclass(frozen=True, slots=True)
class Result:
    """What the report says instead of the rule; None: what the rule says."""

    level: Level | None = None
    why: str | None = None
    to: str | None = None
    value: Any = None
    """What is written, where it is not what was found."""


Transform = Callable[[Setting], Result]

AS_THE_RULE_SAYS = Result()


def manual(why: str) -> Result:
    return Result("manual", why)


def dropped(why: str) -> Result:
    return Result("dropped", why)


def put(setting: Setting, models: Iterable[Model], section: str, name: str, value: Any) -> Result:
    """Set one key of a section of each model. What is about one model wins over what is about all."""
    models = list(models)
    if not models:
        return manual("No model that it could be set for was found.")
    for model in models:
        values: dict[str, Any] = getattr(model, section)
        if setting.found.model is not None or name not in values:
            values[name] = value
    return AS_THE_RULE_SAYS
