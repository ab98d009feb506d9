"""A busy model: who waits, who is next, and who is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from appliance.routing import Lease, Routing
from tests.gateway.scraping import value
from tests.gateway.served import Answer, FakePort, Served, chat, key, raw_post, route, serve
from tests.gateway.test_streaming import fragile, stats
from tests.support import wait_until

CHAT = "/v1/chat/completions"
KEYS = (
    key("a", "sk-a"),
    key("b", "sk-b"),
    key("c", "sk-c", priority=2),
    key("scraper", "sk-scraper", scopes=("metrics",)),
)


class Busy:
    """A gateway whose engine has one place, and a client who has it until `finish`."""

    def __init__(self, served: Served, engine: Path, pool: ThreadPoolExecutor) -> None:
        self.served = served
        self.engine = engine
        self.pool = pool
        self.holder: socket | None = None

    def occupy(self) -> None:
        self.holder = self.served.connect()
        self.holder.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 1}), authorization="Bearer sk-a"))
        wait_until(lambda: stats(self.engine)["running"] == 1)

    def finish(self) -> None:
        if self.holder is not None:
            self.holder.close()

    def ask(self, who: str, **more: Any) -> Future[Answer]:
        """Once it stands in line."""
        before = self.waiting()
        headers = {"authorization": f"Bearer sk-{who}"}
        asked = self.pool.submit(self.served.ask, "POST", CHAT, chat(**more), headers)
        wait_until(lambda: asked.done() or self.waiting() > before, what="it waits")
        return asked

    def waiting(self) -> int:
        return int(value(self.served, "appliance_queue_length", model="tiny"))

    def change(self, **fields: Any) -> None:
        table = self.served.state.table
        now = table.routes["tiny"]
        assert now is not None
        self.served.change(routes={**table.routes, "tiny": replace(now, **fields)})


@contextmanager
def busy(engine: Path, *, places: int = 1, room: int = 64, keep_alive: float = 5) -> Iterator[Busy]:
    route_ = replace(route(engine), places=places, room=room)
    table = Routing(routes={"tiny": route_}, keys=KEYS)
    with (
        serve(FakePort(table), metrics=True, keep_alive=keep_alive) as served,
        ThreadPoolExecutor(64) as pool,
    ):
        found = Busy(served, engine, pool)
        found.occupy()
        try:
            yield found
        finally:
            found.finish()


@pytest.fixture(autouse=True)
def idle(engine: Path) -> None:
    """Streams that an earlier test called off are gone."""
    wait_until(lambda: stats(engine)["running"] == 0)


def served_in_order(busy: Busy, count: int) -> str:
    """Whose requests were answered, one after the other; the holder's own is left out."""
    wait_until(lambda: sum(map(asked, busy.served.lines())) == count)
    lines = filter(asked, busy.served.lines())
    return "".join(line["key"] for line in lines)


def asked(line: Any) -> bool:
    return bool(line["path"] == CHAT and line["status"] == 200 and not line.get("aborted"))


def test_keys_have_their_turns_one_after_the_other_however_many_requests_each_has(engine: Path) -> None:
    with busy(engine) as model:
        answers = [model.ask(who) for who in "aaaaaabbc"]
        model.finish()
        assert all(each.result().status == 200 for each in answers)
        assert served_in_order(model, 9) == "abcabaaaa"
        assert all(line["waited_ms"] >= 0 for line in model.served.lines() if asked(line))


def test_a_key_with_priority_has_more_turns_and_nobody_waits_for_ever(engine: Path) -> None:
    with busy(engine) as model:
        answers = [model.ask(who) for who in "aaaacccccc"]
        model.finish()
        assert all(each.result().status == 200 for each in answers)
        assert served_in_order(model, 10) == "accaccacca"


def test_no_more_run_at_once_than_there_are_places(engine: Path) -> None:
    with busy(engine, places=3) as model:
        headers = [{"authorization": f"Bearer sk-{who}"} for who in "abcabcabc"]
        body = chat(fake={"events": 8, "interval": 0.02})
        answers = [model.pool.submit(model.served.ask, "POST", CHAT, body, each) for each in headers]
        most = 0
        while not all(each.done() for each in answers):
            most = max(most, stats(engine)["running"])
        assert most == 3
        assert all(each.result().status == 200 for each in answers)


def test_a_stream_that_waits_is_kept_alive_and_then_answered(engine: Path) -> None:
    with busy(engine, keep_alive=0.05) as model, model.served.connect() as client:
        client.sendall(raw_post(CHAT, chat(stream=True), authorization="Bearer sk-b", connection="close"))
        received = b""
        while received.count(b": waiting for the model\n\n") < 3:
            received += client.recv(65536)
        assert b"data: " not in received
        model.finish()
        while data := client.recv(65536):
            received += data
    assert received.count(b"data: [DONE]") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_the_queue_leaves_its_place_to_the_next(engine: Path, stream: bool) -> None:
    with busy(engine, keep_alive=0.05) as model:
        with model.served.connect() as client:
            client.sendall(raw_post(CHAT, chat(stream=stream), authorization="Bearer sk-b"))
            wait_until(lambda: model.waiting() == 1)
            next_ = model.ask("c")
            assert model.waiting() == 2
        wait_until(lambda: model.waiting() == 1)
        before = stats(engine)["requests"]
        model.finish()
        assert next_.result().status == 200
        assert stats(engine)["requests"] == before + 1
        assert model.waiting() == 0


def test_who_finds_no_room_is_told_when_to_come_back(engine: Path) -> None:
    with busy(engine, room=4) as model:
        answers = [model.ask(who) for who in "aab"]
        for who, status in (("a", 503), ("c", 200), ("b", 503)):
            asked = model.ask(who)
            answers.append(asked)
            assert asked.done() == (status == 503)
        refused = answers[3].result()
        assert refused.error()["code"] == "queue_full"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        model.finish()
        assert [each.result().status for each in answers] == [200, 200, 200, 503, 200, 503]


def test_another_engine_serves_those_who_wait_for_the_old_one(engine: Path) -> None:
    with busy(engine) as model:
        answers = [model.ask("b"), model.ask("b")]
        model.change(lease=Lease(), revision="rev-2")  # ready beside the old one, which is still busy
        assert [each.result().status for each in answers] == [200, 200]
        assert [line["revision"] for line in model.served.lines() if asked(line)] == ["rev-2", "rev-2"]


def test_another_number_of_places_is_in_force_at_once(engine: Path) -> None:
    with busy(engine) as model:
        waiting = model.ask("b")
        model.change(places=2)
        assert waiting.result().status == 200


def test_an_engine_that_goes_sends_who_waits_back_to_wait_for_the_next(engine: Path) -> None:
    with busy(engine) as model:
        answers = [model.ask(who) for who in "bc"]
        ready = model.served.state.table.routes["tiny"]
        assert ready is not None
        model.served.state.delay = 0.2
        model.served.state.coming["tiny"] = replace(ready, lease=Lease(), revision="rev-2")
        model.served.change(routes={"tiny": None})
        assert [each.result().status for each in answers] == [200, 200]
        assert {line["revision"] for line in model.served.lines() if asked(line)} == {"rev-2"}
        assert all(line["held_ms"] for line in model.served.lines() if asked(line))


def test_every_place_is_given_back_however_requests_end(directory: Path) -> None:
    with fragile(directory) as (served, _, process):
        tiny = served.state.table.routes["tiny"]
        assert tiny is not None
        served.change(routes={"tiny": replace(tiny, places=2)})
        with ThreadPoolExecutor(8) as pool:
            bodies = [chat(), chat(fake={"status": 500}), chat(stream=True), chat(fake={"status": 400})] * 4
            assert len([*pool.map(lambda body: served.ask("POST", CHAT, body).status, bodies)]) == 16
            crash = pool.submit(served.ask, "POST", CHAT, chat(fake={"crash_after": 1}))
            assert crash.result().status in (502, 503)  # 503 where it was asked on a connection used before
            process.wait()
            assert {each.status for each in pool.map(lambda _: served.ask("POST", CHAT, chat()), range(4))} == {503}
        wait_until(lambda: tiny.lease.in_flight == 0)
