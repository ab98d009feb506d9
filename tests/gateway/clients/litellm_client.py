"""LiteLLM as a client; run by test_clients.py in an environment of its own.

    python litellm_client.py BASE

Prints what it saw as one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def main(base: str) -> None:
    seen: dict[str, Any] = {}
    talk = [{"role": "user", "content": "what is the capital of France?"}]
    common: dict[str, Any] = {
        "model": "openai/tiny",
        "api_base": f"{base}/v1",
        "api_key": "none",
        "messages": talk,
        "num_retries": 0,
    }

    answer = litellm.completion(**common)
    seen["text"], seen["total"] = answer.choices[0].message.content, answer.usage.total_tokens

    chunks = [*litellm.completion(**common, stream=True, stream_options={"include_usage": True})]
    seen["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    seen["usages"] = sum(getattr(chunk, "usage", None) is not None for chunk in chunks)

    called = litellm.completion(**common, tools=[TOOL], tool_choice="required")
    seen["calls"] = [call.function.name for call in called.choices[0].message.tool_calls]

    # What it would be asked by a health check: as little as can be.
    seen["ping"] = litellm.completion(**common, max_tokens=1).choices[0].finish_reason

    thought = {"fake": {"reasoning": "because"}}
    seen["reasoning"] = litellm.completion(**common, extra_body=thought).choices[0].message.reasoning_content

    vectors = litellm.embedding(model="openai/tiny", input=["a", "b"], api_base=f"{base}/v1", api_key="none")
    seen["vectors"] = [len(each["embedding"]) for each in vectors.data]

    errors = {}
    changes: dict[str, dict[str, Any]] = {
        "unknown": {"model": "openai/nobody"},
        "bad": {"extra_body": {"fake": {"status": 400}}},
        "busy": {"extra_body": {"fake": {"status": 429}}},
        "failed": {"extra_body": {"fake": {"status": 500}}},
    }
    for name, change in changes.items():
        try:
            litellm.completion(**{**common, **change})
        except Exception as error:  # noqa: BLE001 - its name is what is reported
            errors[name] = type(error).__name__
    seen["errors"] = errors
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
