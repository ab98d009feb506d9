"""A configuration as plain data that can be written down: durations and sizes as in the file, no secrets."""

from __future__ import annotations

from typing import Any, ClassVar

import yaml

from appliance.config.fields import is_secret
from appliance.config.models import Appliance
from appliance.config.positions import plain_scalar
from appliance.config.problems import KeyPath
from appliance.config.scalars import MASK
from appliance.config.secrets import is_reference


def to_plain(appliance: Appliance) -> dict[str, Any]:
    """Everything, defaults included, for YAML or JSON. Loading it gives the same configuration, but for secrets that
    were not `${…}` references: those are masked.
    """
    plain: dict[str, Any] = mask(appliance.model_dump(mode="json"), ())
    return plain


def to_yaml(appliance: Appliance) -> str:
    """`to_plain` as a file that loads."""
    return dump(to_plain(appliance))


def dump(value: Any) -> str:
    """Plain data as YAML that this package reads back as the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=4096)
    return text


def _quote_look_alikes(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Several lines stay lines. PyYAML leaves `1e5` unquoted, for it reads that as text where YAML 1.2 and this package
    read a number.
    """
    style = "|" if "\n" in text else None if isinstance(plain_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


class _Dumper(yaml.SafeDumper):
    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: _quote_look_alikes}


def mask(value: Any, path: KeyPath) -> Any:
    if isinstance(value, dict):
        return {key: mask(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask(inner, (*path, index)) for index, inner in enumerate(value)]
    if value is None or not is_secret(path):
        return value
    return value if isinstance(value, str) and is_reference(value) else MASK
