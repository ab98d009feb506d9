from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import fields
from appliance.config.dump import to_plain
from appliance.config.explain import explain
from appliance.config.problems import InvalidConfig
from appliance.config.scalars import MASK, SecretText
from tests.config.support import loaded

TEXT = """
models:
  m:
    source: ./m
    engine: {api_key: literal}
    env:
      WHOLE: ${env:NAME}
      FILE: ${file:secret.txt}
      PART: Bearer ${env:NAME}
      PLAIN: literal
      ESCAPED: a$${b}
backends:
  own: {command: [own], env: {K: "${env:NAME}"}}
huggingface: {token: "${env:NAME}"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("from a file\n")
    return tmp_path / "model-runner.yaml"


def test_references_are_replaced_by_what_they_refer_to(path: Path) -> None:
    appliance = loaded(TEXT, {"NAME": "s3cret"}, path=path).appliance
    env = {name: value.get_secret_value() for name, value in appliance.models["m"].env.items()}
    assert env == {
        "WHOLE": "s3cret",
        "FILE": "from a file",
        "PART": "Bearer s3cret",
        "PLAIN": "literal",
        "ESCAPED": "a${b}",
    }
    assert appliance.backends["own"].env["K"].get_secret_value() == "s3cret"
    assert appliance.huggingface.token == SecretText("s3cret")


def test_secrets_are_in_no_output(path: Path) -> None:
    result = loaded(TEXT, {"NAME": "s3cret"}, path=path)
    plain = to_plain(result.appliance)
    assert plain["models"]["m"]["env"] == {
        "WHOLE": "${env:NAME}",
        "FILE": "${file:secret.txt}",
        "PART": MASK,
        "PLAIN": MASK,
        "ESCAPED": MASK,
    }
    shown = [repr(result), str(plain), str(explain(result, "models.m")), result.appliance.model_dump_json()]
    assert "s3cret" not in "".join(shown)
    assert "from a file" not in "".join(shown)
    assert "literal" not in "".join([str(plain), str(explain(result, "models.m"))])


def test_a_secret_file_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "token").write_text("deep")
    (tmp_path / "deep" / "p.yaml").write_text("huggingface: {token: '${file:token}'}\n")
    text = "profile: deep/p.yaml\nmodels: {m: {source: x}}\n"
    token = loaded(text, path=tmp_path / "model-runner.yaml").appliance.huggingface.token
    assert token is not None
    assert token.get_secret_value() == "deep"


@pytest.mark.parametrize("content", [b"\xff", b"x" * 2_000_000])
def test_a_secret_file_that_is_no_small_text_is_a_problem(path: Path, content: bytes) -> None:
    (path.parent / "secret.txt").write_bytes(content)
    with pytest.raises(InvalidConfig, match="cannot be read as text"):
        loaded(TEXT, {"NAME": "x"}, path=path)


def test_every_secret_field_is_known_as_one() -> None:
    for path, place in fields.every_field():
        item = fields.item_of(place.annotation)
        if fields.unwrap(place.annotation) is SecretText:
            assert fields.is_secret(path)
        if item is not None and fields.unwrap(item) is SecretText:
            assert fields.is_secret((*path, "ANY"))
