from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.config.load import interpret
from appliance.config.models import Appliance
from appliance.config.problems import InvalidConfig
from appliance.config.validation import Finding
from tests.config.support import FILE, HASH, MODEL, loaded


def messages(text: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        loaded(text)
    return [problem.message for problem in caught.value.problems]


def test_a_loopback_address_needs_no_key_and_any_other_is_content_with_one() -> None:
    key = f"auth: {{keys: [{{name: a, sha256: {HASH}}}]}}"
    assert loaded(f"server: {{host: '::1'}}\n{MODEL}").appliance.auth.keys == ()
    assert loaded(f"server: {{host: '::'}}\n{key}\n{MODEL}").appliance.server.host == "::"


def test_a_rule_says_nothing_about_what_a_broken_value_may_have_caused() -> None:
    assert messages("models: {a/b: {source: x}}") == [
        "not a name: letters, digits, `.`, `_` and `-`, a letter or digit first, at most 63"
    ]
    assert messages(f"backend: own\nbackends: {{own: {{}}}}\n{MODEL}") == ["required"]
    assert len(messages("server: {host: '::'}\nauth: {keys: [{name: a}]}\n" + MODEL)) == 1


def test_a_rule_about_a_list_waits_until_the_list_counts_as_written() -> None:
    keys = f"{{name: a}}, {{name: b, sha256: {HASH}}}, {{name: b, sha256: {HASH}}}"
    assert messages(f"auth: {{keys: [{keys}]}}\n{MODEL}") == ["required"]


def test_rules_go_on_past_each_other() -> None:
    text = "backend: x\nserver: {host: '::'}\nbackends: {vllm: {command: [a]}}\nmodels: {a: {source: s, backend: y}}\n"
    assert len(messages(text)) == 4


def test_backends_are_not_checked_where_nobody_says_which_there_are() -> None:
    assert interpret("backend: any\n" + MODEL, FILE, environ={}).appliance.backend == "any"


def test_the_callers_check_is_spared_models_whose_backend_does_not_exist() -> None:
    seen: list[str] = []

    def check(appliance: Appliance) -> Iterator[Finding]:
        seen.extend(appliance.models)
        return iter(())

    with pytest.raises(InvalidConfig):
        loaded("models: {a: {source: s}, b: {source: s, backend: nope}}\n", check=check)
    assert seen == ["a"]
