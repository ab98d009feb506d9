"""The immutable snapshot between the reconciler, who makes it, and the gateway, who reads one per request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from appliance.config.models import Key
from appliance.engines.driver import Capability


class Lease:
    """Counts one engine's requests in flight; an engine is stopped only when its lease has run out."""

    def __init__(self) -> None:
        self.last_used = 0.0
        """When the last request ended, on the event loop's clock; 0 before the first."""
        self.cut = False
        """Whether the engine was stopped although requests were in flight."""
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def acquire(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def release(self) -> None:
        self._in_flight -= 1
        self.last_used = asyncio.get_running_loop().time()
        if self._in_flight == 0:
            self._idle.set()

    async def drained(self) -> None:
        await self._idle.wait()


@dataclass(frozen=True, slots=True)
class Route:
    """One ready engine: how to reach it and what it calls the model."""

    model: str
    served: str
    key: str = field(repr=False)
    revision: str
    lease: Lease = field(repr=False)
    socket: str | None = None
    port: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Sampling defaults, merged into a request where it is silent."""
    context: int | None = None
    """Tokens of a prompt and its answer together, where the engine says it."""
    capabilities: frozenset[Capability] = frozenset(("completion",))
    idle_unload: float | None = None
    """Seconds without a request after which this engine is stopped; None for never."""
    media_domains: tuple[str, ...] = ()
    """Hosts that this engine may fetch images, audio and video from."""
    places: int = 320
    """Requests that this engine is given at once."""
    room: int = 512
    """Requests that may wait for a place at it."""
    developer: bool = False
    """Whether its chat template knows the role `developer`."""
    reasons: bool = False
    """Whether its answers may hold reasoning apart from the text."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Who may ask for what, and where it is. `routes` has None for a declared model that is not ready."""

    routes: Mapping[str, Route | None] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    globs: tuple[tuple[str, str], ...] = ()
    keys: tuple[Key, ...] = ()

    def resolve(self, name: str) -> str | None:
        """The declared model that `name` means: exact, alias, glob alias; then the same in Docker's normal form."""
        return self._find(name) or next(filter(None, map(self._find, _normal_forms(name))), None) or self._hub(name)

    def _find(self, name: str) -> str | None:
        if name in self.routes:
            return name
        if name in self.aliases:
            return self.aliases[name]
        return next((model for glob, model in self.globs if fnmatchcase(name, glob)), None)

    def _hub(self, name: str) -> str | None:
        """A repository of Hugging Face, which Docker knows by two hosts and without regard to case."""
        if (wanted := _hub_name(name)) is None:
            return None
        names = {**{model: model for model in self.routes}, **self.aliases}
        return next((model for declared, model in names.items() if _hub_name(declared) == wanted), None)


_HUB = ("hf.co/", "huggingface.co/")


def _hub_name(name: str) -> str | None:
    host = next((host for host in _HUB if name.startswith(host)), None)
    return None if host is None else name.removeprefix(host).removesuffix(":latest").lower()


def normal_form(name: str) -> str:
    """How Docker Model Runner writes a model's name itself."""
    if (repository := _hub_name(name)) is not None:
        name = f"huggingface.co/{repository}"
    bare = name.removeprefix("docker.io/").removeprefix("index.docker.io/")
    spaced = bare if "/" in bare else f"ai/{bare}"
    return spaced if ":" in spaced.rpartition("/")[2] else f"{spaced}:latest"


def _normal_forms(name: str) -> tuple[str, ...]:
    """The spellings that Docker Model Runner takes for the same model: default namespace and tag are optional."""
    bare = name.removeprefix("docker.io/").removeprefix("index.docker.io/").removesuffix(":latest")
    short = bare.removeprefix("ai/")
    return tuple(dict.fromkeys((bare, short, f"ai/{short}", f"{bare}:latest", f"ai/{short}:latest")))
