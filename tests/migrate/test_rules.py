"""The rules account for everything that vLLM, llama-server and Docker Model Runner can be told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from appliance.engines import vllm_arguments
from appliance.migrate.flags import llama_server_flags, llama_server_variables, vllm_flag
from appliance.migrate.rules import LEVELS, find_rule, shipped_migrations, vocabularies, vocabulary
from appliance.migrate.transforms import TRANSFORMS

ROOT = Path(__file__).parent.parent.parent
LISTS = shipped_migrations() / "lists"
EVERY_RULE = [(words.name, name, rule) for words in vocabularies() for name, rule in words.rules.items()]


def listed(name: str) -> list[str]:
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def without_a_rule(names: list[str]) -> list[str]:
    return [name for name in names if vocabulary("vllm-flags").rule(name) is None]


def test_every_argument_of_vllm_has_a_rule() -> None:
    names = list(vllm_arguments.arguments())
    assert len(names) > 300
    assert without_a_rule(names) == []


@pytest.mark.engine
def test_every_argument_of_the_installed_vllm_has_a_rule(engine_python: Path) -> None:
    extract = [str(engine_python), str(ROOT / "tools" / "extract_vllm_arguments.py")]
    printed = subprocess.run(extract, capture_output=True, text=True, check=True, timeout=300).stdout
    names = list(json.loads(printed)["arguments"])
    assert len(names) > 300
    assert without_a_rule(names) == []


def test_every_argument_of_llama_server_has_a_rule_under_each_of_its_names() -> None:
    lines = listed("llama-server-flags")
    assert len(lines) > 250
    for line in lines:
        names = line.split("|")[0].split()
        words = {llama_server_flags()[name].word for name in names}
        assert len(words) == 1, line
        assert vocabulary("llama-server-flags").rule(words.pop()) is not None, line


def test_every_variable_of_llama_server_leads_to_its_argument() -> None:
    assert llama_server_variables()["LLAMA_ARG_CTX_SIZE"] == "--ctx-size"
    assert len(llama_server_variables()) > 130
    words = set(vocabulary("llama-server-flags").rules)
    assert set(llama_server_variables().values()) <= words


def test_every_variable_of_model_runner_has_a_rule() -> None:
    names = listed("model-runner-variables")
    assert len(names) > 50
    assert [name for name in names if name not in vocabulary("model-runner-variables").rules] == []


def test_the_lists_name_their_source() -> None:
    for file in LISTS.glob("*.txt"):
        assert "# source: https://" in file.read_text()


def test_no_rule_is_for_an_argument_that_nobody_has() -> None:
    known = {
        llama_server_flags()[name].word for line in listed("llama-server-flags") for name in line.split("|")[0].split()
    }
    assert set(vocabulary("llama-server-flags").rules) == known


@pytest.mark.parametrize(("name", "word", "rule"), EVERY_RULE, ids=[f"{name}:{word}" for name, word, _ in EVERY_RULE])
def test_a_rule_says_what_happens_and_why_in_a_sentence(name: str, word: str, rule: object) -> None:
    found = vocabulary(name).rules[word]
    assert found is rule
    assert found.level in LEVELS
    assert found.how is None or found.how in TRANSFORMS
    assert found.why.endswith(".")
    assert found.why[0].isupper() or found.why.startswith(("vLLM", "llama", "llama-server", "safetensors"))
    assert len(found.why) <= 130
    assert found.source.startswith("https://")


def test_every_transform_is_asked_for_by_a_rule() -> None:
    assert {rule.how for _, _, rule in EVERY_RULE if rule.how} == set(TRANSFORMS)


def test_an_exact_name_goes_before_a_pattern_and_the_longer_pattern_before_the_shorter() -> None:
    assert find_rule("variables", "VLLM_LOGGING_LEVEL").level == "kept"
    assert find_rule("variables", "VLLM_ROCM_USE_AITER").level == "dropped"
    assert find_rule("variables", "VLLM_SOMETHING_NEW").level == "manual"
    assert find_rule("variables", "NOBODY_KNOWS").source == ""


def test_vllm_flags_are_known_by_all_of_their_spellings() -> None:
    assert vllm_flag("--max-model-len") == vllm_flag("--max_model_len")
    no, short = vllm_flag("--no-enable-prefix-caching"), vllm_flag("-tp")
    assert no is not None
    assert (no.word, no.value) == ("enable_prefix_caching", False)
    assert short is not None
    assert short.word == "tensor_parallel_size"
    assert vllm_flag("--no-such-thing") is None
