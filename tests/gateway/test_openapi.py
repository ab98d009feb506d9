"""The document of the gateway's surface tells the truth about it."""

from __future__ import annotations

from typing import Any, cast

import jsonschema
import pytest

from appliance.gateway.activity import Activity
from appliance.gateway.admin import Control, create_admin_app
from appliance.gateway.openapi import BENEATH, OPERATIONS, document, operations
from appliance.gateway.reference import surface
from tests.gateway.served import Served, key


def test_every_route_is_documented_and_nothing_else() -> None:
    found = {(method, path) for method, path, _ in operations(surface())}
    documented = {
        (method.upper(), path) for path, methods in document(surface())["paths"].items() for method in methods
    }
    assert documented == found
    assert {each for each in OPERATIONS if each not in found} == set()


def test_what_is_said_to_be_beneath_the_admin_path_is_there() -> None:
    app: Any = create_admin_app(cast("Control", None), Activity())
    routed = {(method, route.path.replace(":int", "")) for route in app.routes for method in route.methods - {"HEAD"}}
    assert set(BENEATH["/admin/v1/*"]) == routed


def test_the_document_needs_no_key_and_names_no_model(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-one"),))
    answer = gateway.ask("GET", "/openapi.json")
    assert answer.status == 200
    assert answer.json()["openapi"] == "3.1.0"
    assert b"tiny" not in answer.content


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/models", None, 200),
        ("GET", "/v1/models/nobody", None, 404),
        ("GET", "/v1/responses/resp_none", None, 404),
        ("POST", "/v1/models", None, 405),
        ("POST", "/v1/chat/completions", {"messages": []}, 400),
        ("POST", "/v1/chat/completions", {"model": "nobody", "messages": []}, 404),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": "a"}, 200),
        ("POST", "/v1/audio/transcriptions", {"model": "tiny"}, 400),
        ("GET", "/openapi.json", None, 200),
        ("GET", "/nowhere", None, 404),
    ],
)
def test_answers_are_as_the_document_has_them(gateway: Served, method: str, path: str, body: Any, status: int) -> None:
    answer = gateway.ask(method, path, body)
    assert answer.status == status
    described = gateway.ask("GET", "/openapi.json").json()
    if status >= 400:
        jsonschema.validate(answer.json(), {**described["components"]["schemas"]["Error"]})
