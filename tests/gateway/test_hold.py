"""Requests that arrive before their model is ready."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.errors import NotReady
from appliance.routing import Routing
from tests.gateway.served import QUESTION, FakePort, Served, chat, route, serve


@pytest.fixture
def gateway(engine: Path) -> Iterator[Served]:
    """One engine, and a model that takes four keep-alives to become it."""
    state = FakePort(Routing(routes={"tiny": None}, aliases={"alias": "tiny"}), {"tiny": route(engine)}, delay=0.2)
    with serve(state, keep_alive=0.05) as served:
        yield served


def test_a_held_stream_is_kept_alive_by_comments_and_then_answered(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    comments, _, events = answer.content.partition(b"data: ")
    assert comments.count(b": waiting for the model\n\n") >= 2
    assert events.rstrip().endswith(b"data: [DONE]")


def test_the_official_sdk_reads_past_the_comments(gateway: Served) -> None:
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="unused", max_retries=0) as sdk:
        chunks = list(sdk.chat.completions.create(model="alias", messages=QUESTION, stream=True))
    assert {chunk.model for chunk in chunks} == {"alias"}
    assert chunks[-1].choices[0].finish_reason


def test_a_held_request_without_a_stream_waits_in_silence(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat())
    assert answer.status == 200
    assert answer.json()["model"] == "tiny"


def test_a_held_stream_whose_model_fails_ends_with_one_error_event(gateway: Served) -> None:
    gateway.state.coming["tiny"] = NotReady("model `tiny` failed: no such kernel")
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert answer.status == 200
    assert answer.content.count(b"data: ") == 1
    assert b"no such kernel" in answer.content
    assert b"[DONE]" not in answer.content


def test_a_held_stream_that_the_engine_refuses_ends_with_one_error_event(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True, fake={"status": 400}))
    assert answer.content.count(b"data: ") == 1
    assert b'"error"' in answer.content


COMMENT = b": waiting for the model\n\n"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(stream=True, fake={"first": 0.4})),
        ("/v1/chat/completions", chat(stream=True, model="alias", fake={"first": 0.4})),
        ("/v1/responses", {"model": "tiny", "input": "hello", "stream": True, "fake": {"first": 0.4}}),
    ],
)
def test_a_long_prompt_is_waited_for_with_comments(
    gateway: Served, engine: Path, path: str, body: dict[str, Any]
) -> None:
    gateway.change(routes={"tiny": route(engine)})
    answer = gateway.ask("POST", path, body)
    assert answer.content.count(COMMENT) >= 3
    without = answer.content.replace(COMMENT, b"")
    assert all(part.startswith((b"data: ", b"event: ")) for part in without.strip().split(b"\n\n"))


def test_a_pause_amid_an_answer_is_bridged_between_two_events(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine)})
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True, fake={"events": 3, "interval": 0.3}))
    events = answer.content.split(b"\n\n")
    assert answer.content.count(COMMENT) >= 4
    assert all(not event or event.startswith(b"data: ") or event == COMMENT.strip() for event in events)


def test_an_answer_that_is_no_stream_has_no_comments(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine)})
    assert gateway.ask("POST", "/v1/chat/completions", chat(fake={"first": 0.3})).json()["model"] == "tiny"


class Reader(socketserver.StreamRequestHandler):
    """An engine that says nothing at all before it has read the prompt, not even a status."""

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.rfile.read(length)
        time.sleep(0.4)
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: [DONE]\n\n")


def test_an_engine_that_says_nothing_until_it_has_read_the_prompt_is_bridged_too(
    gateway: Served, directory: Path
) -> None:
    where = directory / "silent.sock"
    with socketserver.UnixStreamServer(str(where), Reader) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        gateway.change(routes={"tiny": route(where)})
        answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert answer.status == 200
    assert answer.content.count(COMMENT) >= 3
    assert answer.content.endswith(b"data: [DONE]\n\n")
