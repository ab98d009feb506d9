"""Streams on raw sockets: what arrives, and what happens when one side goes away."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.routing import Routing
from tests.gateway.served import ENGINE_KEY, FakePort, Served, chat, raw_post, route, serve
from tests.support import fake_engine, free_port, wait_until

CHAT = "/v1/chat/completions"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=20)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def direct(engine: Path, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """The engine's own answer, without the gateway."""
    connection = UnixConnection(engine)
    try:
        headers = {"authorization": f"Bearer {ENGINE_KEY}", **headers}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def stats(engine: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(direct(engine, "GET", "/fake/stats"))
    return found


@contextmanager
def fragile(directory: Path, *flags: str, name: str = "tiny") -> Iterator[tuple[Served, Path, Any]]:
    """A gateway with an engine of its own, which the test may break."""
    where = directory / f"{free_port()}.sock"
    with (
        fake_engine(*flags, name=name, key=ENGINE_KEY, uds=where) as process,
        serve(FakePort(Routing(routes={"tiny": route(where, served=name)}))) as served,
    ):
        yield served, where, process


def without_created(stream: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line]
    return [line if line == b"[DONE]" else {**json.loads(line), "created": 0} for line in lines]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_stream_is_the_engines_own_to_the_byte(gateway: Served, engine: Path, path: str) -> None:
    body = chat(stream=True, prompt="hello", fake={"events": 200})
    expected = direct(engine, "POST", path, body, **{"x-request-id": "same"})
    answer = gateway.ask("POST", path, body, {"x-request-id": "same"})
    got: bytes = answer.content
    assert answer.headers.get("content-type") == "text/event-stream; charset=utf-8"
    assert without_created(got) == without_created(expected)
    assert len(got) == len(expected)
    assert got.endswith(b"data: [DONE]\n\n")


def test_events_arrive_while_the_generation_goes_on(gateway: Served, engine: Path) -> None:
    with gateway.connect() as client:
        client.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 3})))
        received = b""
        while received.count(b"data: ") < 4:  # the role, then three tokens; the fourth never comes
            received += client.recv(65536)
        assert stats(engine)["running"] == 1
        assert b"[DONE]" not in received
    wait_until(lambda: stats(engine)["running"] == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_generation(gateway: Served, engine: Path, stream: bool) -> None:
    before = stats(engine)["aborted"]
    with gateway.connect() as client:
        client.sendall(raw_post(CHAT, chat(stream=stream, fake={"stall_after": 1})))
        wait_until(lambda: stats(engine)["running"] == 1)
    wait_until(lambda: stats(engine)["aborted"] == before + 1)
    (line,) = wait_until(gateway.lines)
    assert line["aborted"] is True
    tiny = gateway.state.table.routes["tiny"]
    assert tiny is not None
    assert tiny.lease.in_flight == 0


def test_a_slow_client_holds_up_the_engine_and_gets_everything(gateway: Served, engine: Path) -> None:
    body = chat(stream=True, messages=[{"role": "user", "content": "x" * 20_000}], fake={"events": 4000})
    with gateway.connect() as client:
        client.sendall(raw_post(CHAT, body, connection="close"))
        wait_until(lambda: stats(engine)["running"] == 1)
        # 20 MB fit in no buffer on the way: the engine waits for as long as nobody reads.
        assert all(stats(engine)["running"] == 1 for _ in range(100))
        received = bytearray()
        while data := client.recv(65536):
            received += data
    assert received.count(b"data: ") == 4002
    assert received.count(b"x" * 20_000) == 1000


def test_an_engine_killed_in_a_stream_ends_it_with_one_error_event(directory: Path) -> None:
    with fragile(directory) as (served, _, _):
        answer = served.ask("POST", CHAT, chat(stream=True, fake={"crash_after": 3}))
        events = [event for event in answer.content.split(b"\n\n") if event]
        assert answer.status == 200
        error = json.loads(events[-1].removeprefix(b"data: "))["error"]
        assert error["code"] == "engine_failed"
        assert error["request_id"] == answer.headers.get("x-request-id")
        assert sum(b'"error"' in event for event in events) == 1
        assert not any(b"[DONE]" in event for event in events)
        assert all(json.loads(event.removeprefix(b"data: ")) for event in events)
        (line,) = wait_until(served.lines)
        assert line["error"] == "engine_failed"


def test_an_engine_killed_before_its_answer_is_a_502_and_then_unavailable(directory: Path) -> None:
    with fragile(directory) as (served, _, process):
        answer = served.ask("POST", CHAT, chat(fake={"crash_after": 1}))
        assert (answer.status, answer.error()["code"]) == (502, "engine_failed")
        process.wait()
        answer = served.ask("POST", CHAT, chat())
        assert answer.status == 503
        assert answer.headers.get("retry-after") == "1"
        assert answer.error()["code"] == "engine_unavailable"


def test_an_error_event_of_the_engine_itself_passes_untouched(gateway: Served) -> None:
    answer = gateway.ask("POST", CHAT, chat(stream=True, fake={"error_after": 2}))
    content: bytes = answer.content
    assert content.count(b'"error"') == 1
    assert content.endswith(b"data: [DONE]\n\n")


def test_a_request_that_outlives_the_servers_deadline_gets_one_error_event(engine: Path) -> None:
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), grace=0) as served:
        client = served.connect()
        client.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 1})))
        received = b""
        while received.count(b"data: ") < 2:
            received += client.recv(65536)
    with client:
        while data := client.recv(65536):
            received += data
    assert received.count(b'"appliance_stopping"') == 1
    wait_until(lambda: stats(engine)["running"] == 0)


def test_64_streams_at_once_are_not_mixed_up(gateway: Served) -> None:
    barrier = threading.Barrier(64)

    def one(number: int) -> bool:
        barrier.wait()
        word = f"word{number:03}"
        body = chat(stream=True, messages=[{"role": "user", "content": word}], fake={"events": 40})
        answer = gateway.ask("POST", CHAT, body, {"x-request-id": word})
        events = without_created(answer.content)
        text = "".join(event["choices"][0]["delta"]["content"] for event in events[:-1])
        mine = answer.headers.get("x-request-id") == word and {e["id"] for e in events[:-1]} == {f"chatcmpl-{word}"}
        return mine and text.count(word) == 10 and len(events) == 42

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(one, range(64)))


def test_connections_to_the_engine_are_used_again(directory: Path) -> None:
    with fragile(directory) as (served, where, _):
        before = stats(where)["connections"]
        for stream in (True, False, True):
            assert served.ask("POST", CHAT, chat(stream=stream)).status == 200
        # Each look at the statistics is a connection of its own.
        assert stats(where)["connections"] - before == 2


def test_a_connection_that_the_engine_closed_meanwhile_is_replaced(directory: Path) -> None:
    where = directory / "again.sock"
    with serve(FakePort(Routing(routes={"tiny": route(where)}))) as served:
        for _ in range(2):
            with fake_engine(name="tiny", key=ENGINE_KEY, uds=where):
                assert served.ask("POST", CHAT, chat()).status == 200
            where.unlink()


def test_an_engine_on_tcp_is_reached() -> None:
    port = free_port()
    with (
        fake_engine(name="tiny", key=ENGINE_KEY, port=port),
        serve(FakePort(Routing(routes={"tiny": route(None, port=port)}))) as served,
    ):
        assert served.ask("POST", CHAT, chat(stream=True)).content.endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_an_alias_changes_nothing_but_the_name_in_a_stream(gateway: Served, engine: Path, path: str) -> None:
    # The prompt, which the engine repeats, holds what looks like the key.
    said = 'say "model":"tiny" and {"model": "tiny"}'
    body = {"messages": [{"role": "user", "content": said}], "input": said, "stream": True, "fake": {"events": 60}}
    headers = {"x-request-id": "same"}
    plain: bytes = gateway.ask("POST", path, {**body, "model": "tiny"}, headers).content
    named: bytes = gateway.ask("POST", path, {**body, "model": "gpt-test"}, headers).content
    assert b'"model":"tiny"' not in named
    assert b'\\"model\\":\\"tiny\\"' in named
    count = plain.count(b'"model":"tiny"')
    assert count > 1
    assert len(named) == len(plain) + count * (len("gpt-test") - len("tiny"))
