from __future__ import annotations

import asyncio

import structlog

from appliance.cli.serve import kept_going


def test_a_task_that_a_bug_has_ended_is_told_and_begun_again() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("again" if begun else "first")
        if len(begun) == 1:
            raise ZeroDivisionError

    with structlog.testing.capture_logs() as log:
        asyncio.run(kept_going(work, pause=0))
    assert begun == ["first", "again"]
    assert [line["event"] for line in log] == ["bug in a task of the appliance"]
