"""An OCI registry's pull API (distribution-spec), with the token authentication that Docker's registries ask for."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from appliance.models.artifact import LARGEST_MANIFEST, Machine, manifest_of_index
from appliance.models.credentials import Credentials
from appliance.models.say import Failed
from appliance.models.sources import DOCKER_HUB, RegistrySource, is_local_host
from appliance.models.transfer import Answer, Web, head, told

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.index.v1+json"
)
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_LARGEST_TOKEN = 256 * 1024


class Registry:
    """One repository of one registry."""

    def __init__(self, web: Web, source: RegistrySource, environ: Mapping[str, str]) -> None:
        self._web = web
        self._source = source
        self._host = "registry-1.docker.io" if source.host == DOCKER_HUB else source.host
        self._credentials = Credentials(source.host, environ)
        self._basic: str | None = None
        self._authorization: str | None = None
        scheme = "http" if is_local_host(self._host) else "https"
        self._base = URL(f"{scheme}://{self._host}/v2/{source.path}/")

    async def manifest(self) -> bytes:
        """The source's manifest, with its digest checked where the source or the registry gives one."""
        data, said = await self._manifest(self._source.digest or str(self._source.tag))
        if inner := manifest_of_index(data, self._where, _this_machine()):
            data, said = await self._manifest(inner)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for expected in (said, None if inner else self._source.digest, inner):
            if expected and expected != digest:
                raise Failed("transfer", f"the manifest of {self._where} has the digest {digest}, not {expected}")
        return data

    def blob(self, sha256: str) -> Answer:
        """How to ask for a layer."""
        return lambda headers: self._get(self._base / "blobs" / f"sha256:{sha256}", headers, (200, 206))

    @property
    def _where(self) -> str:
        return f"`{self._source.text}`"

    async def _manifest(self, reference: str) -> tuple[bytes, str | None]:
        url = self._base / "manifests" / reference
        try:
            async with self._get(url, {"Accept": _MANIFESTS}, (200,)) as response:
                data = await response.content.read(LARGEST_MANIFEST + 1)
                while len(data) <= LARGEST_MANIFEST and (more := await response.content.read(LARGEST_MANIFEST)):
                    data += more
                said = response.headers.get("Docker-Content-Digest")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Failed(
                "transfer", f"{self._where}: `{self._host}` cannot be reached: {told(error)}",
                "check the network and try again",
            ) from error  # fmt: skip
        if len(data) > LARGEST_MANIFEST:
            raise Failed("damaged", f"the manifest of {self._where} has more than {LARGEST_MANIFEST} bytes")
        return data, said

    @asynccontextmanager
    async def _get(
        self, url: URL, headers: Mapping[str, str], expected: tuple[int, ...]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        for attempt in (1, 2):
            sent = {**headers, **({"Authorization": self._authorization} if self._authorization else {})}
            async with self._web.get(url, sent) as response:
                if response.status == 401 and attempt == 1:
                    challenge = response.headers.get("WWW-Authenticate", "")
                else:
                    self._check(response, expected)
                    yield response
                    return
            self._authorization = await self._answer_challenge(challenge)

    def _check(self, response: aiohttp.ClientResponse, expected: tuple[int, ...]) -> None:
        if response.status in expected:
            return
        if response.status in (401, 403):
            raise Failed(
                "missing", f"{self._where}: `{self._host}` refused access ({response.status})",
                self._credentials.problem
                or f"if it is private, `docker login {self._source.host}` gives credentials that are used here",
            )  # fmt: skip
        if response.status == 404:
            raise Failed("missing", f"{self._where} does not exist on `{self._host}`", "check the name and the tag")
        if response.status in (408, 429) or response.status >= 500:
            raise aiohttp.ClientPayloadError(f"`{self._host}` answered {response.status}")
        raise Failed("transfer", f"{self._where}: `{self._host}` answered {response.status}", "try again later")

    async def _answer_challenge(self, challenge: str) -> str:
        kind, _, rest = challenge.partition(" ")
        self._basic = self._basic or await self._credentials.basic()
        if kind.lower() == "basic" and self._basic:
            return f"Basic {self._basic}"
        if kind.lower() != "bearer":
            raise Failed(
                "missing",
                f"{self._where}: `{self._host}` asks for credentials",
                self._credentials.problem or f"`docker login {self._source.host}`",
            )
        asked = dict(_PARAMETER.findall(rest))
        query = {"scope": f"repository:{self._source.path}:pull"}
        query |= {"service": asked["service"]} if "service" in asked else {}
        realm = URL(asked.get("realm", ""))
        headers = {"Authorization": f"Basic {self._basic}"} if self._basic else {}

        @asynccontextmanager
        async def answer(more: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
            async with self._web.get(realm.update_query(query), {**headers, **more}) as response:
                self._check(response, (200, 206))
                yield response

        try:
            document: Any = json.loads(await head(answer, _LARGEST_TOKEN))
            token = str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise Failed("transfer", f"{self._where}: `{realm.host}` gave no usable token") from error
        if not token.isascii() or not token.isprintable():
            raise Failed("transfer", f"{self._where}: `{realm.host}` gave no usable token")
        return f"Bearer {token}"


def _this_machine() -> Machine:
    """In an index's own words, which are Go's."""
    machine = platform.machine().lower()
    return sys.platform, {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
