"""Media by URL: the engine would fetch it, from this machine's side of every firewall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import RequestError
from appliance.gateway.media import check
from tests.gateway.served import Served, chat
from tests.gateway.test_streaming import stats

METADATA = "http://169.254.169.254/latest/meta-data"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, *parts]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", user({"type": "image_url", "image_url": {"url": METADATA}})),
        ("/v1/chat/completions", user({"image_url": METADATA})),  # a shorthand of vLLM's
        ("/v1/chat/completions", user({"type": "video_url", "video_url": {"url": METADATA}})),
        ("/v1/chat/completions", user({"type": "audio_url", "audio_url": {"url": METADATA}})),
        ("/v1/chat/completions", user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})),
        ("/v1/chat/completions", user({"type": "image_url", "image_url": {"url": "/etc/passwd"}})),
        ("/v1/chat/completions", user({"type": "image_url", "image_url": {"url": f" {METADATA}"}})),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": METADATA}]}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": METADATA}]}]}),
        (
            "/v1/responses",
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": METADATA}],
                    }
                ]
            },
        ),
        ("/v1/embeddings", user({"type": "image_url", "image_url": {"url": METADATA}})),
    ],
)
def test_a_url_is_refused_and_no_engine_sees_it(gateway: Served, engine: Path, path: str, body: dict[str, Any]) -> None:
    before = stats(engine)["requests"]
    answer = gateway.ask("POST", path, {"model": "tiny", **body})
    assert (answer.status, answer.error()["code"]) == (400, "media_url_refused")
    assert "server.media_domains" in answer.error()["message"]
    assert stats(engine)["requests"] == before


def test_data_passes_and_so_does_a_listed_host(gateway: Served, engine: Path) -> None:
    def ask(url: str) -> int:
        return gateway.ask(
            "POST", "/v1/chat/completions", chat(**user({"type": "image_url", "image_url": {"url": url}}))
        ).status

    tiny = gateway.state.table.routes["tiny"]
    assert tiny is not None
    assert ask(PIXEL) == 200
    gateway.change(routes={"tiny": replace(tiny, media_domains=("images.example",))})
    assert ask("https://images.example/cat.png?size=1") == 200
    assert ask("https://images.example:8443/cat.png") == 200
    assert ask("https://IMAGES.example/cat.png") == 200
    assert ask("https://evil.example/cat.png") == 400


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example@evil.example/",
        "https://images.example\\@evil.example/",
        "https://images.example\t.evil.example/",
        "https://evil.example/?https://images.example/",
        "https://images.example.evil.example/",
        "https://evil.example#images.example",
        "https:images.example/",
        "https://[::1]/images.example",
        "https://[images.example",
        "ftp://images.example/a",
        "//images.example/a",
        "",
        "https://images.example/ä",
    ],
)
def test_a_host_is_not_found_where_it_is_not(url: str) -> None:
    with pytest.raises(RequestError):
        check(user({"type": "image_url", "image_url": {"url": url}}), ("images.example",))


def test_what_only_looks_like_a_part_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"image_url": {"type": "string", "examples": [METADATA]}}}
    check(
        {
            "messages": [{"role": "user", "content": f"see {METADATA}"}, {"role": "tool", "content": METADATA}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "image_url": METADATA}}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
            "metadata": {"image_url": METADATA},
        },
        (),
    )
