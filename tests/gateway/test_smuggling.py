"""Requests that two servers could read in two ways, as raw bytes. None may reach an engine as anything but itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.served import Served, chat, key, raw_post
from tests.gateway.test_streaming import stats
from tests.support import wait_until

GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n"


def exchange(served: Served, sent: bytes) -> bytes:
    """All that is answered until the server closes; what it leaves open is closed by the last request's own wish."""
    with served.connect() as client:
        client.sendall(sent)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\n12345",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        POST + b"content-length: 5, 5\r\n\r\n12345",
        POST + b"content-length: +5\r\n\r\n12345",
        POST + b"content-length: 0x5\r\n\r\n12345",
        POST + b"content-length: 99999999999999999999999\r\n\r\n",
        POST + b"transfer-encoding: gzip\r\n\r\n",
        POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"\r\n2\n{}\n0\n\n",
        CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
        GET + b"host: localhost\r\n\r\n",
        GET + b"authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        GET + b"x-api-key: a\r\nX-Api-Key: b\r\n\r\n",
        GET + b"origin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n",
        GET + b"x-a: 1\r\n 2\r\n\r\n",
        GET + b"x-a: 1\nx-b: 2\r\n\r\n",
        GET + b"x-a: 1\rx-b: 2\r\n\r\n",
        GET + b"x a: 1\r\n\r\n",
        GET + b"x-a: 1\x002\r\n\r\n",
        b"GET /v1/models HTTP/1.1\nhost: localhost\n\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/models\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/mod\xc3\xa9ls HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_plain_request_is_one_400_and_the_end_of_its_connection(
    gateway: Served, engine: Path, sent: bytes
) -> None:
    before = stats(engine)["requests"]
    answer = exchange(gateway, sent + GET + b"\r\n")  # what follows is not read as a request
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close" in head
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_http")
    assert error["request_id"].encode() in head
    assert stats(engine)["requests"] == before


def test_a_trailer_is_not_taken_for_a_header(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    data = json.dumps(chat()).encode()
    body = b"%x\r\n%b\r\n0\r\nauthorization: Bearer sk-one\r\n\r\n" % (len(data), data)
    answer = exchange(gateway, CHUNKED + b"\r\n" + body + GET + b"connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_body_is_never_read_as_the_next_request(gateway: Served) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = exchange(gateway, GET + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(hidden), hidden))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"object":"list"' in answer


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/models/../../metrics", "model_not_found"),
        ("/v1/models/..%2f..%2fmetrics", "model_not_found"),
        ("/v1/chat/../load_lora_adapter", "unknown_url"),
        ("//v1//models", "unknown_url"),
        ("/v1/models%00", "unknown_url"),
        ("/v1/models;/../x", "unknown_url"),
        ("/V1/models", "unknown_url"),
        ("/%2e%2e/health", "unknown_url"),
        ("/v1/%2fmodels", "unknown_url"),
    ],
)
def test_no_spelling_of_a_path_finds_what_is_not_listed(gateway: Served, engine: Path, path: str, code: str) -> None:
    before = stats(engine)["requests"]
    answer = gateway.ask("GET", path)
    assert (answer.status, answer.error()["code"]) == (404, code)
    assert stats(engine)["requests"] == before


def test_an_encoded_spelling_of_a_listed_path_is_that_path(gateway: Served, engine: Path) -> None:
    assert gateway.ask("POST", "/v1/%63hat/completions", chat()).status == 200
    assert stats(engine)["last_path"] == "/v1/chat/completions"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_a_client_that_would_rather_speak_another_protocol_is_answered(gateway: Served, protocol: bytes) -> None:
    data = json.dumps(chat()).encode()
    wish = b"connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\n" % protocol
    answer = exchange(gateway, POST + wish + b"content-length: %d\r\n\r\n%b" % (len(data), data))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"tiny answers" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GET + b"".join(b"x-%d: 1\r\n" % number for number in range(120)) + b"\r\n", b"431"),
        (GET + b"cookie: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (GET + b"cookie: " + b"a" * 200_000, b"431"),
        (GET + b"a" * 200_000, b"431"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", b"414"),
        (b"GET /" + b"a" * 200_000, b"431"),
    ],
)
def test_headers_and_url_have_a_size(gateway: Served, sent: bytes, status: bytes) -> None:
    with gateway.connect() as client:
        client.sendall(sent)
        assert client.recv(65536).startswith(b"HTTP/1.1 %b " % status)


def test_a_client_that_leaves_with_several_requests_sent_ends_the_one_that_runs(gateway: Served, engine: Path) -> None:
    before = stats(engine)
    endless = raw_post("/v1/chat/completions", chat(stream=True, fake={"stall_after": 1}))
    with gateway.connect() as client:
        client.sendall(endless * 3)
        wait_until(lambda: stats(engine)["running"] == 1)
    wait_until(lambda: stats(engine)["aborted"] == before["aborted"] + 1)
    assert stats(engine)["requests"] == before["requests"] + 1


def test_what_follows_a_request_and_is_none_does_not_spoil_its_answer(gateway: Served) -> None:
    answer = exchange(
        gateway, raw_post("/v1/chat/completions", chat(fake={"first": 0.1})) + b"\x16\x03\x01 nonsense\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"tiny answers" in answer
