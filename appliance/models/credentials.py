"""What `docker login` left for a registry: in Docker's config.json, or with the helper program that it names.

A helper is `docker-credential-NAME`: asked `get` with the registry's name on stdin, it answers in JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.models.sources import DOCKER_HUB

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATIENCE = 60.0
"""Seconds for a helper, which may have to ask a person to unlock a keychain."""
_LARGEST_ANSWER = 64 * 1024
_TOKEN = "<token>"  # noqa: S105 - what a helper says in the place of a name for a token of another kind


class Credentials:
    """Those of one registry. Nothing of them is ever said; `problem` is why a helper gave none."""

    def __init__(self, host: str, environ: Mapping[str, str]) -> None:
        self._names = ("https://index.docker.io/v1/", DOCKER_HUB) if host == DOCKER_HUB else (host, f"https://{host}")
        self._environ = environ
        self.problem: str | None = None

    async def basic(self) -> str | None:
        """Base64 of `user:password`; None where there is none.

        (1) The helper for this registry, (2) the one for all, (3) what the file itself holds.
        """
        config = _config(self._environ)
        helper = _first(config.get("credHelpers"), self._names) or config.get("credsStore")  # (1), (2)
        if isinstance(helper, str) and helper and (found := await self._ask(helper)):
            return found
        entry = _first(config.get("auths"), self._names)  # (3)
        text = entry.get("auth") if isinstance(entry, dict) else None
        return text if isinstance(text, str) and _is_basic(text) else None

    async def _ask(self, helper: str) -> str | None:
        name = f"docker-credential-{helper}"
        program = shutil.which(name, path=self._environ.get("PATH", "")) if _NAME.fullmatch(helper) else None
        if program is None or not Path(program).is_absolute():
            self.problem = f"`{name[:80]}`, which Docker keeps credentials with, is not on PATH"
            return None
        for server in self._names:
            try:
                code, answer = await self._run(program, server)
            except OSError as error:
                self.problem = f"`{name}` could not be run: {error.strerror}"
                return None
            except TimeoutError:
                self.problem = f"`{name}` did not answer within {_PATIENCE:g} seconds"
                return None
            if code == 0:
                return self._read(name, answer)
        return None  # it has none, which is no problem

    async def _run(self, program: str, server: str) -> tuple[int, bytes]:
        process = await asyncio.create_subprocess_exec(
            program, "get", env=dict(self._environ),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - both are pipes; narrows the type
        assert process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(_PATIENCE):
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(server.encode())
                    await process.stdin.drain()
                process.stdin.close()
                answer = b""
                while len(answer) <= _LARGEST_ANSWER and (more := await process.stdout.read(_LARGEST_ANSWER)):
                    answer += more
                if len(answer) > _LARGEST_ANSWER:
                    return 0, b""  # nothing that could be an answer
                return await process.wait(), answer
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _read(self, name: str, answer: bytes) -> str | None:
        try:
            document = json.loads(answer)
            user, secret = document["Username"], document["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            user = secret = None
        if not isinstance(user, str) or not isinstance(secret, str) or not user or not secret or ":" in user:
            self.problem = f"`{name}` gave no usable answer"
            return None
        if user == _TOKEN:
            self.problem = f"`{name}` has an identity token, which is not supported; log in with a name and a password"
            return None
        return base64.b64encode(f"{user}:{secret}".encode()).decode()


def _config(environ: Mapping[str, str]) -> dict[str, Any]:
    directory = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/nonexistent") / ".docker")
    try:
        value = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first(table: Any, names: tuple[str, ...]) -> Any:
    return next((table[name] for name in names if table.get(name)), None) if isinstance(table, dict) else None


def _is_basic(text: str) -> bool:
    try:
        return b":" in base64.b64decode(text, validate=True)
    except ValueError:
        return False
