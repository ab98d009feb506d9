"""What takes no time: vectors, scores, tokens, and what was heard."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

from . import output
from .answer import prompt_of
from .engine import FakeEngine
from .wire import Refused, Request, refusal, send, send_json


async def tokenize(engine: FakeEngine, request: Request) -> None:
    body = engine.body(request)
    tokens = list(range(len(prompt_of(body).split())))
    await send_json(request, {"count": len(tokens), "max_model_len": 4096, "tokens": tokens})


async def detokenize(engine: FakeEngine, request: Request) -> None:
    tokens = engine.body(request).get("tokens") or []
    await send_json(request, {"prompt": " ".join(f"token{token}" for token in tokens)})


async def embeddings(engine: FakeEngine, request: Request) -> None:
    if engine.options.task == "generate":
        raise Refused(404, {"detail": "Not Found"})
    body = engine.body(request)
    engine.refuse_faults({})
    given = body.get("input", "")
    inputs = given if isinstance(given, list) else [given]
    data = []
    for index, text in enumerate(inputs):
        digest = hashlib.sha256(f"{engine.options.name} {text}".encode()).digest()
        vector: Any = [byte / 255 for byte in digest[:8]]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<8f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs), "completion_tokens": 0}
    await send_json(
        request, {"id": "embd-1", "object": "list", "data": data, "model": engine.options.name, "usage": usage}
    )
    engine.count()


async def rerank(engine: FakeEngine, request: Request) -> None:
    body = engine.body(request)
    documents = [each if isinstance(each, str) else str(each.get("text")) for each in body.get("documents") or []]
    scores = sorted(((likeness(body.get("query"), text), -at) for at, text in enumerate(documents)), reverse=True)
    results = [
        {"index": -at, "document": {"text": documents[-at]}, "relevance_score": score}
        for score, at in scores[: body.get("top_n") or None]
    ]
    usage = {"prompt_tokens": len(documents), "total_tokens": len(documents)}
    await send_json(request, {"id": "rerank-1", "model": engine.options.name, "usage": usage, "results": results})
    engine.count()


async def score(engine: FakeEngine, request: Request) -> None:
    body = engine.body(request)
    right = body.get("text_2") or body.get("documents") or []
    right = right if isinstance(right, list) else [right]
    left = body.get("text_1") or body.get("queries") or ""
    data = [{"index": at, "object": "score", "score": likeness(left, text)} for at, text in enumerate(map(str, right))]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data), "completion_tokens": 0}
    await send_json(
        request, {"id": "score-1", "object": "list", "model": engine.options.name, "data": data, "usage": usage}
    )
    engine.count()


async def transcribe(engine: FakeEngine, request: Request) -> None:
    engine.refuse_faults({})
    fields = output.form_fields(request.headers.get("content-type", ""), request.body)
    engine.stats.last_body = {name: len(value) if name == "file" else value.decode() for name, value in fields.items()}
    if fields.get("model", b"").decode() != engine.options.name:
        raise refusal(404, f"The model `{fields.get('model')!r}` does not exist.", "NotFoundError", "model")
    text = f"{engine.options.name} heard {hashlib.sha256(fields.get('file', b'')).hexdigest()[:8]}"
    if fields.get("response_format") == b"text":
        await send(request, text.encode(), "text/plain; charset=utf-8")
    elif fields.get("stream") == b"true":
        await engine.send_events(request, transcript(text))
        return
    else:
        await send_json(request, {"text": text, "usage": {"type": "duration", "seconds": 1}})
    engine.count()


async def transcript(text: str) -> AsyncIterator[bytes]:
    for word in output.pieces(text):
        yield f"data: {json.dumps({'type': 'transcript.text.delta', 'delta': word})}\n\n".encode()
    yield f"data: {json.dumps({'type': 'transcript.text.done', 'text': text})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def likeness(query: Any, text: str) -> float:
    """Of two texts: the share of the one's words that the other has."""
    words = set(str(query).lower().split())
    return round(len(words & set(text.lower().split())) / max(1, len(words)), 3)
