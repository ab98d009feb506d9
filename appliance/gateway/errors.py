"""Errors as clients see them: whatever went wrong becomes a RequestError, and a dialect gives that its shape."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from appliance.errors import ApplianceError, NotReady, RequestError

Dialect = Literal["openai", "anthropic", "ollama", "docker"]
Header = tuple[bytes, bytes]


class MethodNotAllowed(RequestError):
    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"`{path}` does not take {method}", status=405, code="method_not_allowed")
        self.allow = allow


def render(dialect: Dialect, error: RequestError, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, headers and body of the answer."""
    body = BODIES[dialect](error, request_id)
    kind = b"text/plain; charset=utf-8" if dialect == "docker" else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    elif error.status == 503:
        headers.append((b"x-should-retry", b"false"))  # both SDKs ask three times otherwise
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    return _anthropic_status(error) if dialect == "anthropic" else error.status, headers, body


def render_event(dialect: Dialect, error: RequestError, request_id: str, *, last: bytes) -> bytes:
    """The one event that ends a stream which cannot go on. `last` is what was written before it.

    An event that was cut in two is closed first, so that this one stays whole.
    """
    body = BODIES[dialect](error, request_id)
    if dialect == "ollama":
        return (b"" if last.endswith(b"\n") else b"\n") + body + b"\n"
    name = b"event: error\n" if dialect == "anthropic" else b""
    return (b"" if last.endswith(b"\n\n") else b"\n\n") + name + b"data: " + body + b"\n\n"


OVERLOADED = 529
"""Anthropic's own status for what is a 503 elsewhere. Its clients wait and try again, so a model that has failed for
good is not overloaded."""

ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    OVERLOADED: "overloaded_error",
    504: "timeout_error",
}


def _openai(error: RequestError, request_id: str) -> bytes:
    shape = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": {**shape, "request_id": request_id}}).encode()


def _anthropic_status(error: RequestError) -> int:
    if error.status != 503:
        return error.status
    return 500 if error.retry_after is None else OVERLOADED


def _anthropic(error: RequestError, request_id: str) -> bytes:
    status = _anthropic_status(error)
    kind = ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
    shape = {"type": kind, "message": error.message}
    return json.dumps({"type": "error", "error": shape, "request_id": request_id}).encode()


def _ollama(error: RequestError, _: str) -> bytes:
    return json.dumps({"error": error.message}).encode()


def _docker(error: RequestError, _: str) -> bytes:
    return f"{error.message}\n".encode()


BODIES: Mapping[Dialect, Callable[[RequestError, str], bytes]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "docker": _docker,
}


def unknown_route(path: str) -> RequestError:
    return RequestError(f"there is no `{path}` here", status=404, code="unknown_url")


def unknown_model(name: str) -> RequestError:
    # A model that the key may not use gets this answer too: it is not in the key's /v1/models either, so nobody
    # learns from a status code what else is served.
    return RequestError(
        f"the model `{name}` does not exist or this key may not use it",
        status=404,
        code="model_not_found",
        param="model",
    )


def unavailable(error: ApplianceError) -> RequestError:
    """No engine can take this request now; `retry_after` is None where waiting would not help."""
    retry_after = error.retry_after if isinstance(error, NotReady) else None
    return _server_error(redact(error.message), "model_not_ready", retry_after=retry_after)


def queue_full(model: str, waiting: int, retry_after: float) -> RequestError:
    message = f"{waiting} requests wait for model `{model}` already; try again later"
    return _server_error(message, "queue_full", retry_after=retry_after)


def queue_timeout(model: str, retry_after: float) -> RequestError:
    message = f"model `{model}` was busy for as long as this request may wait"
    return _server_error(message, "queue_timeout", retry_after=retry_after)


def engine_unavailable(model: str) -> RequestError:
    return _server_error(f"the engine of model `{model}` does not answer", "engine_unavailable", retry_after=1)


def engine_failed(model: str) -> RequestError:
    message = f"the engine of model `{model}` ended the connection before its answer was complete"
    return _server_error(message, "engine_failed", status=502)


def stopping() -> RequestError:
    return _server_error("the appliance is stopping", "appliance_stopping", retry_after=5)


def bug() -> RequestError:
    return _server_error("the appliance failed; its log has the details", "bug", status=500)


def _server_error(message: str, code: str, *, status: int = 503, retry_after: float | None = None) -> RequestError:
    return RequestError(message, status=status, type="server_error", code=code, retry_after=retry_after)


TYPES = {429: "rate_limit_error"}
"""OpenAI has no type of its own for what is not found: the code tells."""


def from_engine(status: int, body: bytes, *, model: str, path: str, retry_after: float | None) -> RequestError:
    """An engine's error in our own terms. vLLM's `code` is a number, which OpenAI's SDKs don't expect."""
    if status in {401, 403}:
        return _server_error(f"the engine of model `{model}` refused the appliance", "engine_failed", status=502)
    detail = _detail(body)
    if status in {404, 405} and "code" not in detail:
        message = f"the engine of model `{model}` does not serve `{path}`"
        return RequestError(message, status=404, code="unsupported_endpoint")
    message = redact(str(detail.get("message") or f"the engine answered {status}"))
    param = detail.get("param")
    code = detail.get("code")
    if param == "input_tokens" or "maximum context length" in message:
        code = "context_length_exceeded"
    return RequestError(
        message,
        status=status,
        type=TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        code=code if isinstance(code, str) else "engine_failed" if status >= 500 else None,
        param=param if isinstance(param, str) else None,
        retry_after=1 if retry_after is None and status == 503 else retry_after,
    )


def _detail(body: bytes) -> Mapping[str, Any]:
    """The error object of any engine's body: nested, a bare string, or the body itself."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {"message": body[:500].decode("utf-8", "replace")}
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict):
        return error if "message" in error else {"message": error.get("detail")}
    return {"message": error}


_PATH = re.compile(r"(?<![\w:/.])/(?!v\d/)(?:[\w.@+-]+/)+([\w.@+-]+)")


def redact(message: str) -> str:
    """Without the directories of this machine's files, which are no client's business."""
    return _PATH.sub(r"…/\1", message)
