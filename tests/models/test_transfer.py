"""What a download process may reach, and what it carries there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from yarl import URL

from appliance.models.say import Failed
from appliance.models.transfer import Web, web


@contextmanager
def site(location: str | None = None) -> Iterator[tuple[URL, list[dict[str, str]]]]:
    """A server on this machine that redirects to `location`, or answers; and the headers of what it was asked."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(307 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield URL(f"http://127.0.0.1:{server.server_address[1]}/"), seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(url: str | URL, *, host: str = "127.0.0.1", outside: bool = False) -> int:
    async def ask() -> int:
        async with web(host) as connection:
            used = Web(connection.session, inside=False) if outside else connection
            async with used.get(URL(url), {"Authorization": "Bearer secret"}) as response:
                return response.status

    return asyncio.run(ask())


def test_credentials_stay_with_the_host_that_asked_for_them() -> None:
    with ExitStack() as stack:
        other, there = stack.enter_context(site())
        first, here = stack.enter_context(site(str(other.with_host("localhost"))))
        assert get(first) == 200
    assert here[0]["Authorization"] == "Bearer secret"
    assert "Authorization" not in there[0]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://example.com/", "not encrypted"),
        ("ftp://127.0.0.1/", "not encrypted"),
        ("https://127.0.0.1/", "not on the internet"),
        ("https://[::1]/", "not on the internet"),
        ("https://10.1.2.3/", "not on the internet"),
        ("https://169.254.169.254/latest/meta-data", "not on the internet"),
    ],
)
def test_registry_on_the_internet_cannot_send_us_inwards(url: str, named: str) -> None:
    with pytest.raises(Failed, match=named):
        get(url, outside=True)


def test_redirects_end_and_never_lose_their_encryption() -> None:
    with site("/again") as (endless, _), pytest.raises(Failed, match="more than"):
        get(endless)
    with site("http://example.com/") as (downgrading, _), pytest.raises(Failed, match="not encrypted"):
        get(downgrading)
    with site("file:///etc/passwd") as (other, _), pytest.raises(Failed, match="not encrypted"):
        get(other)


def test_names_of_this_network_are_not_followed_from_the_internet() -> None:
    async def resolve() -> None:
        # Nothing is known of it, so it is not of this network.
        async with web("registry.invalid") as connection, connection.get(URL("https://localhost/"), {}):
            pass

    with pytest.raises(Failed, match="not on the internet"):
        asyncio.run(resolve())
