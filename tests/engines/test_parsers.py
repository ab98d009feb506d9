from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.driver import Template
from appliance.engines.parsers import FALLBACK, REASONING, TOOLS, capabilities, choose
from appliance.models.template import template

# What publishers' templates have in them, cut down to the parts that tell one format from another.
CHATML = "{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>'}}"
QWEN25 = CHATML + '<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>'
QWEN3 = QWEN25 + "{% if enable_thinking is false %}<think>\\n\\n</think>{% endif %}"
QWEN3_CODER = CHATML + "<tool_call>\\n<function=example>\\n<parameter=x>\\n"
QWQ = QWEN25 + "{{'<|im_start|>assistant\\n<think>\\n'}}{{ content.split('</think>') }}"
QWEN3_INSTRUCT_THAT_STRIPS = QWEN25 + "{{ content.split('</think>')[-1] }}"
LLAMA3 = '{"name": function name, "parameters": dictionary of argument name and its value}. <|python_tag|>'
MISTRAL = "[AVAILABLE_TOOLS][TOOL_CALLS]"
MAGISTRAL = MISTRAL + "[THINK]"
DEEPSEEK_V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\\n```json\\n"
DEEPSEEK_R1 = DEEPSEEK_V3 + "<｜Assistant｜><think>\\n"
DEEPSEEK_V31 = "{% if thinking %}<｜Assistant｜><think></think><｜tool▁calls▁begin｜><｜tool▁sep｜>"
GLM = "[gMASK]<sop><tool_call>{name}<arg_key>k</arg_key><arg_value>v</arg_value><think></think>"
KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>"


@pytest.mark.parametrize(
    ("text", "model_type", "tools", "reasoning"),
    [
        (QWEN25, "qwen2", "hermes", None),
        (QWEN3, "qwen3", "hermes", "qwen3"),
        (QWEN3_CODER, "qwen3_moe", "qwen3_coder", None),
        (QWQ, "qwen2", "hermes", "qwen3"),
        (QWEN3_INSTRUCT_THAT_STRIPS, "qwen3", "hermes", None),
        (LLAMA3, "llama", "llama3_json", None),
        (MISTRAL, "mistral", "mistral", None),
        (MAGISTRAL, "mistral3", "mistral", "mistral"),
        (DEEPSEEK_V3, "deepseek_v3", "deepseek_v3", None),
        (DEEPSEEK_R1, "deepseek_v3", "deepseek_v3", "deepseek_r1"),
        (DEEPSEEK_V31, "deepseek_v3", "deepseek_v31", "deepseek_v3"),
        (GLM, "glm4_moe", "glm47", "glm45"),
        (KIMI, "kimi_k2", "kimi_k2", None),
        (KIMI + "</think>", "kimi_k2", "kimi_k2", "kimi_k2"),
        ("<|channel|>commentary", "gpt_oss", "openai", "openai_gptoss"),
        ("<|tool_call>call:f{}<tool_call|><|channel>", "gemma4", "gemma4", "gemma4"),
        ("<|start_of_role|><tool_call>", "granitemoehybrid", "granite4", None),
        ("<|start_of_role|><|tool_call|>", "granite", "granite", None),
        ("<minimax:tool_call></think>", "minimax_m2", "minimax_m2", "minimax_m2"),
        ("<seed:tool_call><seed:think>", "seed_oss", "seed_oss", "seed_oss"),
        ("<|tool_call_start|>[f()]<|tool_call_end|>", "lfm2", "lfm2", None),
        (CHATML, "llama", FALLBACK, None),
    ],
)
def test_a_template_tells_its_parsers(text: str, model_type: str, tools: str, reasoning: str | None) -> None:
    chosen = {choice.argument: choice.value for choice in choose(Template(text, model_type), {})}
    assert chosen.get("tool_call_parser") == tools
    assert chosen.get("enable_auto_tool_choice") is True
    assert chosen.get("reasoning_parser") == reasoning


def test_a_checkpoint_without_a_template_gets_none() -> None:
    assert choose(Template("", "llama"), {}) == ()


@pytest.mark.parametrize("given", [{"runner": "pooling"}, {"convert": "embed"}])
def test_a_model_that_generates_nothing_gets_none(given: dict[str, Any]) -> None:
    assert choose(Template(QWEN3, "qwen3"), given) == ()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"tool_call_parser": "pythonic"}, {"enable_auto_tool_choice": True, "reasoning_parser": "qwen3"}),
        ({"tool_call_parser": None}, {"reasoning_parser": "qwen3"}),
        ({"enable_auto_tool_choice": False}, {"reasoning_parser": "qwen3"}),
        ({"reasoning_parser": None}, {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}),
        ({"reasoning_parser": "glm45", "tool_call_parser": "glm45", "enable_auto_tool_choice": True}, {}),
    ],
)
def test_what_the_file_says_wins(given: dict[str, Any], left: dict[str, Any]) -> None:
    assert {choice.argument: choice.value for choice in choose(Template(QWEN3, "qwen3"), given)} == left


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        (QWEN3, {}, {"completion", "tools", "thinking"}),
        (QWEN25, {}, {"completion", "tools"}),
        (CHATML, {}, {"completion"}),  # it gets a parser all the same, for calls that are forced
        (CHATML, {"tool_call_parser": "hermes", "reasoning_parser": "qwen3"}, {"completion", "tools", "thinking"}),
        (QWEN3, {"tool_call_parser": None}, {"completion", "thinking"}),
        ("", {}, {"completion"}),
        (CHATML, {"runner": "pooling"}, {"embedding"}),
    ],
)
def test_what_a_model_does_follows_from_its_parsers(text: str, given: dict[str, Any], expected: set[str]) -> None:
    assert capabilities(given, choose(Template(text), given)) == expected


def test_every_choice_says_what_it_was_told_by() -> None:
    reasons = {choice.argument: choice.reason for choice in choose(Template(QWEN3, "qwen3"), {})}
    assert reasons["tool_call_parser"] == "its chat template has `<tool_call>`"
    assert reasons["reasoning_parser"] == "its chat template has `<|im_start|>` and `</think>` and `enable_thinking`"
    (choice, *_) = choose(Template("<|channel|>", "gpt_oss"), {})
    assert choice.reason == "its model_type is `gpt_oss`"


def test_a_rule_that_another_one_hides_is_no_rule() -> None:
    for rules in (TOOLS, REASONING):
        for rule in rules:
            made = Template(" ".join(rule.marks), (rule.kinds or ("",))[0])
            assert next(each for each in rules if each.holds(made)).parser == rule.parser


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("chat_template.jinja", "A", "A"),
        ("chat_template.json", json.dumps({"chat_template": "B"}), "B"),
        ("tokenizer_config.json", json.dumps({"chat_template": "C"}), "C"),
        (
            "tokenizer_config.json",
            json.dumps(
                {"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "E"}]}
            ),
            "D\nE",
        ),
        ("tokenizer_config.json", "{broken", ""),
        ("tokenizer_config.json", '{"chat_template": 3}', ""),
        ("tokenizer_config.json", "[1]", ""),
    ],
)
def test_a_template_is_found_wherever_it_is(tmp_path: Path, file: str, content: str, text: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / file).write_text(content)
    assert template(tmp_path) == Template(text, "llama")


def test_a_file_of_its_own_hides_the_tokenizers_and_the_models_file_hides_both(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("new")
    (tmp_path / "mine.jinja").write_text("mine")
    assert template(tmp_path).text == "new"
    assert template(tmp_path, "{{ inline }}").text == "{{ inline }}"
    assert template(tmp_path, str(tmp_path / "mine.jinja")).text == "mine"


@pytest.mark.engine
def test_every_name_is_one_that_the_installed_vllm_knows(engine_python: Path) -> None:
    code = (
        "import json; from vllm.tool_parsers import ToolParserManager as tools; "
        "from vllm.reasoning import ReasoningParserManager as reasoning; "
        "print(json.dumps([tools.list_registered(), reasoning.list_registered()]))"
    )
    result = subprocess.run([engine_python, "-c", code], capture_output=True, text=True, check=True)
    tools, reasoning = json.loads(result.stdout.splitlines()[-1])
    assert {FALLBACK, *(rule.parser for rule in TOOLS)} <= set(tools)
    assert {rule.parser for rule in REASONING} <= set(reasoning)
