"""The gateway's own surface as an OpenAPI document, made from the table of routes and served at /openapi.json.

It says what the gateway itself asks of a request and promises of an answer. What else a request may hold is the
dialect's own business, and that of the engine behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from starlette.types import Receive

from appliance import __version__
from appliance.gateway.call import Call
from appliance.gateway.routes import Endpoint, Routes

PATH = "/openapi.json"

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": ["boolean", "null"]}
_LIST: Schema = {"type": "array"}
_ANY: Schema = {}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **optional}}


_MODEL: Mapping[str, Schema] = {"model": {"type": "string", "description": "A name or an alias of a model."}}


@dataclass(frozen=True, slots=True)
class Operation:
    summary: str
    body: Schema | None = None
    """What the gateway asks of the request's body."""
    form: bool = False
    answers: tuple[str, ...] = ("application/json",)
    parameters: tuple[str, ...] = field(default=())
    """Names of the query's parameters."""


_STREAMED = ("application/json", "text/event-stream")

_LINES = ("application/x-ndjson", "application/json")
_REFUSED = Operation("Refused: the file decides this, and the answer names the key to edit")
_BENEATH_ENGINES = Operation(
    "`/engines/v1/…` and `/engines/BACKEND/v1/…` are the paths from `/v1` on",
    answers=("application/json", "text/event-stream", "text/plain"),
)
_MANAGED = ("_configure", "_unload", "install-backend", "unload", "uninstall-backend")

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        "The next message of a conversation",
        _object({**_MODEL, "messages": _LIST}, stream=_FLAG, tools=_LIST, tool_choice=_ANY, response_format=_ANY),
        answers=_STREAMED,
    ),
    ("POST", "/v1/completions"): Operation(
        "A prompt's continuation", _object(_MODEL, prompt=_ANY, stream=_FLAG), answers=_STREAMED
    ),
    ("POST", "/v1/responses"): Operation(
        "A response; with `store: true` its engine keeps it for as long as it runs",
        _object({**_MODEL, "input": _ANY}, stream=_FLAG, store=_FLAG, background=_FLAG, previous_response_id=_ANY),
        answers=_STREAMED,
    ),
    ("GET", "/v1/responses/{id}"): Operation(
        "A stored response, or its events", answers=_STREAMED, parameters=("stream", "starting_after", "include[]")
    ),
    ("GET", "/v1/responses/{id}/input_items"): Operation("What a stored response was made from, where engines tell"),
    ("POST", "/v1/responses/{id}/cancel"): Operation("End a response that is made in the background"),
    ("POST", "/v1/embeddings"): Operation("Vectors of texts", _object({**_MODEL, "input": _ANY}, encoding_format=_ANY)),
    ("POST", "/v1/rerank"): Operation(
        "Documents by how well they answer a query", _object({**_MODEL, "query": _ANY, "documents": _ANY}, top_n=_ANY)
    ),
    ("POST", "/rerank"): Operation("The same as /v1/rerank", _object({**_MODEL, "query": _ANY, "documents": _ANY})),
    ("POST", "/v1/score"): Operation("How alike texts are", _object(_MODEL, text_1=_ANY, text_2=_ANY)),
    ("POST", "/score"): Operation("The same as /v1/score", _object(_MODEL, text_1=_ANY, text_2=_ANY)),
    ("POST", "/v1/audio/transcriptions"): Operation(
        "A recording as text",
        _object({**_MODEL, "file": {"type": "string", "format": "binary"}}, stream=_TEXT, response_format=_TEXT),
        form=True,
        answers=("application/json", "text/plain", "text/event-stream"),
    ),
    ("POST", "/tokenize"): Operation("A prompt's tokens", _object(_MODEL, prompt=_ANY, messages=_LIST)),
    ("POST", "/detokenize"): Operation("The text of tokens", _object({**_MODEL, "tokens": _LIST})),
    ("GET", "/v1/models"): Operation("The models that this key may ask"),
    ("GET", "/v1/models/{id}"): Operation("One of them; its name may have slashes"),
    ("GET", "/healthz"): Operation("Whether this process is live"),
    ("GET", "/readyz"): Operation("Whether every model that starts with the appliance is ready; 503 where not"),
    ("GET", "/metrics"): Operation("Prometheus metrics", answers=("text/plain", "application/openmetrics-text")),
    ("GET", PATH): Operation("This document"),
    ("POST", "/v1/messages"): Operation(
        "Anthropic's Messages",
        _object({**_MODEL, "messages": _LIST, "max_tokens": _ANY}, stream=_FLAG),
        answers=_STREAMED,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "How many tokens a message would be, in the model's own count", _object({**_MODEL, "messages": _LIST})
    ),
    ("POST", "/v1/complete"): Operation(
        "Anthropic's older completions", _object({**_MODEL, "prompt": _ANY}, stream=_FLAG), answers=_STREAMED
    ),
    ("POST", "/v1/anthropic/completions"): Operation(
        "The same as /v1/complete", _object({**_MODEL, "prompt": _ANY}, stream=_FLAG), answers=_STREAMED
    ),
    ("POST", "/responses"): Operation(
        "The same as /v1/responses", _object({**_MODEL, "input": _ANY}, stream=_FLAG), answers=_STREAMED
    ),
    ("POST", "/api/chat"): Operation("Ollama's chat", _object(_MODEL, messages=_LIST, stream=_FLAG), answers=_LINES),
    ("POST", "/api/generate"): Operation("Ollama's completion", _object(_MODEL, stream=_FLAG), answers=_LINES),
    ("POST", "/api/embed"): Operation("Vectors of texts", _object(_MODEL, input=_ANY)),
    ("POST", "/api/embeddings"): Operation("The vector of one text", _object(_MODEL, prompt=_ANY)),
    ("GET", "/api/tags"): Operation("The models that this key may ask"),
    ("GET", "/api/ps"): Operation("Those of them that run"),
    ("POST", "/api/show"): Operation("What one model is and can do", _object(_MODEL)),
    ("GET", "/api/version"): Operation("A version that Ollama's clients take"),
    ("GET", "/"): Operation("That somebody is there", answers=("text/plain",)),
    **{("POST", f"/api/{verb}"): _REFUSED for verb in ("copy", "create", "pull", "push")},
    ("DELETE", "/api/delete"): _REFUSED,
    ("GET", "/api/blobs/{path}"): _REFUSED,
    ("POST", "/api/blobs/{path}"): _REFUSED,
    ("GET", "/engines/_configure"): Operation("The engines' arguments, as the file has them"),
    ("GET", "/engines/df"): Operation("What weights and engine environments take on disk"),
    ("GET", "/engines/ps"): Operation("The engines that run"),
    ("GET", "/engines/status"): Operation("The backends, and whether they are there"),
    **{(method, "/engines/{path}"): _BENEATH_ENGINES for method in ("GET", "POST", "DELETE")},
    **{("POST", f"/engines/{verb}"): _REFUSED for verb in _MANAGED},
    ("GET", "/models"): Operation("The models that this key may ask"),
    ("GET", "/models/{path}"): Operation("One of them"),
    ("POST", "/models/{path}"): _REFUSED,
    ("DELETE", "/models/{path}"): _REFUSED,
    ("POST", "/models/create"): _REFUSED,
    ("POST", "/models/load"): _REFUSED,
    ("DELETE", "/models/purge"): _REFUSED,
    ("GET", "/admin/v1/status"): Operation("What `appliance status --json` prints"),
    ("GET", "/admin/v1/plan"): Operation("What putting the file in force as it is now would do"),
    ("POST", "/admin/v1/apply"): Operation("Put the file in force"),
    ("GET", "/admin/v1/history"): Operation("Every generation that was in force, and what came of it"),
    ("GET", "/admin/v1/history/{generation}"): Operation("One of them, with its file"),
    ("GET", "/admin/v1/diff"): Operation("What differs between two of them"),
    ("POST", "/admin/v1/rollback"): Operation("Write one of them back to the file"),
    ("GET", "/admin/v1/events"): Operation("What happens, as it happens", answers=("text/event-stream",)),
    ("GET", "/admin/v1/logs"): Operation("The end of a log, or all that is written to it", answers=("text/plain",)),
    ("GET", "/admin/v1/keys"): Operation("Every key's name and what it may do"),
    ("GET", "/admin/v1/activity"): Operation("What went through in the last minutes; with `follow`, as it goes on"),
    ("GET", "/ui"): Operation("The page; what it shows comes from the admin API", answers=("text/html",)),
}
"""By method and path: every one that the table of routes has."""

BENEATH: Mapping[str, tuple[tuple[str, str], ...]] = {
    "/v1/models/*": (("GET", "/v1/models/{id}"),),
    "/anthropic/v1/models/*": (("GET", "/anthropic/v1/models/{id}"),),
    "/v1/responses/*": (
        ("GET", "/v1/responses/{id}"),
        ("GET", "/v1/responses/{id}/input_items"),
        ("POST", "/v1/responses/{id}/cancel"),
    ),
    "/admin/v1/*": (
        ("GET", "/admin/v1/status"),
        ("GET", "/admin/v1/plan"),
        ("POST", "/admin/v1/apply"),
        ("GET", "/admin/v1/history"),
        ("GET", "/admin/v1/history/{generation}"),
        ("GET", "/admin/v1/diff"),
        ("POST", "/admin/v1/rollback"),
        ("GET", "/admin/v1/events"),
        ("GET", "/admin/v1/logs"),
        ("GET", "/admin/v1/keys"),
        ("GET", "/admin/v1/activity"),
    ),
}
"""What a path that takes all beneath it has there."""

ERRORS: Mapping[int, str] = {
    400: "The request cannot be served as it was sent",
    401: "No key, or one that is not known or has expired",
    403: "The key lacks the scope, or the Host or Origin is foreign",
    404: "No such path, or no such model for this key",
    405: "The path has other methods",
    408: "The request took too long to arrive",
    409: "The file decides this: edit it",
    413: "The body is larger than `server.max_body`",
    414: "The URL is too long",
    415: "The body is compressed",
    422: "The engine can make nothing of what the request names",
    429: "A limit of the key is reached, or the model's queue is full; `retry-after` says for how long",
    431: "The headers are too large",
    500: "The appliance or its engine failed",
    502: "The engine failed",
    503: "The model is not ready; `retry-after` says when to come back",
    529: "The same, to clients of Anthropic's API",
}


def routes(table: Routes) -> Routes:
    """The document of this table, and of itself."""

    @cache
    def body() -> bytes:
        return json.dumps(document({**table, **own}), ensure_ascii=False).encode()

    async def answer(call: Call, _: Receive) -> None:
        data = body()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
        await call.answer(200, headers, data)

    own: Routes = {PATH: {"GET": Endpoint(answer, scope=None)}}
    return own


def document(table: Routes) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for method, path, endpoint in sorted(operations(table), key=lambda each: (each[1], each[0])):
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "appliance", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def operations(table: Routes) -> Iterator[tuple[str, str, Endpoint]]:
    """Every method and path that the table answers to programs, its wildcards spelled out."""
    for path, methods in table.items():
        if path in BENEATH:
            yield from ((method, template, methods[method]) for method, template in BENEATH[path])
        elif not path.startswith("/ui/"):  # the page's own files
            yield from ((method, path.replace("/*", "/{path}"), endpoint) for method, endpoint in methods.items())


def operation_of(method: str, path: str) -> Operation:
    # Anthropic's routes are beneath a prefix too, and do the same there.
    return OPERATIONS.get((method, path)) or OPERATIONS[method, path.removeprefix("/anthropic")]


def _operation(method: str, path: str, endpoint: Endpoint) -> dict[str, Any]:
    says = operation_of(method, path)
    made: dict[str, Any] = {"summary": says.summary, "tags": [endpoint.dialect]}
    if parameters := [*_parameters(path, says)]:
        made["parameters"] = parameters
    if says.body is not None:
        kind = "multipart/form-data" if says.form else "application/json"
        made["requestBody"] = {"required": True, "content": {kind: {"schema": says.body}}}
    schemas: Mapping[str, Schema] = {"application/json": {"type": ["object", "array"]}, "text/plain": _TEXT}
    fine = {kind: {"schema": schemas.get(kind, _ANY)} for kind in says.answers}
    error: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    if endpoint.dialect != "openai" or path in {"/readyz", "/engines/{path}"}:
        error = {"application/json": {"schema": _ANY}, "text/plain": {"schema": _ANY}}
    made["responses"] = {"200": {"description": "The answer", "content": fine}} | {
        str(status): {"description": meaning, "content": error} for status, meaning in ERRORS.items()
    }
    made["security"] = [{}] if endpoint.scope is None else [{}, {"bearer": []}, {"key": []}]
    made["x-scope"] = endpoint.scope
    return made


def _parameters(path: str, says: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name in says.parameters:
        yield {"name": name, "in": "query", "schema": {"type": "string", "pattern": r"^[A-Za-z0-9_.]*$"}}


_ERROR: Schema = _object(
    {
        "error": _object(
            {
                "message": _TEXT,
                "type": {"enum": ["invalid_request_error", "permission_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "request_id": _TEXT,
            }
        )
    }
)
