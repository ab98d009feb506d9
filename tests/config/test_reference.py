from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from appliance import generated
from appliance.config import fields, reference
from appliance.config.load import load
from appliance.config.models import Strict
from appliance.config.positions import parse
from appliance.config.profiles import profile_names, shipped_profiles
from appliance.config.validation import REQUIRED, findings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "model-runner.yaml"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = reference.schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def example() -> dict[str, Any]:
    return parse(EXAMPLE.read_text(), str(EXAMPLE)).data


def test_the_committed_schema_and_reference_are_up_to_date() -> None:
    assert generated.stale(reference.outputs(), ROOT) == []


def test_the_example_loads_and_its_schema_line_names_the_schema() -> None:
    loaded = load(EXAMPLE, environ={}, backends=frozenset({"vllm"}))
    assert "smollm2" in loaded.appliance.models
    assert EXAMPLE.read_text().splitlines()[0] == "# yaml-language-server: $schema=./model-runner.schema.json"


def test_what_the_example_shows_commented_out_is_valid_too() -> None:
    lines = []
    for line in EXAMPLE.read_text().splitlines()[5:]:
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("# "):
            line = line[:indent] + line.lstrip()[2:]
        lines.append(line.replace('"…"', f'"{"0" * 64}"').replace("~/.cache/huggingface/token", "/dev/null"))
    document = parse("\n".join(lines), "uncommented")
    assert document.problems == ()
    assert set(document.data) >= {"auth", "memory", "huggingface", "backends"}
    assert list(findings(document.data, {})) == []


def test_the_schema_accepts_the_example_and_its_own(validator: Draft202012Validator) -> None:
    validator.validate(example())
    for value in reference.schema()["examples"]:
        validator.validate(value)


@pytest.mark.parametrize(
    "change",
    [
        {"prot": 1},
        {"server": {"prot": 1}},
        {"server": {"port": "8000"}},
        {"server": {"port": 70000}},
        {"version": 2},
        {"models": {"a": {}}},
        {"models": {"a/b": {"source": "x"}}},
        {"models": {"a": {"source": "x", "engin": {}}}},
        {"models": {"a": {"source": "x", "load": "lazy"}}},
        {"models": {"a": {"source": "x", "idle_unload": 10}}},
        {"models": {"a": {"source": "x", "rollout": {"strategy": "surg"}}}},
        {"memory": {"budget": "lots"}},
        {"auth": {"keys": [{"name": "a", "sha256": "short"}]}},
        {"backends": {"own": {"command": []}}},
        {"metal": {"device": "tpu"}},
    ],
)
def test_the_schema_refuses_what_load_refuses(validator: Draft202012Validator, change: dict[str, Any]) -> None:
    broken = {**example(), **change}
    assert list(validator.iter_errors(broken))
    assert list(findings(broken, {}))


def test_every_field_has_a_meaning() -> None:
    silent = [path for path, place in fields.every_field() if not place.meaning]
    assert silent == []


def test_every_section_is_strict() -> None:
    sections = {fields.section_of(place.annotation) for _, place in fields.every_field()} - {None}
    for section in sections:
        assert section is not None
        assert issubclass(section, Strict)
        assert section.model_config["extra"] == "forbid"
        assert section.model_config["frozen"] is True


def test_the_reference_has_every_key() -> None:
    text = reference.reference_markdown()
    for path, _ in fields.every_field():
        assert f"| `{path[-1]}` |" in text


def test_write_brings_up_to_date_what_check_complains_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path)]
    assert reference.main(["--check", *root]) == 1
    assert "hint: run `python -m appliance.config.reference --write`" in capsys.readouterr().err
    assert reference.main(["--write", *root]) == 0
    assert reference.main(["--check", *root]) == 0
    (tmp_path / "docs" / "reference" / "config.md").write_text("edited by hand")
    assert reference.main(["--check", *root]) == 1
    assert "`docs/reference/config.md` is out of date" in capsys.readouterr().err


def test_the_command_that_check_names_exists() -> None:
    command = [sys.executable, *reference.WRITE.split()[1:-1], "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_is_valid_and_adds_no_model_without_a_source(name: str) -> None:
    document = parse((shipped_profiles() / f"{name}.yaml").read_text(), name)
    assert document.problems == ()
    assert [found for found in findings(document.data, {}) if found[1] != REQUIRED] == []
    # A model that only a profile mentions would have no source, and its error would surprise whoever named the profile.
    assert all("source" in model for model in document.data.get("models", {}).values())


def test_the_example_reads_the_same_with_yamls_own_loader() -> None:
    assert yaml.safe_load(EXAMPLE.read_text()) == example()
