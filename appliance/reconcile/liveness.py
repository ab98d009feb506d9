"""Tell an engine that hangs from one that is slow."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

INTERVAL = 5.0
"""Seconds between two health checks that went well."""
RETRY = 1.0
"""Seconds from a check that failed to the next."""
TIMEOUT = 10.0
"""Seconds that one check may take. An engine answers in milliseconds; a machine that swaps needs seconds."""
FAILURES = 3
"""Checks in a row that must fail: killing a living engine costs more than finding a dead one half a minute late."""


class Watched(Protocol):
    @property
    def exited(self) -> asyncio.Future[Any]: ...

    async def healthy(self, *, timeout: float) -> bool: ...


async def hangs(
    process: Watched,
    *,
    interval: float = INTERVAL,
    retry: float = RETRY,
    timeout: float = TIMEOUT,
    failures: int = FAILURES,
) -> bool:
    """True once the engine has stopped answering, False once it is gone; until then it does not return."""
    failed = 0
    while True:
        await asyncio.wait((process.exited,), timeout=retry if failed else interval)
        if process.exited.done():
            return False
        failed = 0 if await process.healthy(timeout=timeout) else failed + 1
        if failed == failures and not process.exited.done():
            return True
