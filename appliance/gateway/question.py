"""What a client asks of an engine, whatever the dialect it asks in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from appliance.errors import RequestError
from appliance.gateway.connection import Connection
from appliance.gateway.errors import Header
from appliance.routing import Route

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream that an answer was asked to be."""

    content_type: bytes
    idle: bytes
    """One whole event that means nothing: written while there is nothing to say, lest somebody on the way gives up."""

    def headers(self) -> list[Header]:
        return [(b"content-type", self.content_type), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


@dataclass(frozen=True, slots=True)
class Question:
    """One exchange with an engine. It may be begun again with another engine for as long as none has seen it."""

    path: str
    """The engine's path."""
    model: str
    """The name that the client used; the answer carries it too."""
    body: Callable[[Route], bytes | tuple[bytes | memoryview, ...]]
    """The body for this engine, whole or in parts."""
    answer: Callable[[Connection, Route], Awaitable[None]]
    """Answers the client from a connection whose status is below 400. May raise RequestError and EngineGone."""
    stream: Stream | None = None
    """None where nothing can be said before the answer."""
    content_type: bytes = JSON
    refused: Callable[[RequestError], Question | None] | None = None
    """What to ask instead when the engine refuses this, if anything."""
    method: str = "POST"
    route: Route | None = None
    """The one engine that can answer; None where any of the model's can."""
