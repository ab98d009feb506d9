"""One row of the report for each key that was found."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from appliance.migrate.draft import Draft, Model
from appliance.migrate.found import Found, Reading, is_secret_name, secrets_in
from appliance.migrate.rules import UNKNOWN, Level, Rule, find_rule
from appliance.migrate.transforms import TRANSFORMS
from appliance.migrate.transforms.setting import Setting

HIDDEN = "(hidden)"
_UNSAID = 'Holds a secret, which is not copied; give it to the model under `env`, as "${env:NAME}" or "${file:PATH}".'
_LONGEST = 60
_RANDOM = re.compile(r"(?<![A-Za-z0-9_+=-])(?<!sha256:)(?=\S*\d)(?=\S*[A-Za-z])[A-Za-z0-9_+=-]{32,}")


@dataclass(slots=True)
class Row:
    """`to` has `*` where the model's name goes, which is known once all inputs are read."""

    place: str
    key: str
    value: str = field(repr=False)
    level: Level
    to: str | None
    why: str
    source: str
    model: Model | None = None
    became: str = ""

    @property
    def target(self) -> str:
        """Where it went: `models.smollm2.engine.max_model_len: 4096`."""
        if self.to is None or self.level in ("dropped", "manual"):
            return ""
        path = self.to.replace("*", self.model.name, 1) if self.model and self.model.name else self.to
        return f"{path}: {self.became}" if self.became else path


def apply_rules(reading: Reading, draft: Draft) -> list[Row]:
    """Every setting to the draft, in the order that the rules need; the rows in the order of the inputs."""
    rows: dict[int, Row] = {}
    settings = [Setting(found, find_rule(found.vocabulary, found.word), draft, reading) for found in reading.founds]
    for index, setting in sorted(enumerate(settings), key=lambda each: each[1].rule.order):
        rows[index] = _row(setting)
    return [rows[index] for index in range(len(settings))]


def _row(setting: Setting) -> Row:
    found, rule = setting.found, setting.rule
    if found.level is not None or rule is UNKNOWN or rule.how is None:
        return _make(found, rule, found.level or rule.level, found.why or rule.why, rule.to)
    if not rule.secret and (secrets_in(found.value) or is_secret_name(found.key.rpartition(".")[2])):
        return _make(found, rule, "manual", _UNSAID, None)
    result = TRANSFORMS[rule.how](setting)
    row = _make(found, rule, result.level or rule.level, result.why or rule.why, result.to or rule.to)
    if row.to and row.to.endswith(".="):
        row.to = f"{row.to[:-1]}{found.word}"
    written = result.value if result.value is not None else found.value
    row.became = "" if rule.secret else shown(written, found.key)
    return row


def _make(found: Found, rule: Rule, level: Any, why: str, to: str | None) -> Row:
    value = HIDDEN if rule.secret and found.value not in (None, "") else shown(found.value, found.key)
    return Row(found.place, found.key, value, level, to, why, rule.source, found.model)


def shown(value: Any, key: str) -> str:
    """A value as the report shows it: short, printable, and never one that looks like a secret."""
    if value is None or value == "":
        return ""
    if is_secret_name(key.rpartition(".")[2].rpartition(" ")[2]):
        return HIDDEN
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict | list) for item in value)):
        return "…"  # a structure is known by its key; what is in it may be anything
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = _RANDOM.sub(HIDDEN, text)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
