"""Blobs over HTTP into a store: in parallel, resumed at the last byte, believed only by their SHA-256.

Runs in download processes, which alone import aiohttp for it. A blob arrives as `arriving/SHA256` under a lock of its
own and gets its name under `blobs/` when it is whole: whoever needs the same blob meanwhile waits and then has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from appliance.file_lock import held
from appliance.models.disk import link, sync_directory
from appliance.models.say import Failed
from appliance.models.sources import is_local_host

CHUNK = 1024 * 1024
TRIES = 5
AT_ONCE = 4
_HOPS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes by their SHA-256."""

    sha256: str
    size: int


Answer = Callable[[Mapping[str, str]], Any]
"""An async context manager of a response to a GET with these headers, already checked for its status."""


class _PublicOnly(AbstractResolver):
    """Addresses on the internet alone: a registry must not send us into the network that we are in."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the base's
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, proto, _, address in found:
            if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
                raise Failed("transfer", f"`{host}` is {address[0]}, which is not on the internet")
            results.append(
                {"hostname": host, "host": str(address[0]), "port": port, "family": kind, "proto": proto, "flags": 0}
            )
        return results

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Web:
    """GET with redirects that never lose TLS, never carry credentials elsewhere, and never lead inwards."""

    session: aiohttp.ClientSession
    inside: bool
    """Whether the host that was asked for is itself of the local network, so that others of it may follow."""

    @asynccontextmanager
    async def get(self, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        carried = dict(headers)
        for _ in range(_HOPS):
            self._check(url)
            async with self.session.get(url, headers=carried, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                target = url.join(URL(response.headers.get("Location", "")))
            if url.scheme == "https" and target.scheme != "https":
                raise Failed("transfer", f"`{url.host}` redirects to `{target.scheme}:`, which is not encrypted")
            self._check(target)
            if target.origin() != url.origin():
                carried.pop("Authorization", None)
            url = target
        raise Failed("transfer", f"`{url.host}` redirects more than {_HOPS} times")

    def _check(self, url: URL) -> None:
        host = url.host or ""
        if url.scheme not in ("https", "http") or (url.scheme == "http" and not is_local_host(host)):
            raise Failed("transfer", f"`{url}` is not encrypted", "plain HTTP is for this machine alone")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return  # a name, which the resolver judges
        if not self.inside and not address.is_global:
            raise Failed("transfer", f"`{host}` is not on the internet")


@asynccontextmanager
async def web(host: str) -> AsyncIterator[Web]:
    """For requests that begin at `host`."""
    inside = await _is_inside(host)
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    resolver = None if inside or proxied else _PublicOnly()  # behind a proxy it is the proxy that resolves
    connector = aiohttp.TCPConnector(resolver=resolver, limit=2 * AT_ONCE)
    session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=True, auto_decompress=False)
    async with session:
        yield Web(session, inside)


async def _is_inside(host: str) -> bool:
    name = URL(f"//{host}").host or host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(not ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global for each in found)


class Blobs:
    """`blobs/`, `arriving/` and their locks in a store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, blob: Blob) -> Path:
        return self._root / "blobs" / blob.sha256

    def has(self, blob: Blob) -> bool:
        return _length(self.path(blob)) == blob.size

    def sound(self, blob: Blob) -> bool:
        """Whether it is here and its bytes are right; what is not right is thrown away."""
        if not self.has(blob):
            return False
        if _sha256(self.path(blob)) == blob.sha256:
            return True
        self.path(blob).unlink(missing_ok=True)
        return False

    async def bring(self, blob: Blob, what: str, answer: Answer, progress: Callable[[int], None]) -> Path:
        """The blob's path, fetched where it is not there yet."""
        async with held(self._root / "locks" / f"blob-{blob.sha256[:32]}.lock"):
            if not await asyncio.to_thread(self.sound, blob):
                await self._fetch(blob, what, answer, progress)
        progress(blob.size)
        return self.path(blob)

    async def take(self, blob: Blob, path: Path) -> bool:
        """Whether the file at `path`, of another store on this machine, is this blob; if so it is one of ours now."""
        async with held(self._root / "locks" / f"blob-{blob.sha256[:32]}.lock"):
            if self.has(blob):
                return True
            return await asyncio.to_thread(self._take, blob, path)

    def _take(self, blob: Blob, path: Path) -> bool:
        if _length(path) != blob.size or _sha256(path) != blob.sha256:
            return False
        arriving = self._arriving(blob)
        arriving.unlink(missing_ok=True)
        link(path, arriving)
        self._keep(blob, arriving)
        return True

    def _arriving(self, blob: Blob) -> Path:
        return self._root / "arriving" / blob.sha256

    def _keep(self, blob: Blob, arriving: Path) -> None:
        arriving.replace(self.path(blob))
        sync_directory(self._root / "blobs")

    async def _fetch(self, blob: Blob, what: str, answer: Answer, progress: Callable[[int], None]) -> None:
        arriving = self._arriving(blob)
        # Bytes that do not add up are worth one fresh try: a resumed part may have been torn by a power cut.
        for _ in range(2):
            await self._stream(blob, what, arriving, answer, progress)
            if await asyncio.to_thread(_sha256, arriving) == blob.sha256:
                self._keep(blob, arriving)
                return
            _forget(arriving)
        raise Failed("transfer", f"{what} arrived with another SHA-256 than {blob.sha256}", "nothing of it was kept")

    async def _stream(
        self, blob: Blob, what: str, arriving: Path, answer: Answer, progress: Callable[[int], None]
    ) -> None:
        tries = TRIES
        while True:
            start = _length(arriving) or 0
            try:
                return await _append(blob, arriving, answer, progress)
            except _BROKEN as error:
                moved = (_length(arriving) or 0) > start
                tries = TRIES if moved else tries - 1
                if tries <= 0:
                    raise Failed(
                        "transfer", f"{what} broke off: {told(error)}", "try again; what has arrived is kept"
                    ) from error
                await asyncio.sleep(0.5 * (TRIES - tries + 1))


async def _append(blob: Blob, arriving: Path, answer: Answer, progress: Callable[[int], None]) -> None:
    have = _length(arriving)
    if have == blob.size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have and have < blob.size:
        headers["Range"] = f"bytes={have}-"
    async with answer(headers) as response:
        with _open(arriving, have if have and response.status == 206 else 0) as stream:
            async for chunk in response.content.iter_any():
                stream.write(chunk)
                if stream.tell() > blob.size:
                    break  # its digest cannot be right any more, and there may be no end to it
                progress(stream.tell())
            stream.flush()
            os.fsync(stream.fileno())
            if stream.tell() < blob.size:
                raise aiohttp.ClientPayloadError("the connection ended early")


def _open(path: Path, at: int) -> BinaryIO:
    stream = path.open("r+b" if at else "wb")
    stream.seek(at)
    return stream


def _length(path: Path) -> int | None:
    """Bytes of a file, or None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def told(error: BaseException) -> str:
    """An error's own words; time-outs have none."""
    return str(error) or type(error).__name__


async def head(answer: Answer, size: int) -> bytes:
    """The first `size` bytes, or as many as there are."""
    data = b""
    async with answer({"Accept-Encoding": "identity", "Range": f"bytes=0-{max(size - 1, 0)}"}) as response:
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) >= size:
                break
    return data[:size]


async def together(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """A few at once; the first that fails calls the others off."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(each: Callable[[], Any]) -> Any:
        async with room:
            return await each()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each)) for each in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
