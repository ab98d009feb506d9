from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.explain import Say, explain
from appliance.errors import ConfigError
from tests.config.support import loaded

TEXT = "models:\n  qwen2.5:\n    source: ./q\n    aliases: [a, b]\n    engine: {max_model_len: 1024}\n"


def test_a_value_comes_with_its_source_and_those_it_shadows() -> None:
    result = loaded(TEXT, {"APPLIANCE_MODELS__QWEN2_5__ENGINE__MAX_MODEL_LEN": "2048"})
    explanation = explain(result, "models.qwen2.5.engine.max_model_len")
    assert explanation.value == 2048
    assert explanation.origin == "environment variable APPLIANCE_MODELS__QWEN2_5__ENGINE__MAX_MODEL_LEN"
    assert explanation.shadowed == (Say("model-runner.yaml:5:14", 1024),)
    assert explanation.type == "any value"
    assert "checked against that backend" in explanation.meaning


def test_a_default_says_so() -> None:
    explanation = explain(loaded(), "memory.budget")
    assert (explanation.value, explanation.default, explanation.origin) == ("75%", "75%", "default")
    assert explanation.type == "share or size"
    assert explanation.meaning.startswith("A share of physical memory")


def test_required_fields_sections_and_list_items_are_explained() -> None:
    result = loaded(TEXT)
    assert explain(result, "models.qwen2.5.source").required
    assert explain(result, "models.qwen2.5").meaning.startswith("One model")
    assert explain(result, "models.qwen2.5.aliases[1]").value == "b"
    assert explain(result, "models.qwen2.5.aliases.1").origin == "model-runner.yaml:4:18"
    assert explain(result, "models.qwen2.5.engine.dtype").value is None
    assert explain(result, "models.qwen2.5.idle_unload").type == "duration or null"
    assert explain(result, "auth.keys").type == "list of mappings"


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        ("server.prot", "there is no key `server.prot`", "did you mean `server.port`?"),
        ("models.qwen2.6.source", "there is no key `models.qwen2`", "did you mean `models.qwen2.5`?"),
        ("models.qwen2.5.aliases[7]", "there is no key `models.qwen2.5.aliases[7]`", None),
        ("models.qwen2.5.aliases.x", "there is no key `models.qwen2.5.aliases.x`", None),
        ("server.port.x", "there is no key `server.port.x`", None),
        ("zzz", "there is no key `zzz`", "known here: version, profile, backend"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(key: str, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        explain(loaded(TEXT), key)
    assert caught.value.message == message
    assert (caught.value.hint or "").startswith(hint or "")


def test_explain_has_an_answer_for_every_field_there_is() -> None:
    from appliance.config import fields

    result = loaded("backends: {x: {command: [a]}}\nmodels: {x: {source: s, adapters: [{name: n, source: s}]}}\n")
    for path, _ in fields.every_field():
        if path[:2] != ("auth", "keys") or len(path) == 2:
            key = ".".join(
                "0" if part == "*" and path[2:3] == ("adapters",) and at == 3 else str(part)
                for at, part in enumerate(path)
            )
            explanation = explain(result, key.replace("*", "x"))
            assert explanation.meaning, path
            assert explanation.type, path


def test_a_profile_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("server: {port: 5}\n")
    result = loaded("profile: p.yaml\n" + TEXT, path=tmp_path / "model-runner.yaml")
    assert explain(result, "server.port").origin == f"profile p.yaml ({tmp_path / 'p.yaml'}:1:10)"
