"""The client towards engines, against scripted servers: what real engines do rarely and all at the wrong moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.gateway.upstream import EngineGone, Unreachable, Upstream

REQUEST = b"POST /x HTTP/1.1\r\nhost: engine\r\ncontent-length: 2\r\n\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*pieces: bytes, close: bool = False) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readexactly(len(REQUEST) + 2):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                break
        writer.close()

    return script


def ask(where: Path, script: Script, *, pour: bool = True, times: int = 1) -> list[tuple[int, bytes]]:
    """Status and body of each answer, poured or read."""

    async def main() -> list[tuple[int, bytes]]:
        upstream = Upstream()
        server = await asyncio.start_unix_server(guarded(script), where)
        try:
            return [await one(upstream) for _ in range(times)]
        finally:
            upstream.close()
            server.close()
            await asyncio.sleep(0)
            where.unlink(missing_ok=True)

    async def one(upstream: Upstream) -> tuple[int, bytes]:
        connection = await upstream.request(str(where), REQUEST, b"{}")
        got = bytearray()

        async def write(body: bytes, *, more: bool) -> None:
            got.extend(body)

        try:
            if pour:
                await connection.pour(write)
            else:
                while not connection.complete or not got:
                    got += await connection.read()
            return connection.status, bytes(got)
        finally:
            connection.release()

    return asyncio.run(main())


def guarded(script: Script) -> Script:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return run


@pytest.fixture
def where(directory: Path) -> Path:
    return directory / "scripted.sock"


@pytest.mark.parametrize("pour", [True, False])
@pytest.mark.parametrize(
    ("pieces", "close", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"he", b"llo"), False, b"hello"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",), False, b"hello"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"), False, b"hello"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-enc", b"oding: chunked\r\n\r\n5\r\nhello\r", b"\n0\r\n\r\n"), False, b"hello"),
        ((b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"), True, b"hello"),
        ((b"HTTP/1.0 200 OK\r\n\r\n", b"hello"), True, b"hello"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), False, b"hello"),
        ((b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",), True, b"hello"),
    ],
)  # fmt: skip
def test_every_framing_is_understood(
    where: Path, pieces: tuple[bytes, ...], close: bool, body: bytes, pour: bool
) -> None:
    assert ask(where, answering(*pieces, close=close), pour=pour, times=2) == [(200, body)] * 2


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\n",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",),
        (b"SSH-2.0-OpenSSH\r\n",),
    ],
)
def test_an_answer_that_breaks_off_is_an_engine_gone(where: Path, pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(EngineGone):
        ask(where, answering(*pieces, close=True))


def test_nobody_listening_is_told_apart(where: Path) -> None:
    async def main() -> None:
        await Upstream().request(str(where), REQUEST, b"{}")

    with pytest.raises(Unreachable):
        asyncio.run(main())


def test_a_write_that_waits_for_a_slow_client_is_finished_before_the_next(where: Path) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)]
    pieces += [body[start : start + 50_000] for start in range(0, len(body), 50_000)]

    async def main() -> None:
        upstream = Upstream()
        server = await asyncio.start_unix_server(guarded(answering(*pieces)), where)
        connection = await upstream.request(str(where), REQUEST, b"{}")
        got = bytearray()
        writing = 0

        async def write(data: bytes, *, more: bool) -> None:
            nonlocal writing
            writing += 1
            assert writing == 1
            if len(got) % 3:  # some at once, some later
                await asyncio.sleep(0.001)
                await asyncio.sleep(0)
            got.extend(data)
            writing -= 1

        await connection.pour(write)
        connection.release()
        assert bytes(got) == body
        upstream.close()
        server.close()
        await asyncio.sleep(0)

    asyncio.run(main())
