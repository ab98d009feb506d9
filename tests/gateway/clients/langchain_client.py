"""LangChain as its users use it; run by test_clients.py in an environment of its own.

    python langchain_client.py BASE

Prints what it saw as one JSON object.
"""

from __future__ import annotations

import json
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr


class Place(BaseModel):
    """A place."""

    city: str
    days: int


@tool
def weather(city: str, days: int) -> str:
    """The weather in a city."""
    return f"{city} {days}"


def main(base: str) -> None:
    seen: dict[str, object] = {}
    chat = ChatOpenAI(model="tiny", base_url=f"{base}/v1", api_key=SecretStr("none"), max_retries=0)
    talk = [SystemMessage("be brief"), HumanMessage("what is the capital of France?")]

    answer = chat.invoke(talk)
    seen["text"], seen["usage"] = answer.content, answer.usage_metadata
    seen["finish"] = answer.response_metadata["finish_reason"]

    chunks = [*chat.stream(talk, stream_usage=True)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    seen["streamed"], seen["streamed_usage"] = whole.content, whole.usage_metadata

    called = chat.bind_tools([weather], tool_choice="weather").invoke(talk)
    seen["calls"] = [(call["name"], call["args"]) for call in called.tool_calls]
    pieces = [*chat.bind_tools([weather], tool_choice="any").stream(talk)]
    merged = pieces[0]
    for piece in pieces[1:]:
        merged += piece
    seen["streamed_calls"] = [(call["name"], call["args"]) for call in merged.tool_calls]
    given = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome", "days": 1}, "id": "c1"}])
    seen["after_tool"] = chat.invoke([*talk, given, ToolMessage("sunny in Rome", tool_call_id="c1")]).content

    for method in ("json_schema", "function_calling", "json_mode"):
        schema = Place if method != "json_mode" else None
        parsed = chat.with_structured_output(schema, method=method).invoke(talk)
        seen[method] = parsed.model_dump() if isinstance(parsed, Place) else parsed

    answers = ChatOpenAI(
        model="tiny", base_url=f"{base}/v1", api_key=SecretStr("none"), max_retries=0, use_responses_api=True
    )
    seen["responses"] = answers.invoke(talk).text
    seen["responses_streamed"] = "".join(chunk.text for chunk in answers.stream(talk))

    # Token ids are what it sends unless it is told not to, for every model and whatever its vocabulary.
    vectors = OpenAIEmbeddings(
        model="tiny", base_url=f"{base}/v1", api_key=SecretStr("none"), check_embedding_ctx_length=False
    )
    seen["documents"] = [len(vector) for vector in vectors.embed_documents(["a", "b", "c"])]
    seen["query"] = len(vectors.embed_query("a"))

    try:
        chat.bind(model="nobody").invoke(talk)
    except Exception as error:  # noqa: BLE001 - what it is called is what is reported
        seen["unknown"] = [kind.__name__ for kind in type(error).__mro__]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
