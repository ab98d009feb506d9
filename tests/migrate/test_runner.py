"""`--from-runner`: a Model Runner that is up is asked what it is configured to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.migrate.golden import contents, run
from tests.migrate.runner_double import CONFIGURED, MODELS, model_runner
from tests.support import free_port


def migrated(url: str, directory: Path, *more: str) -> tuple[int, str]:
    return run(["migrate", "--from-runner", url, "--target", "m2-16gb", *more], directory, {})


def test_a_running_model_runner_becomes_a_file(tmp_path: Path) -> None:
    with model_runner() as runner:
        code, printed = migrated(runner.url, tmp_path)
    assert code == 0, printed
    assert runner.asked == ["/engines/_configure", "/models", "/engines/ps"]
    written = yaml.safe_load((tmp_path / "model-runner.yaml").read_text())["models"]
    sized = yaml.safe_load((tmp_path / "profiles" / "metal.yaml").read_text())["models"]
    assert list(written) == ["qwen3-4b", "mxbai-embed-large"]
    assert "ai/qwen3:4B" in written["qwen3-4b"]["aliases"]
    assert written["qwen3-4b"]["sampling"] == {"temperature": 0.2}
    assert sized["qwen3-4b"]["load"] == "startup"
    assert sized["qwen3-4b"]["engine"]["max_model_len"] == 8192
    assert sized["qwen3-4b"]["engine"]["default_chat_template_kwargs"] == {"enable_thinking": False}
    assert sized["mxbai-embed-large"]["engine"]["runner"] == "pooling"


def test_every_key_of_its_answers_is_in_the_report_once(tmp_path: Path) -> None:
    with model_runner() as runner:
        code, printed = migrated(runner.url, tmp_path, "--json", "--dry-run")
    assert code == 0
    keys = [row["key"] for row in json.loads(printed.partition("\nnothing was written")[0])["keys"]]
    assert len(keys) == len(set(keys))
    for name in ("context-size", "runtime-flags --temp", "runtime-flags --threads", "keep_alive", "mode", "ModelID"):
        assert f"_configure[0].{name}" in keys
    assert "_configure[0].llamacpp.reasoning-budget" in keys
    assert {f"/models[0].config.{name}" for name in MODELS[0]["config"]} <= set(keys)
    assert {"/models[0].id", "/models[0].created", "/engines/ps[0].in_use"} <= set(keys)


def test_what_was_only_pulled_is_a_model_too(tmp_path: Path) -> None:
    with model_runner({"/engines/_configure": []}) as runner:
        code, printed = migrated(runner.url, tmp_path)
    assert code == 0, printed
    assert set(yaml.safe_load((tmp_path / "model-runner.yaml").read_text())["models"]) == {
        "qwen3-4b",
        "mxbai-embed-large",
    }


def test_an_older_runner_without_ps_is_read_as_well(tmp_path: Path) -> None:
    with model_runner({"/engines/ps": None}) as runner:
        assert migrated(runner.url, tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("config", "level"),
    [
        ({"format": "gguf", "architecture": "qwen3", "quantization": "Q8_0"}, "kept"),
        ({"format": "gguf", "architecture": "qwen3moe", "quantization": "Q8_0"}, "manual"),
        ({"format": "gguf", "architecture": "qwen3", "quantization": "MXFP4"}, "manual"),
        ({"format": "safetensors", "architecture": "Qwen3MoeForCausalLM"}, "kept"),
    ],
)
def test_what_a_runner_says_of_an_artifact_counts_for_more_than_its_name(
    config: dict[str, str], level: str, tmp_path: Path
) -> None:
    models = [{"id": MODELS[0]["id"], "tags": ["team/llama3.2:1B-Q4_0"], "config": config}]
    with model_runner({"/models": models, "/engines/_configure": [], "/engines/ps": []}) as runner:
        _, printed = migrated(runner.url, tmp_path, "--json", "--dry-run")
    document = json.loads(printed.partition("\nnothing was written")[0])
    assert [row["level"] for row in document["keys"] if row["key"] == "/models[0].tags[0]"] == [level]


BAD: dict[str, Any] = {
    "no JSON": b"{not json",
    "no list": {"error": "no"},
    "numbers": [1, 2, 3],
    "other shapes": [{"Model": 7, "Config": "x"}, {"Mode": "completion"}],
    "deep": b"[" * 5000 + b"]" * 5000,
    "binary": b"\xff\xfe\x00\x01",
    "large": b'["' + b"x" * 2_000_000 + b'"]',
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
@pytest.mark.parametrize("route", ["/models", "/engines/_configure"])
def test_answers_of_other_shapes_are_refused_or_need_a_person_and_write_nothing(
    route: str, answer: Any, tmp_path: Path
) -> None:
    others: dict[str, Any] = {"/models": [], "/engines/_configure": [], "/engines/ps": []}
    with model_runner({**others, route: answer}) as runner:
        code, printed = migrated(runner.url, tmp_path)
    assert code in (0, 1, 4), printed
    assert "Traceback" not in printed
    assert contents(tmp_path) == {}


def test_a_runner_that_is_not_there_is_an_error_that_says_where(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, printed = migrated(url, tmp_path)
    assert code == 1
    assert f"{url}/engines/_configure" in printed
    assert "is Model Runner up?" in printed


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "::::"])
def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    code, printed = migrated(url, tmp_path)
    assert code == 1, printed
    assert "no address of a runner" in printed


def test_a_server_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with model_runner(status=403) as runner:
        code, printed = migrated(runner.url, tmp_path)
    assert code == 1
    assert "answered 403" in printed


def test_the_last_configuration_of_a_model_counts_for_each_mode(tmp_path: Path) -> None:
    embedding = {**CONFIGURED[0], "Mode": "embedding", "Config": {"context-size": 512}}
    with model_runner({"/engines/_configure": [*CONFIGURED, embedding], "/models": [], "/engines/ps": []}) as runner:
        code, printed = migrated(runner.url, tmp_path)
    assert code == 0, printed
    sized = yaml.safe_load((tmp_path / "profiles" / "metal.yaml").read_text())["models"]
    assert len(sized) == 2
    assert [entry["engine"].get("runner") for entry in sized.values()] == [None, "pooling"]
