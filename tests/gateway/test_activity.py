"""The points that the page plots: what was sent is what they say, and tokens are counted for whoever looks on."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from appliance.gateway.activity import Activity, Point
from appliance.routing import Routing
from tests.gateway.served import FakePort, Served, chat, raw_post, route, serve
from tests.support import wait_until

CHAT = "/v1/chat/completions"


def point(activity: Activity) -> Point:
    """What was put down last."""
    activity.put_down()
    return activity.since(0)[1][-1]


def ask(served: Served, **more: object) -> int:
    return served.ask("POST", CHAT, chat(**more)).status


def test_a_point_sums_up_its_interval_and_begins_the_next_at_nothing(engine: Path) -> None:
    activity = Activity()
    activity.since(0)  # somebody looks on
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), activity=activity) as served:
        assert ask(served, stream=True, fake={"events": 30}) == 200
        assert ask(served, stream=False, fake={"events": 12}) == 200
        assert ask(served, fake={"status": 500}) == 500
        assert ask(served, model="nonsense") == 404
        served.ask("GET", "/healthz")
        wait_until(lambda: len(served.lines()) == 5, what="all have ended")
        found = point(activity)
        assert (found.requests, found.errors) == (3, 1)
        assert (found.prompt_tokens, found.completion_tokens) == (2 * 6, 30 + 12)
        assert found.first_token is not None
        assert found.first_token[0] <= found.first_token[1]
        assert (found.in_flight, found.waiting, found.memory, found.budget) == (0, 0, 600, 1000)
        after = point(activity)
        assert (after.requests, after.completion_tokens, after.first_token) == (0, 0, None)


def test_streams_whose_clients_do_not_ask_for_usage_are_counted_only_while_somebody_looks(engine: Path) -> None:
    activity = Activity()
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), activity=activity) as served:
        assert ask(served, stream=True, fake={"events": 30}) == 200
        wait_until(lambda: len(served.lines()) == 1)
        activity.put_down()
        assert ask(served, stream=True, fake={"events": 30}) == 200
        wait_until(lambda: len(served.lines()) == 2)
        activity.put_down()
        assert not activity.watched
        _, points = activity.since(0)
        assert activity.watched
        assert [each.completion_tokens for each in points] == [0, 0]
        assert ask(served, stream=True, fake={"events": 30}) == 200
        wait_until(lambda: len(served.lines()) == 3)
        assert point(activity).completion_tokens == 30


def test_a_client_that_leaves_at_the_end_mark_is_not_taken_for_one_that_left_early(engine: Path) -> None:
    """What it got is no ground for a guess: its last piece is the end mark, and not an event like the others."""
    with serve(FakePort(Routing(routes={"tiny": route(engine)}))) as served:
        for _ in range(5):
            connection = served.connect()
            body = chat(stream=True, fake={"events": 40})
            connection.sendall(raw_post(CHAT, body))
            received = b""
            while b"data: [DONE]" not in received:
                received += connection.recv(65536)
            connection.close()
        wait_until(lambda: len(served.lines()) == 5)
        assert [line.get("completion_tokens") for line in served.lines()] == [None] * 5


@pytest.mark.parametrize("numbers", [1, 3])
def test_a_follower_gets_each_point_once_and_is_let_go_at_the_end(numbers: int) -> None:
    async def follow() -> list[int]:
        activity = Activity()
        activity.attach(FakePort(Routing()), _Nobody())  # type: ignore[arg-type]
        counted = []

        async def read() -> None:
            number = 0
            while not activity.closed:
                number, points = await activity.follow(number)
                counted.append(len(points))

        reader = asyncio.create_task(read())
        for _ in range(numbers):
            await asyncio.sleep(0)
            activity.put_down()
            await asyncio.sleep(0)
        activity.end()
        async with asyncio.timeout(10):
            await reader
        return counted

    counted = asyncio.run(follow())
    assert sum(counted) == numbers


class _Nobody:
    """An admission at whose door nobody waits."""

    def __init__(self) -> None:
        self.holding: Counter[str] = Counter()

    def waiting(self) -> tuple[tuple[str, int], ...]:
        return ()
