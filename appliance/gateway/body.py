"""The request body: read within its limit, parsed once."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.types import Receive

from appliance.config.scalars import format_size
from appliance.errors import RequestError
from appliance.gateway import media, structure
from appliance.routing import Route


class ClientGone(Exception):
    """Nobody is left to answer."""


async def read(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    found = await pieces(receive, headers, limit)
    return found[0] if len(found) == 1 else b"".join(found)


async def pieces(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> list[bytes]:
    """The body as it arrived, for those that are too large to be held twice."""
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    if (coding := headers.get(b"content-encoding", b"identity")) != b"identity":
        said = coding[:40].decode("ascii", "replace")
        raise RequestError(
            f"a body in `{said}` is not read here: send it as it is", status=415, code="unsupported_coding"
        )
    found: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        found.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise _too_large(limit)
        if not message["more_body"]:
            return found


def encode(value: Any) -> bytes:
    """JSON for a client. Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    return _ENCODER.encode(value).encode(errors="replace")


def parse(body: bytes) -> dict[str, Any]:
    """The body as an object whose `model` is a string and whose `stream`, if any, is a boolean."""
    request = parse_object(body)
    model = request.get("model")
    if model is None:
        raise _invalid("`model` is missing: name the model to ask; GET /v1/models lists them", "model")
    if not isinstance(model, str):
        raise _invalid("`model` must be a string", "model")
    if not isinstance(request.get("stream", False), bool | None):
        raise _invalid("`stream` must be true or false", "stream")
    return request


def parse_object(body: bytes) -> dict[str, Any]:
    structure.check(body)
    try:
        request = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not valid JSON: byte {error.start} is not UTF-8") from None
    except ValueError as error:
        said = str(error).partition("; use sys.")[0]  # Python's advice on numbers of thousands of digits
        raise _invalid(f"the body is not valid JSON: {said}") from None
    if not isinstance(request, dict):
        raise _invalid("the body must be a JSON object")
    return request


def with_defaults(request: Mapping[str, Any], defaults: Mapping[str, Any], limit_name: str) -> dict[str, Any]:
    """The defaults that this request is silent about. `limit_name` is what its API calls `max_tokens`."""
    given = {name for name, value in request.items() if value is not None}
    if given & {"max_tokens", "max_completion_tokens", "max_output_tokens"}:
        given |= {"max_tokens", limit_name}
    named = {limit_name if name == "max_tokens" else name: value for name, value in defaults.items()}
    return {name: value for name, value in named.items() if name not in given}


def for_engine(request: Mapping[str, Any], body: bytes | None, limit_name: str | None, route: Route) -> bytes:
    """The client's own `body`, if there is one, unless the name differs or the model has defaults to add.

    `limit_name` is None where sampling means nothing. Raises RequestError for media that the engine may not fetch.
    """
    media.check(request, route.media_domains)
    added: Mapping[str, Any] = {}
    if route.defaults and limit_name:
        added = with_defaults(request, route.defaults, limit_name)
    if body is not None and not added and request["model"] == route.served:
        return body
    return json.dumps({**request, **added, "model": route.served}, separators=(",", ":")).encode()


def with_usage(
    request: Mapping[str, Any], body: bytes | None, limit_name: str | None, route: Route
) -> bytes | tuple[bytes, memoryview]:
    """The same, for a stream whose usage the gateway wants and its client did not ask for."""
    if request.get("stream_options") is None and "stream_options" not in request:
        # A long chat is not written again for one key more.
        made = for_engine(request, body, limit_name, route)
        return b'{"stream_options":{"include_usage":true},', memoryview(made)[made.index(b"{") + 1 :]
    options = {**(request["stream_options"] or {}), "include_usage": True}
    # Per event it would be one more thing to take out again.
    options.pop("continuous_usage_stats", None)
    return for_engine({**request, "stream_options": options}, None, limit_name, route)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    """What is beyond a float would be written to the engine as `Infinity`, which is no JSON."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An engine may read the other one of two members of a name: then what was checked is not what it acts on."""
    found = dict(members)
    if len(found) < len(members):
        ((twice, _),) = Counter(name for name, _ in members).most_common(1)
        raise ValueError(f"`{twice[:100]}` is there twice in one object")
    return found


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""`json.dumps` would make one for every event of a stream."""
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once)


def _invalid(message: str, param: str | None = None) -> RequestError:
    return RequestError(message, status=400, param=param, code="invalid_value" if param else "invalid_json")


def _too_large(limit: int) -> RequestError:
    message = f"the body is larger than {format_size(limit)}, the limit set by `server.max_body`"
    return RequestError(message, status=413, code="body_too_large")
