"""The pure parts: renaming, engine errors, keys, binding."""

from __future__ import annotations

import itertools
import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Conflict
from appliance.gateway.errors import from_engine, redact
from appliance.gateway.keys import digest, new_key
from appliance.gateway.rename import rename
from appliance.gateway.server import bind
from appliance.gateway.whole_lines import WholeLines

STREAM = (
    b'data: {"id":"1","model":"tiny","text":"\\"model\\":\\"tiny\\""}\n\n'
    b'data: {"model": "tiny"}\r\n\r\n'
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_name_is_replaced_however_the_bytes_are_cut(cuts: list[int]) -> None:
    renamed = WholeLines(rename("tiny", 'al"ias'))
    edges = [0, *sorted(cuts), len(STREAM)]
    out = b"".join(renamed.feed(STREAM[a:b]) for a, b in itertools.pairwise(edges)) + renamed.flush()
    expected = STREAM.replace(b'"model":"tiny",', b'"model":"al\\"ias",').replace(
        b'{"model": "tiny"}', b'{"model": "al\\"ias"}'
    )
    assert out == expected


def test_whole_events_are_not_held_back() -> None:
    renamed = WholeLines(rename("tiny", "alias"))
    assert renamed.feed(b'data: {"model":"tiny"}\n\ndata: {"mod') == b'data: {"model":"alias"}\n\n'
    assert renamed.feed(b'el":"tiny"}\n\n') == b'data: {"model":"alias"}\n\n'


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, {"error": {"message": "m", "type": "BadRequestError", "code": 400}}, "invalid_request_error", None),
        (404, {"error": {"message": "m", "type": "NotFoundError", "code": 404}}, "invalid_request_error", None),
        (404, {"detail": "Not Found"}, "invalid_request_error", "unsupported_endpoint"),
        (400, {"error": {"message": "m", "param": "input_tokens"}}, "invalid_request_error", "context_length_exceeded"),
        (422, {"detail": [{"loc": ["body"]}]}, "invalid_request_error", None),
        (429, {"error": "slow down"}, "rate_limit_error", None),
        (500, {"error": {"message": "m", "code": 500}}, "server_error", "engine_failed"),
        (503, "no JSON", "server_error", "engine_failed"),
        (401, {"error": "Unauthorized"}, "server_error", "engine_failed"),
    ],
)  # fmt: skip
def test_an_engines_error_gets_openais_words(status: int, body: object, kind: str, code: str | None) -> None:
    sent = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = from_engine(status, sent, model="tiny", path="/v1/embeddings", retry_after=None)
    assert (error.type, error.code) == (kind, code)
    assert error.message
    assert error.retry_after == (1 if status == 503 else None)


def test_paths_of_this_machine_are_cut_to_their_last_part_and_urls_kept() -> None:
    assert redact("no file /home/me/.cache/model.bin here") == "no file …/model.bin here"
    assert redact("see https://example.org/a/b/c and /v1/chat/completions") == (
        "see https://example.org/a/b/c and /v1/chat/completions"
    )


def test_a_new_key_is_long_recognisable_and_matches_its_hash() -> None:
    clear, sha256 = new_key()
    assert clear.startswith("sk-appliance-")
    assert len(clear) > 50
    assert digest(clear.encode()) == sha256
    assert new_key()[0] != clear


def test_a_port_in_use_is_refused_with_who_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            bind("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in caught.value.message
    assert str(os.getpid()) in caught.value.message
    assert "server.port" in (caught.value.hint or "")


def test_a_host_that_is_not_this_machine_is_refused() -> None:
    with pytest.raises(Conflict, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)
