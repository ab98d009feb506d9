"""Pictures and recordings to real engines: the models are tiny and of random weights, so what they say means nothing.

That it depends on what they were shown says that all of it arrived.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import subprocess
import wave
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.end_to_end.conftest import Served, serving

pytestmark = pytest.mark.engine

WRITER = Path(__file__).with_name("media_models.py")
FILE = """version: 1
server: {port: 0}
environment: {warm: false}
models:
  eyes:
    source: ./eyes
    engine: {dtype: float32, max_model_len: 256, kv_cache_memory_bytes: 67108864}
  ears:
    source: ./ears
    aliases: [whisper-1]
    engine: {dtype: float32, kv_cache_memory_bytes: 67108864}
"""


@pytest.fixture(scope="module")
def served(engine_home: Path, engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory, home = tmp_path_factory.mktemp("media"), tmp_path_factory.mktemp("home")
    subprocess.run([engine_python, WRITER, directory], check=True, capture_output=True, timeout=120)
    home.chmod(0o700)
    (home / "environments").symlink_to(engine_home / "environments")
    with serving(FILE, home, directory) as served:
        yield served


def picture(red: int, green: int, blue: int, edge: int = 40) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes((red, green, blue)) * edge) * edge)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


RED, BLUE = (base64.b64encode(picture(*colour)).decode() for colour in ((255, 0, 0), (0, 0, 255)))


def seen_by_openai(served: Served, image: str) -> str | None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    content: Any = [part, {"type": "text", "text": "what is it?"}]
    with served.client() as sdk:
        answer = sdk.chat.completions.create(
            model="eyes", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=12
        )
    return answer.choices[0].message.content


def seen_by_anthropic(served: Served, image: str) -> str | None:
    part: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}}
    with anthropic.Anthropic(base_url=served.base, api_key="unused", max_retries=0) as sdk:
        answer = sdk.messages.create(
            model="eyes",
            max_tokens=12,
            messages=[{"role": "user", "content": [part, {"type": "text", "text": "what is it?"}]}],
            extra_body={"temperature": 0},
        )
    return "".join(block.text for block in answer.content if block.type == "text")


def seen_by_ollama(served: Served, image: str) -> str | None:
    message = {"role": "user", "content": "what is it?", "images": [image]}
    options = {"temperature": 0, "num_predict": 12}
    with ollama.Client(served.base) as sdk:
        said: str | None = sdk.chat("eyes", messages=[message], options=options).message.content
    return said


@pytest.mark.parametrize("seen_by", [seen_by_openai, seen_by_anthropic, seen_by_ollama])
def test_a_picture_reaches_the_model_in_every_dialect(
    served: Served, seen_by: Callable[[Served, str], str | None]
) -> None:
    red, again, blue = (seen_by(served, image) for image in (RED, RED, BLUE))
    assert red == again != blue
    assert red
    assert blue


def test_what_is_no_picture_is_refused_and_the_engine_lives_on(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="image"):
        seen_by_openai(served, base64.b64encode(b"these are words").decode())
    assert seen_by_openai(served, RED)


def recording(hertz: float, seconds: int = 2, *, rate: int = 16000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, rate, 0, "NONE", ""))
        samples = (round(12000 * math.sin(2 * math.pi * hertz * at / rate)) for at in range(seconds * rate))
        out.writeframes(b"".join(struct.pack("<h", sample) * channels for sample in samples))
    return file.getvalue()


def ask(served: Served, sound: bytes, model: str = "ears") -> openai.types.audio.Transcription:
    with served.client() as sdk:
        return sdk.audio.transcriptions.create(
            model=model,
            file=("sound.wav", sound),
            language="en",
            temperature=0,
            extra_body={"max_completion_tokens": 12},
        )


def test_a_recording_is_transcribed_and_another_otherwise(served: Served) -> None:
    low, again, high = (ask(served, recording(hertz)) for hertz in (110, 110, 3000))
    assert low.text == again.text != high.text
    assert low.usage is not None
    assert low.usage.type == "duration"
    assert low.usage.seconds == 2


def test_another_rate_and_two_channels_are_heard_by_the_models_other_name(served: Served) -> None:
    answer = ask(served, recording(110, seconds=3, rate=44100, channels=2), model="whisper-1")
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == 3


def test_a_transcript_is_streamed(served: Served) -> None:
    with (
        served.client() as sdk,
        sdk.audio.transcriptions.with_streaming_response.create(
            model="whisper-1",
            file=("sound.wav", recording(110)),
            language="en",
            temperature=0,
            stream=True,
            extra_body={"max_completion_tokens": 12},
        ) as answer,
    ):
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    *chunks, last = lines
    assert last == "[DONE]"
    found = [json.loads(chunk) for chunk in chunks]
    assert {chunk["model"] for chunk in found} == {"whisper-1"}
    assert found[-1]["choices"][0]["finish_reason"] == "length"


def test_what_is_no_recording_is_refused_and_the_engine_lives_on(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="audio"):
        ask(served, b"these are words" * 100)
    with served.client() as sdk, pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="ears", messages=[{"role": "user", "content": "hello"}])
    assert caught.value.code == "unsupported_endpoint"
    assert ask(served, recording(110)).usage
