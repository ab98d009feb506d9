from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.models import Appliance
from appliance.engines import driver_for
from appliance.engines.command import Command, unknown_placeholders
from appliance.engines.driver import Launch
from appliance.errors import ConfigError
from appliance.plan.desired import EngineSpec

LAUNCH = Launch(python=None, model=Path("/m/x.gguf"), directory=Path("/run/e-1"), key="s3cret", port=1234)


def spec(*command: str) -> EngineSpec:
    return EngineSpec(model="smol", backend="llamacpp", source="/m/x.gguf", command=command, health="/up")


def test_placeholders_are_replaced() -> None:
    command = ("llama-server", "--model", "{model}", "--port={port}", "--alias", "{name}", "--at", "{socket}")
    argv = Command("llamacpp", command).argv(spec(*command), LAUNCH)
    assert argv == (
        "llama-server",
        "--model",
        "/m/x.gguf",
        "--port=1234",
        "--alias",
        "smol",
        "--at",
        "/run/e-1/engine.sock",
    )


def test_json_in_an_argument_stays_as_it_is() -> None:
    command = ("server", '{"a": {"b": 1}}', "{}")
    assert Command("x", command).argv(spec(*command), LAUNCH) == command


def test_placeholder_that_nothing_replaces_is_refused() -> None:
    command = ("server", "{prot}")
    assert unknown_placeholders(command) == ("prot",)
    with pytest.raises(ConfigError, match=r"`backends.x.command`: nothing replaces `\{prot\}`"):
        Command("x", command).argv(spec(*command), LAUNCH)


@pytest.mark.parametrize(("word", "transport"), [("{socket}", "unix"), ("{port}", "tcp"), ("fixed", "tcp")])
def test_command_that_names_the_socket_listens_on_it(word: str, transport: str) -> None:
    assert Command("x", ("server", word)).transport == transport


def test_key_is_in_the_environment_only() -> None:
    driver = Command("x", ("server", "{port}"))
    assert driver.env(spec("server", "{port}"), LAUNCH) == {"VLLM_API_KEY": "s3cret", "LLAMA_API_KEY": "s3cret"}


def test_arguments_belong_into_the_command() -> None:
    (problem,) = Command("llamacpp", ("server",)).check({"ctx_size": 4096})
    assert problem.hint == "write it into `backends.llamacpp.command`"


def test_driver_is_chosen_by_the_backends_name() -> None:
    appliance = Appliance.model_validate({"backends": {"llamacpp": {"command": ("llama-server", "{port}")}}})
    assert driver_for("llamacpp", appliance).transport == "tcp"
    assert driver_for("vllm", appliance).name == "vllm"
    with pytest.raises(ConfigError, match="there is no backend `vlm`"):
        driver_for("vlm", appliance)


def test_health_path_is_the_files_own() -> None:
    assert Command("x", ("server",)).health(spec("server")) == "/up"
