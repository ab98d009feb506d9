"""The Dockerfile's instructions, run in an overlay of this machine; its entry point as a user on a read-only root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from appliance.config.models import Rollout
from tests.cli.conftest import Machine
from tests.packaging.image import Root, Stage, context, descendants, needed, parse
from tests.support import FAKE_ENGINE, free_port, wait_until
from tools.lock import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
KEY = "a-key-for-the-container-test"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    if os.getuid() != 0 and "CI" not in os.environ:
        pytest.skip("needs root, for an overlay in a mount namespace")
    scratch = tmp_path_factory.mktemp("image")
    root = Root(scratch / "root", context(ROOT, scratch / "context"))
    try:
        root.build(needed(parse(DOCKERFILE, {"ENGINE": "none"})))
        yield root
    finally:
        root.close()


def test_the_final_stage_is_chosen_by_the_build_argument() -> None:
    def names(engine: str) -> list[str]:
        return [stage.name for stage in needed(parse(DOCKERFILE, {"ENGINE": engine}))]

    assert names("none") == ["base", "build", "runtime", "engine-none", ""]
    assert names("cpu") == ["base", "build", "runtime", "bake-cpu", "engine-cpu", ""]
    assert names("cuda") == ["base", "build", "runtime", "bake-cuda", "engine-cuda", ""]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_it_never_runs_as_root() -> None:
    final = parse(DOCKERFILE, {})[""]
    users = [each.rest for each in final.instructions if each.word == "USER"]
    assert users == ["10001:10001"]


def test_what_is_copied_is_in_the_context_and_nothing_else_is(tmp_path: Path) -> None:
    there = context(ROOT, tmp_path / "context")
    stages: list[Stage] = [*parse(DOCKERFILE, {}).values()]
    sources = [
        name
        for stage in stages
        for each in stage.instructions
        if each.word == "COPY" and not each.rest.startswith("--from")
        for name in each.rest.split()[:-1]
    ]
    assert all((there / name).exists() for name in sources)
    assert not any((there / secret).exists() for secret in (".venv", ".git", "tests", "model-runner.yaml"))


def test_the_lists_that_the_cuda_stage_installs_are_there(image: Root) -> None:
    path = image.shell("/opt/appliance/bin/python -c 'import appliance; print(appliance.__path__[0])'").strip()
    assert "vllm==" in image.shell(f"cat {path}/engines/requirements/vllm-cuda-linux-x86_64.txt")


def test_the_container_serves_as_a_user_on_a_read_only_root_and_drains_on_sigterm(image: Root, tmp_path: Path) -> None:
    user, port = image.config["USER"], free_port()
    _serve_a_fake_engine(image, tmp_path)
    image.environ |= {"API_KEY": KEY, "APPLIANCE_SERVER__PORT": str(port)}
    image.do(
        "mount", "-t", "tmpfs", "-o", "mode=700,uid=10001,gid=10001", "tmpfs", f"{image.directory}/var/lib/appliance"
    )
    image.do("mount", "-o", "remount,ro", str(image.directory))
    log = tmp_path / "container.log"
    with _ended(image.run(user=user, log=log)) as container:
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: container.poll() is not None or _ready(base), within=60, what="it is ready")
        assert container.poll() is None, log.read_text()
        pids = [*descendants(container.pid)]
        first = psutil.Process(pids[0])
        assert first.name() == "tini"
        assert {psutil.Process(pid).uids().real for pid in pids} == {10001}
        healthy = image.health(user=user)
        assert (healthy.returncode, json.loads(healthy.stdout)["status"]) == (0, "ready")
        question = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        assert httpx.post(f"{base}/v1/chat/completions", json=question).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.stream("POST", f"{base}/v1/chat/completions", json=question, headers=headers, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            first.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert container.wait(30) == 0
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), what="nothing is left")
    assert image.health(user=user).returncode == 1


@contextmanager
def _ended(container: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield container
    finally:
        container.kill()
        container.wait()


def test_what_compose_mounts_is_there() -> None:
    volumes = [each for service in COMPOSE["services"].values() for each in service.get("volumes", ())]
    mounted = {each.split(":")[0] for each in volumes}
    files = {each for each in mounted if each.startswith("./")}
    assert mounted - files == COMPOSE["volumes"].keys()
    assert all((ROOT / each).exists() for each in files)


def test_compose_publishes_on_loopback_and_takes_away_what_it_can() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    assert COMPOSE["services"]["appliance"]["read_only"] is True


def test_compose_starts_nothing_without_its_secrets() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert "${API_KEY:?" in text
    assert "${GRAFANA_PASSWORD:?" in text


def test_compose_waits_for_answers_as_long_as_the_file_lets_them_take() -> None:
    assert COMPOSE["services"]["appliance"]["stop_grace_period"] == "6m"
    assert Rollout().drain_timeout.total_seconds() < 360


def test_the_containers_file_is_valid_with_a_key_and_refused_without(machine: Machine) -> None:
    file = str(ROOT / "packaging" / "container" / "model-runner.yaml")
    refused = machine.run("validate", "--file", file)
    assert refused.returncode == 1
    assert "auth.keys" in refused.stderr
    machine.environ["API_KEY"] = KEY
    assert machine.run("validate", "--file", file).returncode == 0


def test_prometheus_finds_the_appliance_and_its_key() -> None:
    (job,) = yaml.safe_load((ROOT / "packaging" / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.partition(":")[0] in COMPOSE["services"]
    (secret,) = COMPOSE["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == secret["target"]
    assert COMPOSE["secrets"][secret["source"]] == {"environment": "API_KEY"}


def test_grafana_is_given_its_source_and_where_the_dashboard_is_mounted() -> None:
    provisioning = ROOT / "packaging" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE["services"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "appliance.yml").read_text())["providers"]
    targets = [each.split(":")[1] for each in COMPOSE["services"]["grafana"]["volumes"]]
    assert any(target.startswith(provider["options"]["path"]) for target in targets)


def _serve_a_fake_engine(image: Root, scratch: Path) -> None:
    """The image's own file, with another model."""
    document = yaml.safe_load((ROOT / "packaging" / "container" / "model-runner.yaml").read_text())
    weights = scratch / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (weights / "tokenizer.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    flags = ["--events", "30", "--event-interval", "0.05"]
    command = ["python3", "/etc/appliance/fake_engine", "--uds", "{socket}", "--name", "{name}", *flags]
    document |= {"backend": "fake", "backends": {"fake": {"command": command}}}
    document["models"] = {"tiny": {"source": "./weights"}}
    (scratch / "model-runner.yaml").write_text(yaml.safe_dump(document))
    shutil.copytree(FAKE_ENGINE, scratch / FAKE_ENGINE.name)
    image.do("cp", "-rT", str(scratch), f"{image.directory}/etc/appliance")
    image.do("chmod", "-R", "a+rX", f"{image.directory}/etc/appliance")


def _ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
