"""The chunks of an engine's stream as Ollama's lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from appliance.errors import RequestError

Json = dict[str, Any]
Kind = Literal["chat", "generate"]


def now() -> str:
    """RFC 3339, as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(kind: Kind, model: str, *, done: bool = False, text: str = "", thinking: str = "", calls: Any = ()) -> Json:
    """One object of an answer; what it has not said is not there, but for the text."""
    head = {"model": model, "created_at": now()}
    thought = {"thinking": thinking} if thinking else {}
    if kind == "generate":
        return {**head, "response": text, **thought, "done": done}
    called = {"tool_calls": list(calls)} if calls else {}
    return {**head, "message": {"role": "assistant", "content": text, **thought, **called}, "done": done}


@dataclass
class Said:
    """What one or more chunks have said."""

    text: str = ""
    thinking: str = ""
    logprobs: list[Json] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.text or self.thinking or self.logprobs)

    def add(self, more: Said) -> None:
        self.text += more.text
        self.thinking += more.thinking
        self.logprobs += more.logprobs


class Lines:
    """Feed it chunks for the lines of a stream, then `end` it; an answer that is no stream is its end alone."""

    def __init__(self, kind: Kind, model: str, *, thoughts: bool) -> None:
        self._kind: Kind = kind
        self._model = model
        self._thoughts = thoughts
        self._all = Said()
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: str | None = None
        self._usage: Json = {}
        self.begun = False
        """Whether the model has said anything."""

    def feed(self, chunk: Json) -> Json | None:
        self._usage = chunk.get("usage") or self._usage
        said = Said()
        for choice in chunk.get("choices") or ():
            said.add(self._take(choice))
            self._finish = choice.get("finish_reason") or self._finish
        self.begun = self.begun or bool(self._calls) or not said.nothing
        if said.nothing:
            return None
        self._all.add(said)
        return self._with_logprobs(line(self._kind, self._model, text=said.text, thinking=said.thinking), said)

    def end(self, durations: Json) -> list[Json]:
        """The last lines of a stream. Raises RequestError where the engine gave up."""
        calls = self._called()
        lines = [line(self._kind, self._model, calls=calls)] if calls else []
        return [*lines, {**line(self._kind, self._model, done=True), **self._ending(durations)}]

    def whole(self, durations: Json) -> Json:
        """The answer where it is no stream. Raises RequestError where the engine gave up."""
        said = self._all
        found = line(self._kind, self._model, done=True, text=said.text, thinking=said.thinking, calls=self._called())
        return {**self._with_logprobs(found, said), **self._ending(durations)}

    def _take(self, choice: Json) -> Said:
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            found = self._calls.setdefault(call.get("index") or 0, {"name": "", "arguments": ""})
            found["name"] = found["name"] or function.get("name") or ""
            found["arguments"] += function.get("arguments") or ""
        return Said(
            text=delta.get("content") or choice.get("text") or "",
            thinking=(delta.get("reasoning") or delta.get("reasoning_content") or "") if self._thoughts else "",
            logprobs=((choice.get("logprobs") or {}).get("content") or []) if delta else [],
        )

    def _called(self) -> list[Json]:
        """The calls, whose arguments are objects in this dialect. One that the limit cut is none."""
        calls = []
        for call in self._calls.values():
            try:
                arguments = json.loads(call["arguments"] or "{}")
            except ValueError:
                arguments = None
            if isinstance(arguments, dict):
                calls.append({"function": {"name": call["name"], "arguments": arguments}})
            elif self._finish != "length":
                raise _failed(f"the model called the tool `{call['name']}` with arguments that are not a JSON object")
        return calls

    def _ending(self, durations: Json) -> Json:
        if self._finish in {"abort", "error"}:
            raise _failed("the engine gave up this generation")
        return {
            "done_reason": "length" if self._finish == "length" else "stop",
            **durations,
            "prompt_eval_count": self._usage.get("prompt_tokens", 0),
            "eval_count": self._usage.get("completion_tokens", 0),
        }

    def _with_logprobs(self, found: Json, said: Said) -> Json:
        return {**found, "logprobs": said.logprobs} if said.logprobs else found


def _failed(message: str) -> RequestError:
    return RequestError(message, status=500, type="server_error", code="engine_failed")
