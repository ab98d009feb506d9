"""Each client's own shape, also for what no route has heard of."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.models import Limits
from appliance.errors import RequestError
from appliance.gateway.answers import Events
from appliance.gateway.errors import Dialect, render, render_event
from tests.gateway.served import Served, key, route
from tests.support import wait_until

STREAM = (
    b': a comment\n\ndata: {"a": 1}\n\nevent: named\r\ndata:{"b": 2}\r\n\r\ndata: one\ndata: two\n\ndata: [DONE]\n\n'
)
EVENTS = [b'{"a": 1}', b'{"b": 2}', b"one\ntwo", b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_found_however_the_bytes_are_cut(cuts: list[int]) -> None:
    events = Events()
    edges = [0, *sorted(cuts), len(STREAM)]
    assert [event for a, b in itertools.pairwise(edges) for event in events.feed(STREAM[a:b])] == EVENTS


def test_an_unfinished_event_is_none_yet() -> None:
    events = Events()
    assert events.feed(b'data: {"a"') == []
    assert events.feed(b": 1}\n") == []
    assert events.feed(b"\n") == [b'{"a": 1}']


@pytest.mark.parametrize("path", ["/anthropic/v1/nothing", "/v1/messages/batches", "/v1/complete/x", "/v1/anthropic/x"])
def test_an_unknown_path_of_anthropics_is_answered_in_its_shape(gateway: Served, path: str) -> None:
    answer = gateway.ask("POST", path, {})
    assert answer.status == 404
    assert answer.json()["type"] == "error"
    assert answer.error()["type"] == "not_found_error"
    assert answer.json()["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]


def test_an_unknown_path_of_ollamas_is_answered_in_its_shape(gateway: Served) -> None:
    answer = gateway.ask("POST", "/api/nothing", {})
    assert answer.status == 404
    assert answer.json() == {"error": "there is no `/api/nothing` here"}


def test_an_unknown_path_of_dockers_is_answered_in_plain_text(gateway: Served) -> None:
    answer = gateway.ask("GET", "/engines/nothing")
    assert answer.status == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == b"there is no `/engines/nothing` here\n"


@pytest.mark.parametrize(
    ("status", "sent", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (405, 405, "invalid_request_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
    ],
)  # fmt: skip
def test_anthropics_error_types_follow_the_status(status: int, sent: int, kind: str) -> None:
    got, headers, body = render("anthropic", RequestError("m", status=status, retry_after=3), "req_1")
    assert got == sent
    assert (b"retry-after", b"3") in headers
    shape = {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"}
    assert json.loads(body) == shape


@pytest.mark.parametrize(
    ("dialect", "whole", "cut"),
    [("openai", b"x\n\n", b"x"), ("anthropic", b"x\n\n", b"x\n"), ("ollama", b"{}\n", b"{}")],
)
def test_an_error_event_stays_whole_after_one_that_was_cut(dialect: Dialect, whole: bytes, cut: bytes) -> None:
    error = RequestError("m", status=500)
    event = render_event(dialect, error, "req_1", last=whole)
    assert render_event(dialect, error, "req_1", last=cut).lstrip(b"\n") == event
    assert render_event(dialect, error, "req_1", last=cut).startswith(b"\n")
    assert event.startswith({"openai": b"data: {", "anthropic": b"event: error\ndata: {", "ollama": b"{"}[dialect])


HELLO = [{"role": "user", "content": "hello there"}]
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"messages": HELLO, "max_tokens": 50}),
    ("/v1/complete", {"prompt": "hello there", "max_tokens": 50}),
    ("/api/chat", {"messages": HELLO}),
    ("/api/generate", {"prompt": "hello there"}),
    ("/api/embed", {"input": ["hello", "there"]}),
    ("/engines/v1/chat/completions", {"messages": HELLO}),
]


@pytest.mark.parametrize(("path", "body"), ASKED)
@pytest.mark.parametrize("stream", [True, False])
def test_every_dialect_is_metered_by_the_engines_own_count(
    gateway: Served, path: str, body: dict[str, Any], stream: bool
) -> None:
    limits = Limits(tokens_per_minute=1000, requests_per_minute=10)
    gateway.change(keys=(key("one", "sk-one", limits=limits),))
    answer = gateway.ask("POST", path, {"model": "tiny", "stream": stream, **body}, {"x-api-key": "sk-one"})
    assert answer.status == 200
    (line,) = wait_until(gateway.lines)
    assert line["prompt_tokens"] == 2
    assert line["completion_tokens"] == (0 if path == "/api/embed" else 5)
    assert (line["model"], line["path"]) == ("tiny", path)


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/v1/messages", {"messages": HELLO, "max_tokens": 5}, {"type", "error", "request_id"}),
        ("/api/chat", {"messages": HELLO}, {"error"}),
        ("/engines/v1/chat/completions", {"messages": HELLO}, {"error"}),
    ],
)
def test_a_limit_is_a_429_in_the_callers_shape(
    gateway: Served, path: str, body: dict[str, Any], shape: set[str]
) -> None:
    gateway.change(keys=(key("one", "sk-one", limits=Limits(requests_per_minute=1)),))
    statuses = []
    for _ in range(2):
        answer = gateway.ask("POST", path, {"model": "tiny", **body}, {"x-api-key": "sk-one"})
        statuses.append(answer.status)
    assert statuses == [200, 429]
    assert set(answer.json()) == shape
    assert int(answer.headers["retry-after"]) > 0


def test_a_limit_beyond_the_context_is_one_request_to_the_limits(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one", limits=Limits(requests_per_minute=1)),))
    asked = [{"role": "user", "content": f"fake:{json.dumps({'context': 4096})}"}]
    body = {"model": "tiny", "messages": asked, "max_tokens": 9000}
    assert gateway.ask("POST", "/v1/messages", body, {"x-api-key": "sk-one"}).status == 200


def test_media_is_fetched_only_from_the_hosts_of_the_file(gateway: Served, engine: Path) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/latest"}}
    body = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": [image]}]}
    refused = gateway.ask("POST", "/v1/messages", body)
    assert (refused.status, refused.error()["type"]) == (400, "invalid_request_error")
    assert "server.media_domains" in refused.error()["message"]
    gateway.change(routes={"tiny": replace(route(engine), media_domains=("169.254.169.254",))})
    assert gateway.ask("POST", "/v1/messages", body).status == 200
