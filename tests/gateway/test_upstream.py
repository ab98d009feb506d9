"""The client towards engines, against scripted servers: what real engines do rarely and all at the wrong moment."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from appliance.gateway.connection import EngineGone
from appliance.gateway.upstream import Unreachable, Upstream

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


@asynccontextmanager
async def scripted(where: Path, script: Script) -> AsyncIterator[Upstream]:
    """An upstream, and a server that has closed every connection when the block is left."""
    running = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    upstream = Upstream()
    server = await asyncio.start_unix_server(run, where)
    try:
        yield upstream
    finally:
        upstream.close()
        server.close()
        await asyncio.gather(*filter(None, running))


def ask(where: Path, script: Script, *, pour: bool = True, times: int = 1) -> list[tuple[int, bytes]]:
    """Status and body of each answer, poured or read."""

    async def main() -> list[tuple[int, bytes]]:
        async with scripted(where, script) as upstream:
            return [await one(upstream) for _ in range(times)]

    async def one(upstream: Upstream) -> tuple[int, bytes]:
        connection = await upstream.request(str(where), REQUEST, b"{}")
        got = bytearray()

        async def write(body: bytes, *, more: bool) -> None:
            got.extend(body)

        try:
            if pour:
                await connection.pour(write)
            else:
                got += await connection.read()
                while not connection.complete:
                    got += await connection.read()
            return connection.status, bytes(got)
        finally:
            connection.release()

    return asyncio.run(main())


@pytest.fixture
def where(directory: Path) -> Iterator[Path]:
    path = directory / "scripted.sock"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("pour", [True, False])
@pytest.mark.parametrize(
    ("pieces", "close"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"he", b"llo"), False),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",), False),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"), False),
        ((b"HTTP/1.1 200 OK\r\ntransfer-enc", b"oding: chunked\r\n\r\n5\r\nhello\r", b"\n0\r\n\r\n"), False),
        ((b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"), True),
        ((b"HTTP/1.0 200 OK\r\n\r\n", b"hello"), True),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), False),
        ((b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",), True),
    ],
)  # fmt: skip
def test_every_framing_is_understood(where: Path, pieces: tuple[bytes, ...], close: bool, pour: bool) -> None:
    assert ask(where, answering(*pieces, close=close), pour=pour, times=2) == [(200, b"hello")] * 2


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


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(where: Path) -> None:
    hello = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    strays: list[asyncio.StreamWriter] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strays.append(writer)
        await hello(reader, writer)

    async def check(body: bytes, *, more: bool) -> None:
        assert body == b"hello"

    async def main() -> None:
        async with scripted(where, script) as upstream:
            for _ in range(2):
                connection = await upstream.request(str(where), REQUEST, b"{}")
                await connection.pour(check)
                connection.release()
                strays[-1].write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray")
                while connection.usable:  # noqa: ASYNC110 - the connection has no event for it
                    await asyncio.sleep(0.001)

    asyncio.run(main())


def test_nobody_listening_is_told_apart(where: Path) -> None:
    async def main() -> None:
        await Upstream().request(str(where), REQUEST, b"{}")

    with pytest.raises(Unreachable):
        asyncio.run(main())


def test_a_write_that_waits_for_a_slow_client_is_finished_before_the_next(where: Path) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)]
    pieces += [body[start : start + 50_000] for start in range(0, len(body), 50_000)]

    got = bytearray()
    writing = 0

    async def write(body: bytes, *, more: bool) -> None:
        nonlocal writing
        writing += 1
        assert writing == 1
        if len(got) % 3:  # some at once, some later
            await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        got.extend(body)
        writing -= 1

    async def main() -> None:
        async with scripted(where, answering(*pieces)) as upstream:
            connection = await upstream.request(str(where), REQUEST, b"{}")
            await connection.pour(write)
            connection.release()

    asyncio.run(main())
    assert bytes(got) == body


class Gone(Exception):
    """A client that cannot be written to."""


async def refuse_to_take(body: bytes, *, more: bool) -> None:
    raise Gone


async def never_take(body: bytes, *, more: bool) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("leaving", [refuse_to_take, never_take, None])
def test_what_a_client_leaves_of_its_answer_is_not_given_to_the_next(where: Path, leaving: Any) -> None:
    """Not a byte of it, and the next client's own answer goes to nobody else. None: it takes nothing at all."""
    number = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        while await reader.readexactly(len(REQUEST) + 2):
            number += 1
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfor %d \r\n" % number)
            await writer.drain()
            writer.write(b"6\r\nto end\r\n0\r\n\r\n")

    async def main() -> bytes:
        got = bytearray()

        async def take(body: bytes, *, more: bool) -> None:
            got.extend(body)

        async with scripted(where, script) as upstream:
            connection = await upstream.request(str(where), REQUEST, b"{}")
            if leaving is not None:
                pouring = asyncio.create_task(connection.pour(leaving))
                while not connection.complete and not pouring.done():  # noqa: ASYNC110 - a connection has no event
                    await asyncio.sleep(0.001)
                pouring.cancel()
                await asyncio.wait([pouring])
                assert pouring.cancelled() or isinstance(pouring.exception(), Gone)
            while not connection.complete:  # noqa: ASYNC110 - the whole answer is there, and it stays untaken
                await asyncio.sleep(0.001)
            connection.release()
            following = await upstream.request(str(where), REQUEST, b"{}")
            async with asyncio.timeout(10):
                await following.pour(take)
            following.release()
        return bytes(got)

    assert asyncio.run(main()) == b"for 2 to end"


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_the_last_write_is_waited_for_as_well(where: Path, pieces: int) -> None:
    script = answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (5 * pieces), *[b"hello"] * pieces)
    got = bytearray()
    ended = False

    async def write(body: bytes, *, more: bool) -> None:
        nonlocal ended
        await asyncio.sleep(0.001)
        got.extend(body)
        ended = not more

    async def main() -> None:
        async with scripted(where, script) as upstream:
            connection = await upstream.request(str(where), REQUEST, b"{}")
            async with asyncio.timeout(10):
                await connection.pour(write)
            connection.release()
            assert connection.usable

    asyncio.run(main())
    assert ended
    assert bytes(got) == b"hello" * pieces


Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """How a connection ends is told by the loop, and the gateway's is uvloop."""
    runner: Runner = request.param
    return runner


async def two_requests(
    where: Path, between: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> int:
    """The second one's status, over a server that does `between` where the first connection may get another request.

    A fresh connection is answered, so one that is sent again gets through.
    """
    connections = 0
    hello = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readexactly(len(REQUEST) + 2)
        writer.write(hello)
        if connections == 1:
            await between(reader, writer)
        else:
            await reader.read()

    async with scripted(where, script) as upstream:
        for _ in range(2):
            connection = await upstream.request(str(where), REQUEST, b"{}")
            while not connection.complete:
                await connection.read()
            connection.release()
        return connection.status


def test_what_an_engine_has_read_is_not_sent_again(where: Path, run: Runner) -> None:
    """It may be what killed it."""

    async def read_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(REQUEST) + 2)

    with pytest.raises(EngineGone) as found:
        run(two_requests(where, read_and_die))
    assert not isinstance(found.value, Unreachable)


def test_what_an_engine_has_not_read_is_sent_again(where: Path, run: Runner) -> None:
    async def die_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw = writer.get_extra_info("socket")
        await asyncio.to_thread(select.select, [raw], [], [])

    assert run(two_requests(where, die_unread)) == 200


def test_a_connection_that_was_closed_while_idle_is_not_used(where: Path, run: Runner) -> None:
    closed = asyncio.Event()

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed.set()

    assert run(two_requests(where, close)) == 200
    assert closed.is_set()


def test_an_engine_that_dies_before_it_has_accepted_can_be_replaced(where: Path, run: Runner) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(where))
            listener.listen()
            asking = asyncio.create_task(Upstream().request(str(where), REQUEST, b"{}"))
            await asyncio.to_thread(select.select, [listener], [], [])
        await asking

    with pytest.raises(Unreachable):
        run(main())
