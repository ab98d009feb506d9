"""What is answered to a request: its words, calls and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import output
from .wire import Json, refusal


@dataclass
class Answer:
    """One generation: its tokens, and how it goes wrong on the way."""

    words: list[str]
    finish: str
    prompt_tokens: int
    interval: float
    first: float
    crash_after: int | None
    error_after: int | None
    stall_after: int | None
    message: Json | None = None
    """What is said in a chat, where it is not the words alone."""
    scripted: bool = False
    """The words are a stream's deltas, each as JSON."""
    stop_reason: str | None = None
    reasoning: str = ""
    calls: list[Json] = field(default_factory=list)

    def delta(self, word: str) -> Json:
        found: Json = json.loads(word) if self.scripted else {"content": word}
        return found

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> Json:
        return self.usage_after(len(self.words))

    def usage_after(self, count: int) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + count,
            "completion_tokens": count,
        }


def refuse_length(body: Json, fake: Json) -> None:
    if fake.get("no_template_arguments") and "chat_template_kwargs" in body:
        raise refusal(400, "chat_template is not supported for Mistral tokenizers.", "BadRequestError")
    limit, context = body.get("max_tokens"), fake.get("context")
    if context is not None and limit and limit > context:
        message = (
            f"max_tokens={limit} cannot be greater than max_model_len={context}. Please request fewer output tokens."
        )
        raise refusal(400, message, "BadRequestError", "max_tokens")
    if context == 0:
        message = "This model's maximum context length is 10 tokens. However, your prompt contains 12 input tokens."
        raise refusal(400, message, "BadRequestError", "input_tokens")


def directive(prompt: str) -> Json:
    """The object after a `fake:` that begins a line: agents put other things around what they are asked."""
    _, _, rest = f"\n{prompt}".partition("\nfake:")
    found: Json = json.JSONDecoder().raw_decode(rest)[0] if rest else {}
    return found


def script_of(body: Json, fake: Json) -> list[str] | None:
    """The deltas of a streamed chat, each as JSON, or the pieces of a text; None where the prompt is repeated."""
    form = (body.get("response_format") or {}).get("json_schema")
    text = json.dumps(output.instance(form["schema"])) if form and "text" not in fake else fake.get("text")
    if body.get("stream") and "messages" in body:
        deltas = fake.get("deltas") or [*deltas_of(fake.get("message") or {"content": text})]
        return [json.dumps(delta) for delta in deltas] if "deltas" in fake or "message" in fake or text else None
    if "message" in fake:
        return [fake["message"].get("content") or ""]
    return None if text is None else [text[i : i + 5] for i in range(0, len(text), 5)]


def deltas_of(message: Json) -> Iterator[Json]:
    """A message as vLLM streams one: pieces of reasoning, of the text, then each call's name and its arguments."""
    for name in ("reasoning", "content"):
        text = message.get(name) or ""
        yield from ({name: text[i : i + 5]} for i in range(0, len(text), 5))
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]}
        for i in range(0, len(function["arguments"]), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"][i : i + 5]}}]}


def prompt_of(body: Json) -> str:
    messages = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        content = messages[-1].get("content") or ""
        return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
    return " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
