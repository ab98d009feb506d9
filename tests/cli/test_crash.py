"""An engine that dies takes its own streams with it and nobody else's."""

from __future__ import annotations

import os
import signal
import threading

import openai

from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION
from tests.support import wait_until


def test_requests_wait_for_the_engine_that_takes_a_killed_ones_place(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    (killed,) = machine.engine_pids()
    os.kill(killed, signal.SIGKILL)
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
        for _ in range(5):
            assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    (pid,) = machine.engine_pids()
    assert pid != killed
    assert machine.status()["models"][0]["restarts"] == 1


def test_a_stream_of_a_killed_engine_ends_with_one_error_and_the_next_is_whole(machine: Machine) -> None:
    machine.write("--events", "200", "--event-interval", "0.05")
    base = machine.up()
    errors: list[str] = []
    pieces: list[object] = []

    def read() -> None:
        with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
            try:
                pieces.extend(sdk.chat.completions.create(model="tiny", messages=QUESTION, stream=True))
            except openai.APIError as error:
                errors.append(error.message)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: machine.status()["models"][0]["engines"][0]["in_flight"], what="the stream runs")
    os.kill(machine.engine_pids()[0], signal.SIGKILL)
    reader.join(20)
    assert len(errors) == 1
    assert "ended the connection" in errors[0]
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
        assert list(sdk.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=5, stream=True))


def test_an_engine_that_is_killed_while_it_starts_is_started_again(machine: Machine) -> None:
    machine.write("--load-seconds", "1.5")
    machine.spawn_up()
    wait_until(lambda: machine.run("status").stdout, what="it answers")
    (pid,) = wait_until(machine.engine_pids, what="the engine starts")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.status()["ready"], what="another one is ready")
    assert machine.status()["models"][0]["restarts"] == 1
