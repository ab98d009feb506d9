"""The download process for `oci:` sources: `python -m appliance.models.oci SOURCE --root STORE --out DIRECTORY`.

Prints progress, at last `{"digest": the manifest's, "files": {name: {size, sha256}}}`. The layers are left in the
store's `blobs/`; the files in DIRECTORY are further names of them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from appliance.models.archive import extract
from appliance.models.artifact import Layer, config_of, context_size, layers
from appliance.models.disk import link
from appliance.models.docker_store import DockerStore
from appliance.models.head import write_head
from appliance.models.registry import Registry
from appliance.models.say import Failed, Tally, run, say
from appliance.models.sources import RegistrySource, parse_source
from appliance.models.transfer import Blob, Blobs, head, together, told, web

FIRST_HEAD = 256 * 1024
SMALL = 16 * 1024 * 1024


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="oci")
    parser.add_argument("source")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resolve", action="store_true", help="say the manifest's digest and fetch nothing")
    parser.add_argument("--heads", action="store_true", help="weights as sparse files that hold their headers alone")
    options = parser.parse_args(arguments)
    source = parse_source(options.source, base=Path("/"))
    if not isinstance(source, RegistrySource):
        raise SystemExit(f"{options.source} is no registry source")
    if options.resolve:
        return run(lambda: asyncio.run(_resolve(source)), options.out)
    return run(lambda: asyncio.run(bring(source, options.root, options.out, heads=options.heads)), options.out)


async def _resolve(source: RegistrySource) -> dict[str, Any]:
    """What the registry, and not Docker's own store, means by the source's tag now."""
    async with web("registry-1.docker.io" if source.host == "docker.io" else source.host) as connection:
        manifest = await Registry(connection, source, os.environ).manifest()
    return {"digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}"}


async def bring(source: RegistrySource, root: Path, out: Path, *, heads: bool = False) -> dict[str, Any]:
    local = DockerStore(os.environ)
    async with web("registry-1.docker.io" if source.host == "docker.io" else source.host) as connection:
        registry = Registry(connection, source, os.environ)
        manifest = await asyncio.to_thread(local.manifest, source) or await registry.manifest()
        planned = layers(manifest, f"`{source.text}`")
        arrival = _Arrival(source, registry, local, Blobs(root), out, planned)
        files = await arrival.heads() if heads else await arrival.whole()
        context = await _context(manifest, source, registry, local)
    return {"digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}", "files": files, "context": context}


async def _context(manifest: bytes, source: RegistrySource, registry: Registry, local: DockerStore) -> int | None:
    where = f"`{source.text}`"
    sha256, size = config_of(manifest, where)
    data = await asyncio.to_thread(local.small, sha256)
    if data is None:
        try:
            data = await head(registry.blob(sha256), size)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Failed("transfer", f"the configuration of {where} broke off: {told(error)}", "try again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Failed("transfer", f"the configuration of {where} arrived with another SHA-256", "try again")
    return context_size(data, where)


class _Arrival:
    """One artifact's layers on their way into `out`."""

    def __init__(
        self,
        source: RegistrySource,
        registry: Registry,
        local: DockerStore,
        blobs: Blobs,
        out: Path,
        planned: Sequence[Layer],
    ) -> None:
        self._source = source
        self._registry = registry
        self._local = local
        self._blobs = blobs
        self._out = out
        self._planned = planned

    async def whole(self) -> dict[str, dict[str, Any]]:
        total = sum(layer.size for layer in self._planned)
        missing = sum(layer.size for layer in self._planned if not self._blobs.has(Blob(layer.sha256, layer.size)))
        if missing > (free := shutil.disk_usage(self._out).free):
            raise Failed("full", f"`{self._source.text}` needs {missing} bytes and `{self._out}` has {free} left")
        tally = Tally(total)
        distinct = {layer.sha256: layer for layer in self._planned}.values()
        await together([partial(self._bring, layer, tally) for layer in distinct])
        say({"step": "unpacking"})
        return await asyncio.to_thread(self._place_all)

    def _place_all(self) -> dict[str, dict[str, Any]]:
        shutil.rmtree(self._out)
        self._out.mkdir()
        files: dict[str, dict[str, Any]] = {}
        for layer in self._planned:
            files |= self._place(layer)
        return files

    async def _bring(self, layer: Layer, tally: Tally) -> None:
        blob = Blob(layer.sha256, layer.size)
        if await self._blobs.take(blob, self._local.blob(layer.sha256)):
            tally.at(layer.sha256, layer.size)
            return
        what = f"layer {layer.name or layer.sha256[:12]} of `{self._source.text}`"
        await self._blobs.bring(blob, what, self._registry.blob(layer.sha256), partial(tally.at, layer.sha256))

    def _place(self, layer: Layer) -> dict[str, dict[str, Any]]:
        path = self._blobs.path(Blob(layer.sha256, layer.size))
        if layer.kind == "tar":
            extracted = extract(path, self._out, f"`{self._source.text}`")
            return {name: {"size": each.size, "sha256": each.sha256} for name, each in extracted.items()}
        target = self._out / layer.name
        target.parent.mkdir(parents=True, exist_ok=True)
        link(path, target)
        return {layer.name: {"size": layer.size, "sha256": layer.sha256}}

    async def heads(self) -> dict[str, dict[str, Any]]:
        for layer in self._planned:
            if layer.kind == "file" and layer.name.endswith((".safetensors", ".gguf")):
                await self._head(layer)
            elif layer.size <= SMALL:
                await self._bring(layer, Tally(layer.size))
                await asyncio.to_thread(self._place, layer)
        return {}

    async def _head(self, layer: Layer) -> None:
        target, size = self._out / layer.name, FIRST_HEAD
        while True:
            data = await head(self._registry.blob(layer.sha256), min(size, layer.size))
            needed = await asyncio.to_thread(write_head, target, data, layer.size)
            if needed is None:
                return
            size = needed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
