"""Which of vLLM's parsers reads a model's tool calls and its reasoning out of its text, told from its chat template.

vLLM needs both at its start and guesses neither. A model writes calls the way its template shows them to it, so the
markers there decide; where several formats share their markers, `model_type` of config.json does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.engines.driver import Capability, Choice, Template


@dataclass(frozen=True, slots=True)
class Rule:
    """`parser` where the template has all `marks` and, if any are given, `model_type` starts with one of `kinds`."""

    parser: str
    marks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def holds(self, template: Template) -> bool:
        return template.model_type.startswith(self.kinds or ("",)) and all(mark in template.text for mark in self.marks)

    @property
    def reason(self) -> str:
        said = [f"its chat template has {' and '.join(f'`{mark}`' for mark in self.marks)}"] if self.marks else []
        if self.kinds:
            said.append(f"its model_type is {' or '.join(f'`{kind}`' for kind in self.kinds)}")
        return ", ".join(said)


# The first rule that holds decides, so what is more particular comes first.
TOOLS: tuple[Rule, ...] = (
    Rule("openai", kinds=("gpt_oss",)),
    Rule("deepseek_v41", kinds=("deepseek_v41",)),
    Rule("deepseek_v4", kinds=("deepseek_v4",)),
    Rule("deepseek_v32", kinds=("deepseek_v32",)),
    Rule("deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),
    Rule("deepseek_v31", ("<｜tool▁calls▁begin｜>",)),
    Rule("kimi_k3", kinds=("kimi_k3",)),
    Rule("kimi_k2", ("<|tool_calls_section_begin|>",)),
    Rule("mistral", ("[TOOL_CALLS]",)),
    Rule("gemma4", ("<|tool_call>",)),
    Rule("functiongemma", ("<start_function_call>",)),
    Rule("minimax_m3", ("]<]minimax[>[",)),
    Rule("minimax_m2", ("<minimax:tool_call>",)),
    Rule("seed_oss", ("<seed:tool_call>",)),
    Rule("longcat", ("<longcat_tool_call>",)),
    Rule("dots", ("<dots_function_call>",)),
    Rule("step3", ("<｜tool_calls_begin｜>",)),
    Rule("step3p5", ("<function=",), ("step3p5", "step3_5")),
    Rule("mimo", ("<function=",), ("mimo",)),
    Rule("qwen3_coder", ("<function=", "<parameter=")),
    Rule("minicpm5", ("<function name=",)),
    Rule("plamo3", ("<|plamo:begin_tool_request",)),
    Rule("inkling", ("<|content_invoke_tool_json|>",)),
    Rule("muse_glimmer", ("<atem:function_calls>",)),
    Rule("k2_horizon", ("<ifm|tool_call",)),
    Rule("hy_v4", kinds=("hy_v4",)),
    Rule("hy_v3", kinds=("hy_v3",)),
    Rule("hunyuan_a13b", ("<tool_calls>",), ("hunyuan",)),
    Rule("jamba", ("<tool_calls>",), ("jamba",)),
    Rule("ling3", ("<arg_key>",), ("bailing", "ling")),
    Rule("poolside_v1", ("<arg_key>", "<assistant>")),
    Rule("glm47", ("<arg_key>",)),
    Rule("lfm2", ("<|tool_call_start|>",)),
    Rule("llama4_pythonic", ("<|python_start|>",), ("llama4",)),
    Rule("llama3_json", ('"parameters": dictionary of argument name',)),
    Rule("internlm", ("<|plugin|>",)),
    Rule("phi4_mini_json", ("<|tool|>", "<|/tool|>")),
    Rule("granite", ("<|tool_call|>",), ("granite",)),
    Rule("granite4", ("<tool_call>",), ("granite",)),
    Rule("cohere_command4", ("<|START_ACTION|>", "<|START_TEXT|>")),
    Rule("cohere_command3", ("<|START_ACTION|>",)),
    Rule("ernie45", ("<tool_call>",), ("ernie4_5",)),
    Rule("apertus", ("<|tools_prefix|>",)),
    Rule("olmo3", ("<function_calls>",)),
    Rule("gigachat3", ("<|message_sep|>",)),
    Rule("hermes", ("<tool_call>",)),
)

FALLBACK = "hermes"
"""For a template without tools: its model won't call one by itself, but a named or required tool is then still
enforced by grammar, and a request that offers tools is answered instead of refused."""

REASONING: tuple[Rule, ...] = (
    Rule("openai_gptoss", kinds=("gpt_oss",)),
    Rule("deepseek_v41", kinds=("deepseek_v41",)),
    Rule("deepseek_v4", kinds=("deepseek_v4",)),
    # The hybrids think where the request's `thinking` says so; the parser looks at the same switch.
    Rule("deepseek_v3", ("<｜Assistant｜>", "</think>", "thinking")),
    Rule("kimi_k3", kinds=("kimi_k3",)),
    Rule("kimi_k2", ("<|tool_calls_section_begin|>", "</think>")),
    Rule("mistral", ("[THINK]",)),
    Rule("gemma4", ("<|channel>",)),
    Rule("minimax_m3", ("<mm:think>",)),
    Rule("minimax_m2", ("<minimax:tool_call>", "</think>")),
    Rule("seed_oss", ("<seed:think>",)),
    Rule("plamo3", ("<|plamo:begin_think",)),
    Rule("inkling", ("<|content_thinking|>",)),
    Rule("muse_glimmer", ("<atem:function_calls>",)),
    Rule("k2_horizon", ("<ifm|think",)),
    Rule("hy_v4", kinds=("hy_v4",)),
    Rule("hy_v3", kinds=("hy_v3",)),
    Rule("hunyuan_a13b", ("</think>",), ("hunyuan",)),
    Rule("cohere_command4", ("<|START_THINKING|>", "<|START_TEXT|>")),
    Rule("cohere_command3", ("<|START_THINKING|>",)),
    Rule("ernie45", ("</think>",), ("ernie4_5",)),
    Rule("granite", ("Here is my thought process",)),
    Rule("granite_thinking_parser", ("</think>", "enable_thinking"), ("granite",)),
    Rule("nemotron_v3", ("</think>",), ("nemotron",)),
    Rule("olmo3", ("<think>",), ("olmo",)),
    Rule("step3p5", ("</think>",), ("step3p5", "step3_5")),
    Rule("step3", ("</think>",), ("step3",)),
    Rule("mimo", ("</think>", "enable_thinking"), ("mimo",)),
    Rule("ling3", ("</think>", "enable_thinking"), ("bailing", "ling")),
    Rule("poolside_v1", ("</think>", "<assistant>")),
    Rule("glm45", ("</think>", "[gMASK]")),
    # Its parser takes everything before `</think>` for reasoning, so a template that only cleans up old turns must not
    # choose it: it has to have the switch, or to begin the answer with `<think>`.
    Rule("qwen3", ("<|im_start|>", "</think>", "enable_thinking")),
    Rule("qwen3", ("<|im_start|>assistant\\n<think>",)),
    Rule("deepseek_r1", ("<｜Assistant｜><think>",)),
)

_TOOL_PARSER, _AUTO_TOOLS, _REASONING_PARSER = "tool_call_parser", "enable_auto_tool_choice", "reasoning_parser"


_NO_FORM = "its chat template has no form of tool call that is known here"


def capabilities(given: Mapping[str, Any], chosen: Sequence[Choice]) -> frozenset[Capability]:
    """What a model can be asked for: `given` are the file's own arguments, `chosen` what `choose` has added."""
    arguments = {**{choice.argument: choice.value for choice in chosen}, **given}
    if arguments.get("runner") == "pooling" or arguments.get("convert") == "embed":
        return frozenset(("embedding",))
    found: set[Capability] = {"completion"}
    told = {choice.argument: choice for choice in chosen if choice.reason != _NO_FORM}
    if given.get(_TOOL_PARSER) or _TOOL_PARSER in told:
        found.add("tools")
    if given.get(_REASONING_PARSER) or _REASONING_PARSER in told:
        found.add("thinking")
    return frozenset(found)


def choose(template: Template, given: Mapping[str, Any]) -> tuple[Choice, ...]:
    """What the checkpoint decides where `given`, the file's own arguments, is silent. null there means: none."""
    if not template.text or given.get("runner") == "pooling" or given.get("convert") not in (None, "none", "auto"):
        return ()
    return (*_tools(template, given), *_reasoning(template, given))


def _tools(template: Template, given: Mapping[str, Any]) -> Iterator[Choice]:
    if _TOOL_PARSER in given:
        if given[_TOOL_PARSER] is not None and _AUTO_TOOLS not in given:
            yield Choice(_AUTO_TOOLS, True, f"`{_TOOL_PARSER}` is set")
        return
    if given.get(_AUTO_TOOLS) is False:
        return
    rule = next((rule for rule in TOOLS if rule.holds(template)), None)
    reason = rule.reason if rule else _NO_FORM
    yield Choice(_TOOL_PARSER, rule.parser if rule else FALLBACK, reason)
    if _AUTO_TOOLS not in given:
        yield Choice(_AUTO_TOOLS, True, f"`{_TOOL_PARSER}` is chosen")


def _reasoning(template: Template, given: Mapping[str, Any]) -> Iterator[Choice]:
    if _REASONING_PARSER in given:
        return
    if rule := next((rule for rule in REASONING if rule.holds(template)), None):
        yield Choice(_REASONING_PARSER, rule.parser, rule.reason)
