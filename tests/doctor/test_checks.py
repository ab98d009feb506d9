"""Each symptom made true, for real where this machine can be made so, else as what the probe would have read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.doctor import access, configuration, engines, machine, memory, network, place
from appliance.doctor.examination import CHECKS
from appliance.doctor.finding import Finding
from appliance.doctor.machine import Machine
from appliance.doctor.memory import Memory
from appliance.doctor.scene import Scene
from appliance.environments.installed import InstalledEnvironment, write_marker
from appliance.environments.requirements import shipped_lists
from appliance.reconcile.control import choose_environments
from tests.doctor.conftest import with_file

GIB = 2**30
MAC = Machine("darwin", "arm64", 64, silicon=True, macos=(15, 4), tools=(16, 3))


def only(findings: Iterable[Finding]) -> Finding:
    """The one finding, which says something in each of its parts."""
    (found,) = findings
    assert found.finding
    assert found.cause
    assert found.remedy
    return found


def test_a_sound_machine_has_no_findings(scene: Scene) -> None:
    scene = with_file(scene, "version: 1\nserver: {port: 0}\n")
    quiet = set(CHECKS) - {"memory", "disk", "clock"}  # those are this machine's own
    assert [found for name in quiet for found in CHECKS[name](scene)] == []


# The machine: no Mac is at hand, so these are what the probe would have read there.


@pytest.mark.parametrize(
    ("seen", "says", "do"),
    [
        (replace(MAC, python="x86_64", translated=True), "Rosetta", "arm64 Python"),
        (replace(MAC, silicon=False, python="x86_64"), "Intel", "backends:"),
        (replace(MAC, macos=(13, 6)), "macOS 13.6 is too old", "Software Update"),
        (replace(MAC, tools=None), "not installed", "xcode-select --install"),
        (replace(MAC, tools=(14, 2)), "version 14.2", "softwareupdate"),
        (replace(MAC, bits=32), "32-bit", "64-bit"),
    ],
)
def test_a_mac_that_cannot_serve_is_told_what_to_do(seen: Machine, says: str, do: str) -> None:
    found = only(machine.judge(seen, metal=True))
    assert says in found.finding
    assert do in found.remedy


def test_a_sound_mac_and_this_machine_have_none() -> None:
    assert [*machine.judge(MAC, metal=True)] == []
    assert [*machine.judge(machine.probe(), metal=False)] == []


def test_oldest_macos_is_that_of_the_engine_environment() -> None:
    assert shipped_lists()["vllm-metal-macos-aarch64"].macos == machine.OLDEST_MACOS


def test_a_mac_without_metal_in_its_file_may_be_old() -> None:
    old = replace(MAC, macos=(13, 6), tools=None)
    assert [*machine.judge(old, metal=False)] == []


@pytest.mark.parametrize(("answer", "says"), [("False", "finds no Metal"), (None, "cannot be imported")])
def test_mlx_without_metal_is_explained(answer: str | None, says: str) -> None:
    assert says in only(engines.judge_metal(answer, Path("/opt/python"))).finding
    assert [*engines.judge_metal("True", Path("/opt/python"))] == []


# The file and its keys


def test_an_expired_key_is_named(scene: Scene) -> None:
    keys = f"auth: {{keys: [{{name: old, sha256: '{'0' * 64}', expires: '2020-01-31'}}]}}"
    found = only(configuration.check(with_file(scene, f"version: 1\n{keys}\n")))
    assert "`old` expired on 2020-01-31" in found.finding


def test_a_problem_of_the_file_is_passed_on(scene: Scene) -> None:
    found = only(configuration.check(replace(scene, problem="`model-runner.yaml` has 1 problem")))
    assert "appliance validate" in found.remedy


# Engine environments


def test_an_environment_whose_vllm_cannot_be_imported_is_a_problem(scene: Scene, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    text = f"version: 1\nenvironment: {{python: {python}}}\nmodels: {{a: {{source: ./a, backend: vllm}}}}\n"
    found = only(engines.check_environments(replace(with_file(scene, text), quick=False)))
    assert "vLLM is not installed in it" in found.finding


def test_torchvision_of_another_torch_is_recognised(scene: Scene, tmp_path: Path) -> None:
    python = _python_with(
        tmp_path, vllm="raise RuntimeError('operator torchvision::nms does not exist')", torch="__version__ = '2.13.0'"
    )
    text = f"version: 1\nenvironment: {{python: {python}}}\nmodels: {{a: {{source: ./a, backend: vllm}}}}\n"
    found = only(engines.check_environments(replace(with_file(scene, text), quick=False)))
    assert "torchvision is built for another torch" in found.finding


def test_a_fall_back_to_another_platform_is_recognised(scene: Scene, tmp_path: Path) -> None:
    python = _python_with(tmp_path, vllm="__version__ = '0.32.0'", torch="__version__ = '2.13.0'")
    package = next((tmp_path / "venv").rglob("site-packages")) / "vllm"
    (package / "platforms.py").write_text(
        "class CpuPlatform:\n    device_type = 'cpu'\ncurrent_platform = CpuPlatform()\n"
    )
    given = f"environment: {{python: {python}, accelerator: cuda}}"
    text = f"version: 1\n{given}\nmodels: {{a: {{source: ./a, backend: vllm}}}}\n"
    found = only(engines.check_environments(replace(with_file(scene, text), quick=False)))
    assert "selects `CpuPlatform` here, and `CudaPlatform` is expected" in found.finding


def test_an_installation_that_broke_off_is_told_from_none(scene: Scene) -> None:
    scene = with_file(scene, "version: 1\nmodels: {a: {source: ./a, backend: vllm}}\n")
    assert [*engines.check_environments(scene)] == []
    assert scene.loaded is not None
    (spec,) = choose_environments(scene.loaded.appliance, scene.state).values()
    (scene.state.environments / spec.name).mkdir()
    assert "incomplete" in only(engines.check_environments(scene)).finding


def _python_with(tmp_path: Path, **modules: str) -> Path:
    """An interpreter whose packages are these."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    site = next((tmp_path / "venv").rglob("site-packages"))
    for name, text in modules.items():
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(text + "\n")
    return tmp_path / "venv" / "bin" / "python"


# Memory


@pytest.mark.parametrize(
    ("seen", "level", "says"),
    [
        (Memory(16 * GIB, GIB // 2, 0), "problem", "0.5 GiB of 16.0 GiB"),
        (Memory(16 * GIB, 8 * GIB, 0, stalled=40.0), "problem", "memory is short"),
        (Memory(16 * GIB, 8 * GIB, 0, level=4), "problem", "memory is short"),
        (Memory(16 * GIB, 8 * GIB, 6 * GIB), "warning", "6.0 GiB are swapped out"),
    ],
)
def test_a_machine_short_of_memory_is_told_so(seen: Memory, level: str, says: str) -> None:
    found = only(memory.judge(seen))
    assert (found.level, says in found.finding) == (level, True)


def test_enough_memory_is_no_finding() -> None:
    assert [*memory.judge(Memory(16 * GIB, 8 * GIB, GIB, stalled=0.5, level=1))] == []


def test_the_kernels_pressure_is_read(tmp_path: Path) -> None:
    pressure = tmp_path / "memory"
    pressure.write_text(
        "some avg10=12.50 avg60=3.00 avg300=1.00 total=1\nfull avg10=9.00 avg60=1.0 avg300=0.1 total=1\n"
    )
    assert memory.probe(pressure).stalled == 12.5
    assert memory.probe(tmp_path / "none").stalled is None


def test_a_model_beyond_the_budget_is_named_with_the_setting_that_fits(scene: Scene) -> None:
    weights = scene.file.parent / "weights"
    weights.mkdir()
    shape = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "max_position_embeddings": 131072}
    (weights / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **shape}))
    (weights / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [3 * GIB], "data_offsets": [0, 3 * GIB]}}).encode()
    (weights / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(weights / "model.safetensors", 8 + len(header) + 3 * GIB)  # sparse: it takes no room
    models = "models: {a: {source: ./weights, backend: vllm, engine: {kv_cache_memory_bytes: 34359738368}}}"
    text = f"version: 1\nenvironment: {{accelerator: cpu}}\nmemory: {{budget: 12GiB}}\n{models}\n"
    scene = with_file(scene, text)
    _pretend_installed(scene)
    found = only(found for found in memory.check(scene) if "model" in found.finding)
    assert "`a` needs" in found.finding
    assert "`memory.budget` is 12.0 GiB" in found.finding
    assert "max_model_len: " in found.remedy


def _pretend_installed(scene: Scene) -> None:
    """An environment's marker, which is all that an estimate looks at."""
    assert scene.loaded is not None
    (spec,) = choose_environments(scene.loaded.appliance, scene.state).values()
    path = scene.state.environments / spec.name
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(sys.executable)
    at = datetime.now(UTC)
    write_marker(InstalledEnvironment(spec.name, path, path / "bin" / "python", "CpuPlatform", {}, at, 0), "0")


# Place


def test_a_port_that_is_taken_is_named_with_its_holder(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        found = only(place.check_port(with_file(scene, f"version: 1\nserver: {{port: {port}}}\n")))
    assert str(port) in found.finding
    assert str(os.getpid()) in found.finding


def test_a_full_disk_is_a_problem(scene: Scene, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    script = (
        "import sys; from pathlib import Path; from appliance.doctor import place\n"
        "from appliance.doctor.scene import Scene\n"
        "from appliance.state import StateDirectory\n"
        "print([f.finding for f in place.check_disk(Scene(StateDirectory(Path(sys.argv[1])), {}, Path('x')))])"
    )
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=64m tmpfs {small} && exec {sys.executable} -c "$0" {small}'
    result = subprocess.run(
        ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mount, script], capture_output=True, text=True, check=True
    )
    assert "0.1 GiB left" in result.stdout


@pytest.mark.parametrize("name", ["environments", "models", "history", "logs", "run"])
def test_a_file_where_a_directory_belongs_is_corrupt(scene: Scene, name: str) -> None:
    place_of: Path = getattr(scene.state, name)
    place_of.rmdir()
    place_of.write_text("?")
    assert "is not a directory" in only(place.check_state(scene)).finding


def test_every_history_record_that_cannot_be_read_is_named(scene: Scene) -> None:
    (scene.state.history / "000001.json").write_text('{"generation": 1')
    (scene.state.history / "000002.json").write_bytes(b"\xff\x00")
    first, second = place.check_state(scene)
    assert "000001.json" in first.finding
    assert "000002.json" in second.remedy
    assert "refuses until then" in second.remedy


def test_a_document_that_is_no_json_is_corrupt(scene: Scene) -> None:
    (scene.state.root / "compose.json").write_text("{")
    assert "compose.json" in only(place.check_state(scene)).finding


def test_a_run_directory_that_others_may_enter_is_corrupt(scene: Scene) -> None:
    scene.state.run.chmod(0o755)
    assert "open to others" in only(place.check_state(scene)).finding


def test_a_socket_that_nobody_answers_is_named(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(scene.state.control_socket))
    assert "appliance.sock" in only(place.check_sockets(scene)).finding


# Network and clock


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"HTTPS_PROXY": "http://", "NO_PROXY": "localhost"}, "HTTPS_PROXY is no address"),
        ({"http_proxy": "proxy:port", "no_proxy": "127.0.0.1"}, "http_proxy is no address"),
        ({"HTTPS_PROXY": "http://user:hunter22@proxy:8080"}, "NO_PROXY does not name this machine"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
    ],
)
def test_proxy_settings_that_break_things_are_named(environ: dict[str, str], says: str) -> None:
    found = only(network.judge_proxies(environ))
    assert says in found.finding
    assert "hunter22" not in str(found)


def test_a_proxy_with_an_exemption_for_loopback_is_fine() -> None:
    assert [*network.judge_proxies({"HTTPS_PROXY": "http://proxy:8080", "NO_PROXY": "localhost,127.0.0.1"})] == []


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_certificates_that_cannot_be_used_are_named(scene: Scene, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    found = only(network.check_certificates(replace(scene, environ={"SSL_CERT_FILE": str(path)})))
    assert str(path) in found.finding


def test_a_clock_behind_the_files_is_wrong(scene: Scene) -> None:
    os.utime(scene.file, (time.time() + 30 * network.DAY,) * 2)
    assert "files here are newer" in next(iter(network.check_clock(scene))).finding


def test_a_clock_that_nobody_keeps_is_a_warning() -> None:
    assert only(network.judge_clock(1e9, 0.0, "no")).level == "warning"
    assert [*network.judge_clock(1e9, 0.0, "yes")] == []
    assert [*network.judge_clock(1e9, 0.0, None)] == []


# Access


def test_refusals_are_counted_by_reason(scene: Scene) -> None:
    lines = [
        json.dumps({"event": "request", "status": 401, "path": "/v1/models", "reason": "no_key"}),
        json.dumps({"event": "request", "status": 401, "path": "/v1/models", "reason": "no_key"}),
        "12:00:00 [info     ] request    path=/v1/chat/completions reason='expired_key laptop' status=401",
        json.dumps({"event": "request", "status": 200, "path": "/v1/models"}),
        "model tiny: ready",
        "{broken",
    ]
    first, second = access.check(replace(scene, log=lines))
    assert "2 requests to /v1/models" in first.finding
    assert "no API key" in first.cause
    assert "`laptop`" in second.finding
    assert "expired" in second.cause
