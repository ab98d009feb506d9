"""What is refused and how, and what passes in which form."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.routing import Routing
from tests.gateway.served import ENGINE_KEY, FakePort, Served, chat, key, raw_post, route, serve
from tests.gateway.test_streaming import stats

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b'{"model": NaN}', None, "NaN"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b"[" * 200_000, None, "nested too deeply"),
        (b'{"model": "tiny", "n": ' + b"1" * 5000 + b"}", None, "not valid JSON"),
        (b'{"model": "tiny", "temperature": 1e400}', None, "1e400 is too large"),
        (b'{"model": "other", "model": "tiny"}', None, "`model` is there twice"),
        (b'{"model": "tiny", "messages": [{"\\u0061": 1, "a": 2}]}', None, "`a` is there twice"),
        (b"[1]", None, "must be a JSON object"),
        (b"{}", "model", "`model` is missing"),
        (b'{"model": null}', "model", "`model` is missing"),
        (b'{"model": 1}', "model", "must be a string"),
        (b'{"model": "tiny", "stream": "yes"}', "stream", "true or false"),
    ],
)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(
    gateway: Served, body: bytes, param: str | None, says: str
) -> None:
    answer = gateway.ask("POST", CHAT, body)
    error = answer.error()
    assert answer.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat", "/engines/v1/chat/completions"])
def test_a_compressed_body_is_a_415(gateway: Served, path: str) -> None:
    answer = gateway.ask("POST", path, gzip.compress(json.dumps(chat()).encode()), {"content-encoding": "gzip"})
    assert answer.status == 415
    assert b"`gzip` is not read here" in answer.content
    assert gateway.ask("POST", CHAT, chat(), {"content-encoding": "identity"}).status == 200


def test_a_body_over_the_limit_is_refused_by_its_length_alone(gateway: Served) -> None:
    with gateway.connect() as client:
        client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000000\r\n\r\n" % CHAT.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer
    assert b"connection: close" in answer


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_sent(gateway: Served) -> None:
    with gateway.connect() as client:
        client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode())
        for _ in range(17):  # just over the limit of 1 MiB, and the end never comes
            client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_passes(gateway: Served) -> None:
    data = json.dumps(chat()).encode()
    with gateway.connect() as client:
        client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode())
        client.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v2/chat", "/v1/models/", "/metrics", "/docs", "/invocations", "/v1/load_lora_adapter", "/x/y/z"],
)
def test_an_unknown_route_is_a_404_in_openais_shape(gateway: Served, path: str) -> None:
    for method in ("GET", "POST"):
        answer = gateway.ask(method, path)
        assert answer.status == 404
        assert answer.error()["message"]


def test_a_wrong_method_says_which_are_right(gateway: Served) -> None:
    for method, path, allow in (("GET", CHAT, "POST"), ("POST", "/v1/models", "GET, HEAD")):
        answer = gateway.ask(method, path)
        assert answer.status == 405
        assert answer.headers.get("allow") == allow
        assert answer.error()["code"] == "method_not_allowed"
    assert gateway.ask("HEAD", "/v1/models").status == 200


def test_a_foreign_host_or_origin_is_refused_on_loopback(gateway: Served) -> None:
    for name, value in (
        ("Host", "evil.example"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://host.docker.internal"),
    ):
        answer = gateway.ask("GET", "/v1/models", headers={name: value})
        assert (answer.status, answer.error()["code"]) == (403, "forbidden_origin")
    for name, value in (
        ("Host", f"localhost:{gateway.port}"),
        ("Host", f"host.docker.internal:{gateway.port}"),  # what containers call the machine that they are on
        ("Host", "[::1]:1"),
        ("Host", "127.0.0.2"),
        ("Origin", "http://localhost:3000"),
        ("Origin", "http://[::1]"),
    ):
        assert gateway.ask("GET", "/v1/models", headers={name: value}).status == 200


def test_any_host_is_taken_where_the_port_is_not_on_loopback(engine: Path) -> None:
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), loopback=False) as served:
        assert served.ask("GET", "/v1/models", headers={"Host": "models.example"}).status == 200


def test_a_valid_key_wins_over_a_stale_one_in_the_other_header(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"), key("two", "sk-two")))
    good, bad = "sk-two", "sk-stale"
    for bearer, x_api_key, status in ((good, bad, 200), (bad, good, 200), (None, good, 200), (bad, bad, 401)):
        headers = {"x-api-key": x_api_key} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
        assert gateway.ask("GET", "/v1/models", headers=headers).status == status


def test_a_request_without_a_key_is_told_how_to_send_one(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    answer = gateway.ask("POST", CHAT, chat())
    assert answer.status == 401
    assert answer.headers.get("www-authenticate") == "Bearer"
    assert b"x-api-key" in answer.content


def test_a_model_beyond_a_keys_globs_looks_like_none(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one", models=("oth*",)),))
    headers = {"x-api-key": "sk-one"}
    refused = gateway.ask("POST", CHAT, chat(model="tiny"), headers=headers)
    unknown = gateway.ask("POST", CHAT, chat(model="none"), headers=headers)
    for answer in (refused, unknown):
        assert (answer.status, answer.error()["code"]) == (404, "model_not_found")
    assert refused.error()["message"].replace("tiny", "none") == unknown.error()["message"]
    assert gateway.ask("POST", CHAT, chat(model="gpt-test"), headers=headers).status == 404
    listed = gateway.ask("GET", "/v1/models", headers=headers).json()
    assert [model["id"] for model in listed["data"]] == ["other"]


def test_the_engine_sees_its_own_key_and_nothing_of_the_clients(gateway: Served, engine: Path) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    headers = {
        "authorization": "Bearer sk-one",
        "x-api-key": "sk-one",
        "cookie": "session=1",
        "traceparent": "00-1",
        "x-request-id": "mine",
    }
    assert gateway.ask("POST", CHAT, chat(), headers).status == 200
    seen = stats(engine)["last_headers"]
    assert seen["authorization"] == f"Bearer {ENGINE_KEY}"
    assert seen["x-request-id"] == "mine"
    assert seen["traceparent"] == "00-1"
    assert "sk-one" not in str(seen)
    assert "cookie" not in seen


@pytest.mark.parametrize("stream", [True, False])
def test_the_answers_headers_are_the_gateways_own(gateway: Served, stream: bool) -> None:
    answer = gateway.ask("POST", CHAT, chat(stream=stream))
    names = [name.lower() for name in answer.headers]
    assert len(names) == len(set(names))
    assert "server" not in names
    assert {"date", "content-type", "x-request-id"} <= set(names)
    assert answer.headers.get("x-accel-buffering") == ("no" if stream else None)


def test_a_sane_request_id_is_kept_and_another_replaced(gateway: Served) -> None:
    assert gateway.ask("GET", "/healthz", headers={"x-request-id": "abc-1"}).headers.get("x-request-id") == "abc-1"
    for bad in ("two words", "x" * 129, "caf\xe9"):
        made = gateway.ask("GET", "/nothing", headers={"x-request-id": bad}).headers.get("x-request-id")
        assert made is not None
        assert made.startswith("req_")


def test_the_body_passes_as_it_came_unless_something_must_change(gateway: Served, engine: Path) -> None:
    spaced = b'{ "model" : "tiny",  "messages": [ {"role":"user", "content":"h\\u00e9"} ] }'
    with gateway.connect() as client:
        client.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(spaced), spaced)
        )
        client.recv(65536)
    assert stats(engine)["last_headers"]["content-length"] == str(len(spaced))


@pytest.mark.parametrize(
    ("path", "request_", "sent"),
    [
        (CHAT, {}, {"temperature": 0.5, "max_tokens": 9}),
        (CHAT, {"temperature": 0}, {"temperature": 0, "max_tokens": 9}),
        (CHAT, {"max_completion_tokens": 3}, {"temperature": 0.5, "max_completion_tokens": 3}),
        (CHAT, {"temperature": None}, {"temperature": 0.5, "max_tokens": 9}),
        ("/v1/responses", {}, {"temperature": 0.5, "max_output_tokens": 9, "store": False}),
        ("/v1/responses", {"max_output_tokens": 2}, {"temperature": 0.5, "max_output_tokens": 2, "store": False}),
        ("/v1/embeddings", {}, {}),
    ],
)
def test_sampling_defaults_fill_in_where_the_request_is_silent(
    engine: Path, path: str, request_: dict[str, Any], sent: dict[str, Any]
) -> None:
    table = Routing(routes={"tiny": route(engine, temperature=0.5, max_tokens=9)})
    body = chat(input="hello", **request_)
    with serve(FakePort(table)) as served:
        assert served.ask("POST", path, body).status == 200
    assert stats(engine)["last_body"] == {**chat(input="hello"), **sent}


def test_a_route_that_the_engine_lacks_is_said_to_be_missing_there(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine, served="tiny"), "other": route(engine, "other", "wrong")})
    answer = gateway.ask("POST", CHAT, chat(model="other"))
    error = answer.error()
    assert (answer.status, error["code"], error["param"]) == (404, None, "model")


def test_an_engine_that_refuses_the_appliance_is_the_appliances_fault(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": replace(route(engine), key="stale")})
    answer = gateway.ask("POST", CHAT, chat())
    assert (answer.status, answer.error()["code"]) == (502, "engine_failed")


def test_live_is_always_yes_and_ready_counts_without_naming(gateway: Served) -> None:
    assert gateway.ask("GET", "/healthz").status == 200
    answer = gateway.ask("GET", "/readyz")
    assert answer.status == 503
    assert answer.json()["waiting"] == ["other"]
    gateway.change(keys=(key("one", "sk-one"),))
    anonymous = gateway.ask("GET", "/readyz").json()
    assert anonymous == {"status": "not ready", "models": 2, "ready": 1}
    gateway.state.load["other"] = "on_demand"
    assert gateway.ask("GET", "/readyz").status == 200


def test_every_request_is_one_line_without_keys_or_prompts(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    headers = {"authorization": "Bearer sk-one", "x-api-key": "sk-stale", "x-request-id": "mine"}
    gateway.ask("POST", CHAT, chat(stream=True), headers)
    gateway.ask("POST", CHAT, chat(model="none"), headers)
    gateway.ask("POST", CHAT, chat(), {"authorization": "Bearer sk-wrong"})
    gateway.ask("GET", "/v1/models?api_key=sk-one", headers=headers)
    first, second, third, _ = gateway.lines()
    assert (
        first.items()
        >= {
            "model": "tiny",
            "revision": "rev-1",
            "key": "one",
            "status": 200,
            "request_id": "mine",
            "path": CHAT,
        }.items()
    )
    assert first["bytes"] > 0
    assert 0 < first["first_byte_ms"] <= first["duration_ms"]
    assert (second["status"], second["error"]) == (404, "model_not_found")
    assert (third["status"], third["error"]) == (401, "invalid_api_key")
    for secret in ("sk-", ENGINE_KEY, "France"):
        assert secret not in str(gateway.log)


def test_a_bug_is_a_500_with_a_request_id_and_a_traceback_in_the_log(gateway: Served) -> None:
    gateway.change(routes={"tiny": route(None)})  # a route without an address
    answer = gateway.ask("POST", CHAT, chat())
    assert (answer.status, answer.error()["code"]) == (500, "bug")
    (line,) = [line for line in gateway.log if line["log_level"] == "error"]
    assert line["exc_info"]
    assert line["request_id"] == answer.error()["request_id"]
    assert gateway.ask("GET", "/healthz").status == 200


def test_pipelined_requests_are_answered_in_order(gateway: Served) -> None:
    with gateway.connect() as client:
        client.sendall(
            raw_post(CHAT, chat(), x_request_id="first")
            + raw_post(CHAT, chat(), x_request_id="second", connection="close")
        )
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"x-request-id: first") < received.index(b"x-request-id: second")
