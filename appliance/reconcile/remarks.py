"""What the models' files have that is not served, or lack, told where a person looks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appliance.config.models import Appliance
from appliance.models.checkpoint import is_projector
from appliance.models.sources import HubSource, LocalSource, Source, parse_source
from appliance.models.store import Store


def remarks(appliance: Appliance, base: Path, store: Store) -> list[dict[str, Any]]:
    """As plain data, of the models whose files are here."""
    found = []
    for name, model in appliance.models.items():
        for file in sorted(filter(is_projector, _files(parse_source(model.source, base=base), store))):
            message = f"`{file}` lets it see or hear, and is not used: the model is served for texts alone"
            found.append({"name": name, "message": message})
        source = parse_source(model.source, base=base)
        if model.engine.get("trust_remote_code") is True and isinstance(source, HubSource) and ".py" not in source.text:
            message = f"code is fetched where it is asked for by name: `{source.text}{_code(source)}`"
            found.append({"name": name, "message": message})
    return found


def _code(source: HubSource) -> str:
    return ",*.py" if source.files else "#*,*.py"


def _files(source: Source, store: Store) -> Iterable[str]:
    if not isinstance(source, LocalSource):
        record = store.record(source)
        return record.files if record else ()
    # Beside a file that was named by itself anything may lie.
    return [each.name for each in source.path.iterdir()] if source.path.is_dir() else ()
