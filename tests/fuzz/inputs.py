"""Requests that no client should send, each made of a random generator alone: the same seed gives the same bytes."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

MODELS = ("tiny", "gpt-test", "nobody", "ai/tiny:latest", "", "../tiny", "tiny\x00")
TALK = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

BODIES: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "developer", "content": [{"type": "text", "text": "be brief"}]}, *TALK],
        "stream": False,
        "stream_options": {"include_usage": True},
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "stop": ["x"],
        "n": 1,
        "max_tokens": 3,
        "temperature": 0.5,
        "logprobs": True,
    },
    "/v1/completions": {"prompt": "hello", "stream": True, "max_tokens": 3, "stop": "x"},
    "/v1/responses": {"input": TALK, "store": True, "previous_response_id": None, "tools": [], "stream": True},
    "/v1/embeddings": {"input": ["a", [1, 2]], "encoding_format": "base64"},
    "/v1/rerank": {"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/v1/score": {"text_1": "a", "text_2": ["b"]},
    "/tokenize": {"prompt": "hello"},
    "/detokenize": {"tokens": [1, 2]},
    "/v1/messages": {"max_tokens": 3, "system": [{"type": "text", "text": "s"}], "messages": TALK, "stream": True},
    "/v1/messages/count_tokens": {"messages": TALK, "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    "/v1/complete": {"prompt": "\n\nHuman: hello\n\nAssistant:", "max_tokens_to_sample": 3},
    "/api/chat": {"messages": TALK, "stream": True, "options": {"num_predict": 3}, "keep_alive": "5m"},
    "/api/generate": {"prompt": "hello", "format": "json", "options": {"temperature": 0}},
    "/api/embed": {"input": ["a"]},
    "/api/show": {},
}
PATHS = (
    *BODIES,
    "/",
    "/v1/models",
    "/v1/models/tiny",
    "/v1/responses/resp_x",
    "/v1/responses/resp_x/cancel",
    "/v1/audio/transcriptions",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/admin/v1/status",
    "/api/tags",
    "/engines/v1/models",
    "/models",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "M-SEARCH", "\x00")
NAMES = (
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"x-api-key",
    b"connection",
    b"upgrade",
    b"expect",
    b"origin",
    b"content-type",
    b"x-request-id",
    b"traceparent",
    b"trailer",
)
SETTINGS = (
    b"",
    b"1",
    b"-1",
    b"9" * 30,
    b"chunked",
    b"gzip, chunked",
    b"close",
    b"100-continue",
    b"a" * 5000,
    b"\xff\xfe",
    b"Bearer x",
    b"http://evil.example",
    b"multipart/form-data",
)
PIECES = (
    "/",
    "..",
    "/../",
    "%2f",
    "%2e%2e",
    "%00",
    "%",
    "?",
    "#",
    "//",
    "*",
    "é",
    " ",
    "\t",
    "%zz",
    ";",
    "\\",
    "a" * 9000,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    -(10**40),
    10**400,
    "9" * 5000,
    1e308,
    0.5,
    "",
    "x" * 70_000,
    "\ud800",
    "\x00",
    "é\u2028",
    "http://127.0.0.1:9/",
    [],
    {},
    [[]],
    {"": None},
    [None, 1, "a"],
    {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
    {"$ref": "#"},
)


@dataclass(frozen=True, slots=True)
class Input:
    kind: str
    data: bytes
    whole: bool
    """Whether this is a request that something has to be answered to."""


def make(random: Random) -> Input:
    kind = random.choice([*KINDS])
    return KINDS[kind](random, kind)


def _json(random: Random, kind: str) -> Input:
    """A request whose body is JSON, with wrong types, missing members and members that nobody knows."""
    path = random.choice([*BODIES])
    body = {"model": random.choice(MODELS) if random.random() < 0.3 else "tiny", **BODIES[path]}
    for _ in range(random.randint(1, 4)):
        body = _mutated(random, body)
    return Input(kind, _post(path, json.dumps(body).encode()), whole=True)


def _text(random: Random, kind: str) -> Input:
    """The same with its bytes changed: no JSON any more, or other JSON, or no UTF-8."""
    path = random.choice([*BODIES])
    data = bytearray(json.dumps({"model": "tiny", **BODIES[path]}).encode())
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at : at + random.randint(1, 30)] = b""
            case 1:
                data[at:at] = random.randbytes(random.randint(1, 20))
            case 2:
                data[at:at] = random.choice(
                    (b"\xff", b"\xed\xa0\x80", b"NaN", b"1e400", b"\\u0000", b"[" * 300, b'"', b"\\", b"\x00")
                )
            case _:
                data[at:at] = data[: random.randint(1, 60)]
    return Input(kind, _post(path, bytes(data)), whole=True)


def _structure(random: Random, kind: str) -> Input:
    """Few kinds of bytes, many of them."""
    unit = random.choice((b"[", b'{"a":', b"[[],", b"1,", b'"a",', b'{"model":"tiny","messages":', b'"\\"'))
    body = random.choice((b"", b'{"model":"tiny","messages":[', b"[")) + unit * random.choice((50, 200, 5000, 100_000))
    return Input(kind, _post(random.choice([*BODIES]), body), whole=True)


def _form(random: Random, kind: str) -> Input:
    parts = [
        b'content-disposition: form-data; name="model"\r\n\r\ntiny',
        b'content-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + random.randbytes(random.choice((0, 100, 9000))),
        b'content-disposition: form-data; name="stream"\r\n\r\ntrue',
    ]
    random.shuffle(parts)
    data = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts[: random.randint(0, 3)]) + b"--b--\r\n"
    if random.random() < 0.6:
        at = random.randrange(len(data))
        data = data[:at] + random.randbytes(random.randint(0, 9)) + data[at + random.randint(0, 40) :]
    kinds = ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=", "text/plain")
    header = random.choice(kinds) if random.random() < 0.3 else kinds[0]
    return Input(kind, _post("/v1/audio/transcriptions", data, f"content-type: {header}\r\n".encode()), whole=True)


def _headers(random: Random, kind: str) -> Input:
    """Headers of random names and values, some of them of those that mean something."""
    lines = [b"host: localhost"]
    for _ in range(random.choice((1, 3, 10, 150))):
        name = random.choice(NAMES) if random.random() < 0.7 else random.randbytes(random.randint(0, 12))
        value = random.choice(SETTINGS) if random.random() < 0.8 else random.randbytes(random.randint(0, 40))
        lines.append(name + random.choice((b": ", b":", b" : ", b"")) + value)
    random.shuffle(lines)
    end = random.choice((b"\r\n", b"\r\n", b"\n", b"\r"))
    first = f"{random.choice(('GET', 'POST'))} {random.choice(PATHS)} HTTP/1.1".encode()
    return Input(kind, end.join([first, *lines]) + end + end + b'{"model": "tiny"}', whole=False)


def _target(random: Random, kind: str) -> Input:
    """Methods, paths and versions that are nearly right."""
    path = random.choice(PATHS)
    for _ in range(random.randint(0, 3)):
        at = random.randrange(len(path) + 1)
        piece = random.choice((*PIECES, "".join(random.choices(string.printable, k=3))))
        path = path[:at] + piece + path[at:]
    version = random.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "HTTP", ""))
    first = f"{random.choice(METHODS)} {path} {version}"
    return Input(
        kind, f"{first}\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode("utf-8", "replace"), whole=False
    )


def _chunks(random: Random, kind: str) -> Input:
    """A chunked body whose sizes, ends or trailers are not what they should be."""
    data = json.dumps({"model": "tiny", **BODIES["/v1/completions"]}).encode()
    out = b""
    while data:
        size = random.randint(1, 40)
        chunk, data = data[:size], data[size:]
        told = random.choice((b"%x", b"%x", b"%x", b"%X", b"0%x", b"%x;a=b", b"-%x", b"%x ", b"0x%x")) % len(chunk)
        out += told + random.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")) + chunk + b"\r\n"
    out += random.choice((b"0\r\n\r\n", b"0\r\nauthorization: x\r\n\r\n", b"0\r\n", b"", b"ffffffffffffffff\r\n"))
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    return Input(kind, head + out, whole=False)


def _raw(random: Random, kind: str) -> Input:
    """Bytes of any kind, alone or after a request, or a request that breaks off."""
    good = _post("/v1/completions", json.dumps({"model": "tiny", "prompt": "a"}).encode(), close=False)
    noise = random.randbytes(random.choice((1, 10, 1000, 50_000)))
    data = random.choice((noise, good + noise, good[: random.randrange(1, len(good))], good * 3, b"\r\n" * 50 + good))
    return Input(kind, data, whole=False)


KINDS: Mapping[str, Callable[[Random, str], Input]] = {
    "json": _json,
    "text": _text,
    "structure": _structure,
    "form": _form,
    "headers": _headers,
    "target": _target,
    "chunks": _chunks,
    "raw": _raw,
}


def _post(path: str, body: bytes, more: bytes = b"", *, close: bool = True) -> bytes:
    end = b"connection: close\r\n" if close else b""
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b%bcontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        more,
        end,
        len(body),
        body,
    )


def _mutated(random: Random, value: Any) -> Any:
    """The same value with one thing in it changed, at any depth."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice([*value])
        match random.randrange(4):
            case 0:
                return {each: inner for each, inner in value.items() if each != name}
            case 1:
                return {**value, random.choice(("fake_", "", "é", "model", "stream", "n")): random.choice(VALUES)}
            case _:
                return {**value, name: _mutated(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.6:
        at = random.randrange(len(value))
        return [*value[:at], _mutated(random, value[at]), *value[at + 1 :]]
    return random.choice(VALUES)
