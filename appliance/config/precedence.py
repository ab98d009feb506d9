"""Which source wins: one tuple, and the merge that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from appliance.config.layers import Layer

PRECEDENCE = ("command line", "environment", "file", "profile")
"""First wins, the models' own defaults come last. Mappings are merged key by key; lists and scalars replace."""


class _LayerSource(PydanticBaseSettingsSource):
    def __init__(self, settings: type[BaseSettings], data: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._data = data

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its interface
        return self._data, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {"merged": self._data}


class _Chain(BaseSettings):
    """Merges and validates nothing: each layer has been checked by itself, where its problems have a place."""

    merged: dict[str, Any] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - reads os.environ; ours reads the mapping it is given
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers: Mapping[str, Layer] = init_settings()["layers"]
        return tuple(_LayerSource(settings_cls, layers[name].data) for name in PRECEDENCE if name in layers)


def merge(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """`layers` by their place in PRECEDENCE."""
    return _Chain(layers=layers).merged  # type: ignore[call-arg]
