"""Clients that hold a connection open by being slow, on real sockets with short deadlines."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.gateway.protocol import Deadlines
from appliance.routing import Routing
from tests.gateway.served import FakePort, Served, chat, raw_post, route, serve
from tests.gateway.test_streaming import stats
from tests.support import wait_until

CHAT = "/v1/chat/completions"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture
def hasty(engine: Path) -> Iterator[Served]:
    deadlines = Deadlines(head=0.3, body=0.3, rate=1024, stall=0.3)
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), deadlines=deadlines) as served:
        yield served


def rest(client: socket.socket) -> bytes:
    """What is answered until the server ends the connection."""
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def trickle(client: socket.socket, data: bytes) -> bytes:
    """Send byte by byte until the server has had enough, then what it said."""
    client.settimeout(0.02)
    for byte in data:
        client.sendall(bytes([byte]))
        try:
            if (answer := client.recv(65536)) != b"":
                client.settimeout(20)
                return answer + rest(client)
        except TimeoutError:
            continue
    raise AssertionError("the server took all of it")


def test_a_connection_without_a_request_is_closed(hasty: Served) -> None:
    with hasty.connect() as client:
        assert rest(client) == b""


def test_headers_that_trickle_are_a_408(hasty: Served) -> None:
    with hasty.connect() as client:
        answer = trickle(client, POST + b"x: y\r\n" * 1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


def test_line_breaks_between_two_requests_keep_nothing_open(hasty: Served) -> None:
    with hasty.connect() as client:
        client.sendall(raw_post(CHAT, chat()))
        client.recv(65536)
        client.sendall(b"\r\n")
        assert rest(client) == b""


def test_a_body_that_trickles_is_a_408_and_reaches_no_engine(hasty: Served, engine: Path) -> None:
    before = stats(engine)["requests"]
    with hasty.connect() as client:
        answer = trickle(client, POST + b"content-length: 100000\r\n\r\n" + b" " * 1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert stats(engine)["requests"] == before


def test_a_slow_body_that_keeps_up_its_rate_is_taken(engine: Path) -> None:
    deadlines = Deadlines(head=5, body=0.2, rate=4096)
    body = json.dumps(chat(pad="x" * 20_000)).encode()
    table = Routing(routes={"tiny": route(engine)})
    with serve(FakePort(table), deadlines=deadlines) as served, served.connect() as client:
        client.sendall(POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 1024):
            client.sendall(body[start : start + 1024])
            time.sleep(0.05)  # the slowness itself: 20 KiB/s, for five times the patience
        assert rest(client).startswith(b"HTTP/1.1 200 ")


def test_a_reader_that_never_reads_ends_its_generation(hasty: Served, engine: Path) -> None:
    before = stats(engine)["aborted"]
    body = chat(stream=True, messages=[{"role": "user", "content": "x" * 20_000}], fake={"events": 4000})
    with hasty.connect() as client:
        client.sendall(raw_post(CHAT, body))
        wait_until(lambda: stats(engine)["aborted"] == before + 1)
    (line,) = wait_until(hasty.lines)
    assert line["aborted"] is True


def test_a_reader_that_reads_slowly_gets_everything(hasty: Served, engine: Path) -> None:
    body = chat(stream=True, messages=[{"role": "user", "content": "x" * 20_000}], fake={"events": 800})
    with hasty.connect() as client:
        client.sendall(raw_post(CHAT, body, connection="close"))
        received = bytearray()
        while data := client.recv(1 << 18):
            received += data
            time.sleep(0.02)  # the slowness itself
    assert received.count(b"data: ") == 802
