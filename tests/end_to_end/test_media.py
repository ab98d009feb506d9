"""Recordings to a real Whisper in a real engine: a tiny one of random weights, so what it hears is noise to it."""

from __future__ import annotations

import io
import json
import math
import struct
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.end_to_end.conftest import Served, serving

pytestmark = pytest.mark.engine

WRITER = Path(__file__).with_name("whisper.py")
FILE = """version: 1
server: {port: 0}
environment: {warm: false}
models:
  ears:
    source: ./whisper
    aliases: [whisper-1]
    engine: {dtype: float32, kv_cache_memory_bytes: 67108864}
"""


@pytest.fixture(scope="module")
def served(engine_home: Path, engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory, home = tmp_path_factory.mktemp("listening"), tmp_path_factory.mktemp("home")
    subprocess.run([engine_python, WRITER, directory / "whisper"], check=True, capture_output=True, timeout=120)
    home.chmod(0o700)
    (home / "environments").symlink_to(engine_home / "environments")
    with serving(FILE, home, directory) as served:
        yield served


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
