from __future__ import annotations

from typing import Any

import pytest
import yaml

from appliance.config.edit import add_key, remove_key

ENTRY = {"name": "laptop", "sha256": "0" * 64, "models": ["smol*"]}

PLAIN = "# first\nversion: 1  # one\nmodels:\n  m: {source: 'pypi:x==1'}  # mine\n# last\n"
AUTH = "auth:\n  # the family's\n  keys:\n    - name: phone\n      sha256: '1'\n    # after\n\nversion: 1\n# last\n"
OUTDENTED = "auth:\n  keys:\n  - name: phone\n    sha256: '1'\nversion: 1\n"
FLOW = "version: 1\nauth: {keys: [{name: phone, sha256: '1'}]}  # inline\n"
EMPTY = "auth:\n  keys: []\nversion: 1\n"


def names(text: str) -> list[str]:
    document: Any = yaml.safe_load(text)
    return [key["name"] for key in (document.get("auth") or {}).get("keys", [])]


@pytest.mark.parametrize("text", [PLAIN, AUTH, OUTDENTED, FLOW, EMPTY, PLAIN.rstrip("\n")])
def test_a_key_is_added_beside_what_is_there_and_no_comment_is_lost(text: str) -> None:
    added = add_key(text, ENTRY)
    assert names(added) == [*names(text), "laptop"]
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert [comment for comment in comments if comment not in added] == []


@pytest.mark.parametrize("text", [PLAIN, AUTH, OUTDENTED])
def test_removing_an_added_key_gives_the_text_back(text: str) -> None:
    assert remove_key(add_key(text, ENTRY), "laptop") == text


def test_removing_the_last_key_removes_the_empty_section() -> None:
    assert remove_key(OUTDENTED, "phone") == "version: 1\n"


def test_removing_in_flow_style_keeps_the_rest() -> None:
    both = add_key(FLOW, ENTRY)
    assert names(remove_key(both, "phone") or "") == ["laptop"]


def test_a_hash_that_looks_like_a_number_is_quoted() -> None:
    digits = "1" * 30 + "e" + "2" * 33
    assert f'"{digits}"' in add_key(PLAIN, ENTRY | {"sha256": digits})


def test_a_name_that_is_not_there_is_none() -> None:
    assert remove_key(AUTH, "nobody") is None
    assert remove_key(PLAIN, "nobody") is None
