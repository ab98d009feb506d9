"""`up` and `down` as a user meets them, with a fake engine behind a real appliance."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time

import aiohttp
import httpx
import openai
import psutil
import pytest

from appliance.reconcile.port import HELD
from tests.cli.conftest import Machine
from tests.support import wait_until

QUESTION: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]


def client(base: str, key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)


def test_up_serves_the_declared_model_to_the_official_sdk(machine: Machine) -> None:
    machine.write()
    with client(machine.up()) as sdk:
        answer = sdk.chat.completions.create(model="tiny", messages=QUESTION)
        assert answer.model == "tiny"
        assert "tiny" in (answer.choices[0].message.content or "")
        streamed = list(sdk.chat.completions.create(model="gpt-test", messages=QUESTION, stream=True))
    assert {chunk.model for chunk in streamed} == {"gpt-test"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == answer.choices[0].message.content


def test_down_stops_the_appliance_and_every_engine(machine: Machine) -> None:
    machine.write()
    machine.up()
    pids = [machine.started[0].pid, *machine.engine_pids()]
    assert machine.run("down").returncode == 0
    assert machine.started[0].wait(10) == 0
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="every process is gone")
    assert list((machine.home / "run").glob("e-*")) == []


def test_down_lets_a_running_stream_finish(machine: Machine) -> None:
    machine.write("--events", "40", "--event-interval", "0.05")
    pieces: list[str] = []

    def read(base: str) -> None:
        with client(base) as sdk:
            for chunk in sdk.chat.completions.create(model="tiny", messages=QUESTION, stream=True):
                pieces.extend(choice.finish_reason or choice.delta.content or "" for choice in chunk.choices)

    reader = threading.Thread(target=read, args=(machine.up(),))
    reader.start()
    wait_until(lambda: len(pieces) > 3, what="the stream runs")
    assert machine.run("down").returncode == 0
    reader.join(20)
    assert pieces[-1] in {"stop", "length"}


def test_up_in_the_background_returns_when_the_model_is_ready(machine: Machine) -> None:
    machine.write()
    result = machine.run("up", "-d")
    assert result.returncode == 0, result.stderr
    assert "serving tiny at http://127.0.0.1:" in result.stderr
    assert machine.status()["ready"] is True
    assert machine.run("up", "-d").returncode == 1


def test_a_start_in_the_background_that_fails_says_so_to_a_script_and_the_appliance_runs_on(machine: Machine) -> None:
    machine.write("--exit-at-start", "--say", "RuntimeError: no such kernel")
    result = machine.run("up", "-d")
    assert result.returncode == 1
    assert "no such kernel" in result.stderr
    assert machine.status()["ready"] is False
    assert machine.run("down").returncode == 0


def test_an_engine_that_dies_at_start_is_reported_and_not_started_again(machine: Machine) -> None:
    machine.write("--exit-at-start", "--exit-code", "3", "--say", "RuntimeError: no such kernel")
    machine.up()
    status = machine.run("status", "--json")
    assert status.returncode == 1
    (model,) = machine.status()["models"]
    assert model["state"] == "failed"
    assert "no such kernel" in model["conditions"][0]["message"]
    assert model["restarts"] == 0
    before = model["engines"][0]["id"]
    time.sleep(1.5)  # longer than the first backoff would be
    assert machine.status()["models"][0]["engines"][0]["id"] == before


def test_an_engine_that_never_becomes_ready_is_given_up_with_its_last_words(machine: Machine) -> None:
    machine.write(
        "--never-ready",
        "--say",
        "still compiling kernels",
        models="  tiny: {source: ./weights, rollout: {ready_timeout: 1s}}",
    )
    machine.up()
    (model,) = machine.status()["models"]
    assert model["state"] == "failed"
    assert "still compiling kernels" in model["conditions"][0]["message"]


def test_a_crashed_engine_is_started_again(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    (pid,) = machine.engine_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.status()["models"][0]["restarts"] == 1, what="the crash is noticed")
    wait_until(lambda: machine.status()["ready"], what="a new engine is ready")
    with client(base) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices


def test_an_on_demand_model_is_loaded_by_its_first_request(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights, load: on_demand}")
    base = machine.up()
    assert machine.engine_pids() == []
    with client(base) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    assert len(machine.engine_pids()) == 1


def test_a_second_appliance_on_the_same_state_directory_is_refused_by_name(machine: Machine) -> None:
    machine.write()
    machine.up()
    second = machine.run("up")
    assert second.returncode == 1
    assert f"pid {machine.started[0].pid}" in second.stderr


def test_a_port_in_use_is_named_with_who_holds_it(machine: Machine) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        machine.write(server=f"port: {port}")
        result = machine.run("up")
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert str(os.getpid()) in result.stderr


def test_keys_made_by_the_command_are_asked_for_by_the_gateway(machine: Machine) -> None:
    machine.write()
    created = machine.run("key", "create", "laptop")
    assert created.returncode == 0, created.stderr
    key = created.stdout.strip()
    assert key not in machine.file.read_text()
    base = machine.up()
    with client(base, "wrong") as sdk, pytest.raises(openai.AuthenticationError):
        sdk.models.list()
    with client(base, key) as sdk:
        assert next(model.id for model in sdk.models.list()) == "tiny"
    assert key not in machine.log
    assert "laptop" in machine.run("key", "list").stdout


def test_missing_weights_fail_that_model_and_say_where_they_were_looked_for(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights}\n  lost: {source: ./nowhere}")
    base = machine.up()
    states = {model["name"]: model for model in machine.status()["models"]}
    assert states["tiny"]["ready"] is True
    assert "nowhere" in states["lost"]["conditions"][0]["message"]
    with client(base) as sdk, pytest.raises(openai.InternalServerError) as error:
        sdk.chat.completions.create(model="lost", messages=QUESTION)
    assert error.value.status_code == 503


def test_killing_the_control_process_leaves_nothing_behind(machine: Machine) -> None:
    machine.write()
    machine.up()
    pids = machine.engine_pids()
    machine.started[0].kill()
    machine.started[0].wait()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), within=30, what="the shim stops the engine")


def test_logs_shows_what_the_engine_wrote(machine: Machine) -> None:
    machine.write("--say", "hello from the engine")
    machine.up()
    assert "hello from the engine" in machine.run("logs", "tiny").stdout
    missing = machine.run("logs", "other")
    assert missing.returncode == 1
    assert "`tiny`" in missing.stderr


def test_a_client_that_leaves_while_its_model_loads_does_not_call_the_load_off_for_others(machine: Machine) -> None:
    models = "  tiny: {source: ./weights, load: on_demand}"
    machine.write("--load-seconds", "2", "--say", "loading weights", models=models)
    base = machine.up()
    with httpx.Client(base_url=base) as leaver, pytest.raises(httpx.ReadTimeout):
        leaver.post("/v1/chat/completions", json={"model": "tiny", "messages": QUESTION}, timeout=0.5)
    with client(base) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    assert (machine.home / "logs" / "tiny.log").read_text().count("loading weights") == 1


def test_more_requests_than_may_wait_for_a_model_are_told_to_come_back(machine: Machine) -> None:
    machine.write("--never-ready", models="  tiny: {source: ./weights, load: on_demand}")
    base = machine.up()
    refused = asyncio.run(crowd(f"{base}/v1/chat/completions", HELD + 3))
    assert [(answer.status, answer.headers["retry-after"]) for answer in refused] == [(503, "30")] * 3


async def crowd(url: str, number: int) -> list[aiohttp.ClientResponse]:
    """Ask so many times at once; those who are answered before all have asked, while the others wait."""
    body = {"model": "tiny", "messages": QUESTION}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = [asyncio.create_task(session.post(url, json=body)) for _ in range(number)]
        refused: list[aiohttp.ClientResponse] = []
        for answered in asyncio.as_completed(asked):
            refused.append(await answered)
            if len(refused) == number - HELD:
                break
        for waiting in asked:
            waiting.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return refused
