from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.models import Appliance
from appliance.plan.desired import EngineSpec
from appliance.reconcile.resolve import automatic, resolve

BASE = Path("/etc/appliance")


def appliance(**model: object) -> Appliance:
    return Appliance.model_validate({"models": {"m": {"source": "pypi:x==1", **model}}})


def spec(**model: object) -> object:
    return resolve(appliance(**model), environments={"vllm": "env-1"}, base=BASE)["m"].spec


def test_equal_files_give_equal_specs_and_one_revision() -> None:
    first = resolve(appliance(engine={"b": 1, "a": [1, 2]}), environments={"vllm": "e"}, base=BASE)["m"].spec
    second = resolve(appliance(engine={"a": [1, 2], "b": 1}), environments={"vllm": "e"}, base=BASE)["m"].spec
    assert first == second
    assert first.revision == second.revision
    assert first.arguments == {"a": [1, 2], "b": 1}


def test_what_needs_another_process_changes_the_revision() -> None:
    changes: list[dict[str, object]] = [
        {"source": "pypi:x==2"},
        {"engine": {"max_model_len": 1}},
        {"env": {"A": "1"}},
    ]
    assert len({spec(), *(spec(**change) for change in changes)}) == 4


def test_what_can_change_live_does_not() -> None:
    changes: list[dict[str, object]] = [
        {"aliases": ["a"]},
        {"sampling": {"temperature": 0.5}},
        {"load": "on_demand"},
        {"rollout": {"drain_timeout": "1s"}},
    ]
    assert {spec(**change) for change in changes} == {spec()}


def test_another_engine_environment_is_another_revision() -> None:
    first = resolve(appliance(), environments={"vllm": "env-1"}, base=BASE)["m"].spec
    second = resolve(appliance(), environments={"vllm": "env-2"}, base=BASE)["m"].spec
    assert first.revision != second.revision


def test_local_paths_start_at_the_files_directory() -> None:
    model = resolve(appliance(source="./weights"), environments={}, base=BASE)["m"]
    assert model.spec.source == "/etc/appliance/weights"


def test_secrets_in_env_do_not_show_in_a_repr() -> None:
    assert "hunter2" not in repr(spec(env={"TOKEN": "hunter2"}))


def test_media_domains_are_an_argument_of_every_engine_that_knows_it() -> None:
    def arguments(backend: str) -> dict[str, object]:
        document = {
            "server": {"media_domains": ["images.example"]},
            "models": {"m": {"source": "/m", "backend": backend}},
            "backends": {"own": {"command": ["server"]}},
        }
        return resolve(Appliance.model_validate(document), environments={}, base=BASE)["m"].spec.arguments

    assert arguments("vllm") == {"allowed_media_domains": ["images.example"]}
    assert arguments("own") == {}


@pytest.mark.parametrize(
    ("system", "machine", "backend"),
    [("darwin", "arm64", "vllm-metal"), ("darwin", "x86_64", "vllm"), ("linux", "aarch64", "vllm")],
)
def test_automatic_backend_is_metal_on_apple_silicon_alone(system: str, machine: str, backend: str) -> None:
    assert automatic(system, machine) == backend


def test_metal_device_reaches_the_engine_and_makes_another_revision() -> None:
    def metal(device: str) -> EngineSpec:
        file = {"backend": "vllm-metal", "models": {"m": {"source": "pypi:x==1"}}, "metal": {"device": device}}
        return resolve(Appliance.model_validate(file), environments={}, base=BASE)["m"].spec

    assert dict(metal("cpu").env) == {"METAL_DEVICE": "cpu"}
    assert metal("default").env == ()
    assert metal("cpu").revision != metal("default").revision
