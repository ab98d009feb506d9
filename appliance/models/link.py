"""The download process for `url:` sources: `python -m appliance.models.link SOURCE --root STORE --out DIRECTORY`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from appliance.models.archive import extract
from appliance.models.artifact import is_plain
from appliance.models.disk import link
from appliance.models.say import Failed, Tally, run, say
from appliance.models.sources import LinkSource, parse_source
from appliance.models.transfer import Blob, Blobs, Web, told, web


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="link")
    parser.add_argument("source")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    source = parse_source(options.source, base=Path("/"))
    if not isinstance(source, LinkSource):
        raise SystemExit(f"{options.source} is no link")
    return run(lambda: asyncio.run(_bring(source, options.root, options.out)), options.out)


async def _bring(source: LinkSource, root: Path, out: Path) -> dict[str, Any]:
    url = URL(source.url)
    async with web(url.raw_authority) as connection:
        size = await _size(connection, url)
        blobs, blob = Blobs(root), Blob(source.sha256, size)
        if not blobs.has(blob) and size > (free := shutil.disk_usage(out).free):
            raise Failed("full", f"`{source.url}` needs {size} bytes and `{out}` has {free} left")
        tally = Tally(size)
        path = await blobs.bring(
            blob, f"`{source.url}`", lambda headers: _get(connection, url, headers), lambda done: tally.at("", done)
        )
    return await asyncio.to_thread(_place, url, source, path, out)


def _place(url: URL, source: LinkSource, path: Path, out: Path) -> dict[str, Any]:
    shutil.rmtree(out)
    out.mkdir()
    if not url.path.lower().endswith(".gguf"):
        say({"step": "unpacking"})
        extracted = extract(path, out, f"`{source.url}`")
        return {"files": {name: {"size": each.size, "sha256": each.sha256} for name, each in extracted.items()}}
    name = url.name if is_plain(url.name) else "model.gguf"
    link(path, out / name)
    return {"files": {name: {"size": path.stat().st_size, "sha256": source.sha256}}}


async def _size(connection: Web, url: URL) -> int:
    try:
        async with _get(connection, url, {"Accept-Encoding": "identity"}) as response:
            if response.content_length is None:
                raise Failed("transfer", f"`{url}` does not say how long it is", "use a server that does")
            return response.content_length
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Failed(
            "transfer", f"`{url}` cannot be reached: {told(error)}", "check the network and try again"
        ) from error


@asynccontextmanager
async def _get(connection: Web, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
    async with connection.get(url, headers) as response:
        if response.status in (408, 429) or response.status >= 500:
            raise aiohttp.ClientPayloadError(f"`{url.host}` answered {response.status}")
        if response.status not in (200, 206):
            raise Failed("missing", f"`{url}`: the server answered {response.status}", "check the address")
        yield response


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
