"""Profiles: settings that come beneath the file, shipped with the appliance or beside the file."""

from __future__ import annotations

from pathlib import Path

import appliance
from appliance.config.problems import did_you_mean


def shipped_profiles() -> Path:
    """In a wheel they are packaged data, in a checkout they are at its root."""
    package = Path(appliance.__file__).parent
    packaged = package / "data" / "profiles"
    return packaged if packaged.is_dir() else package.parent / "profiles"


def profile_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in shipped_profiles().glob("*.yaml")))


def is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def locate_profile(name: str, base: Path) -> Path:
    """A name is one that ships; anything with a slash or `.yaml` is a path, relative to what names it."""
    return base / Path(name).expanduser() if is_path(name) else shipped_profiles() / f"{name}.yaml"


def suggest(name: str) -> str:
    names = profile_names()
    known = f"shipped profiles: {', '.join(names)}; a path needs a `/` or `.yaml`"
    return did_you_mean(name, names) or known
