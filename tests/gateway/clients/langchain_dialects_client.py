"""LangChain's clients of the translated dialects; run by test_clients.py in an environment of its own.

    python langchain_dialects_client.py BASE

Prints what each saw as one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from pydantic import BaseModel, SecretStr


class Place(BaseModel):
    """A place."""

    city: str
    days: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLS = {"message": {"content": "", "tool_calls": [CALL]}, "finish": "tool_calls"}


def watch(chat: BaseChatModel) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    answer = chat.invoke("what is the capital of France?")
    seen["text"], seen["usage"] = answer.text, answer.usage_metadata

    chunks = [*chat.stream("what is the capital of France?")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    seen["streamed"], seen["streamed_usage"], seen["pieces"] = whole.text, whole.usage_metadata, len(chunks)

    bound = chat.bind_tools([weather])
    called = bound.invoke(f"fake:{json.dumps(CALLS)}")
    assert isinstance(called, AIMessage)
    seen["calls"] = [(call["name"], call["args"]) for call in called.tool_calls]
    result = weather.invoke(called.tool_calls[0])
    assert isinstance(result, ToolMessage)
    seen["after_tool"] = bound.invoke([HumanMessage("weather?"), called, result]).text

    parsed = chat.with_structured_output(Place).invoke("a place, please")
    seen["parsed"] = parsed.model_dump() if isinstance(parsed, Place) else parsed
    return seen


def main(base: str) -> None:
    named: dict[str, Any] = {"model_name": "tiny", "max_tokens_to_sample": 99, "max_retries": 0}
    claude = ChatAnthropic(base_url=base, api_key=SecretStr("none"), **named)
    llama = ChatOllama(model="tiny", base_url=base, temperature=0.5)
    vectors = OllamaEmbeddings(model="tiny", base_url=base).embed_documents(["a", "b"])
    seen = {"anthropic": watch(claude), "ollama": watch(llama), "vectors": [len(vector) for vector in vectors]}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
