"""Precedence, one source at a time and together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from appliance.config.load import load
from appliance.config.precedence import PRECEDENCE
from appliance.config.problems import InvalidConfig
from tests.config.support import HASH, MODEL, loaded

PORT = ("server", "port")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "own.yaml").write_text(
        "server: {port: 4, host: '::1', log: json}\nmodels: {smollm2: {engine: {a: 1, b: 1}}}\n"
    )
    text = "profile: ./own.yaml\nserver: {port: 3, host: 127.0.0.2}\nmodels: {smollm2: {source: x, engine: {b: 2}}}\n"
    (tmp_path / "model-runner.yaml").write_text(text)
    return tmp_path


def test_the_order_is_written_down_once() -> None:
    assert PRECEDENCE == ("command line", "environment", "file", "profile")


def test_command_line_wins_over_environment_over_file_over_profile_over_default(directory: Path) -> None:
    path = directory / "model-runner.yaml"
    environ = {"PORT": "2"}
    everything = load(path, environ=environ, overrides={"server.port": 1})
    assert everything.appliance.server.port == 1
    assert everything.origins(PORT) == (
        "--port",
        "environment variable PORT",
        f"{path}:2:10",
        f"profile ./own.yaml ({directory / 'own.yaml'}:1:10)",
    )
    assert load(path, environ=environ).appliance.server.port == 2
    assert load(path, environ={}).appliance.server.port == 3
    (directory / "model-runner.yaml").write_text(f"profile: own.yaml\n{MODEL}")
    assert load(path, environ={}).appliance.server.port == 4
    assert loaded().appliance.server.port == 8000
    assert loaded().origin(PORT) == "default"


def test_mappings_are_merged_and_each_value_knows_its_source(directory: Path) -> None:
    result = load(directory / "model-runner.yaml", environ={"APPLIANCE_MODELS__SMOLLM2__ENGINE__C": "[3]"})
    assert result.appliance.models["smollm2"].engine == {"a": 1, "b": 2, "c": (3,)}
    assert result.appliance.server.log == "json"
    assert result.origin(("models", "smollm2", "engine", "a")).startswith("profile ./own.yaml (")
    assert result.origin(("models", "smollm2", "engine", "c")).endswith("APPLIANCE_MODELS__SMOLLM2__ENGINE__C")


def test_lists_are_replaced_not_joined(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("models: {a: {aliases: [x, y, z]}}\n")
    result = loaded("profile: p.yaml\nmodels: {a: {source: s, aliases: [w]}}\n", path=tmp_path / "model-runner.yaml")
    assert result.appliance.models["a"].aliases == ("w",)


def test_a_flag_that_was_not_given_says_nothing() -> None:
    assert loaded(overrides={"server.port": None}).origin(PORT) == "default"


def test_the_model_flag_and_the_profile_flag_are_named_as_typed() -> None:
    result = loaded(None, overrides={"models.default.source": "./m", "profile": "demo"}, path=None)
    assert result.origin(("models", "default", "source")) == "--model"
    assert result.appliance.profile == "demo"
    assert result.origin(("memory", "budget")).startswith("profile demo (")


def test_model_path_stands_in_for_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = load(Path("model-runner.yaml"), environ={"MODEL_PATH": "./weights"})
    assert result.appliance.models["default"].source == "./weights"
    assert result.path is None
    with pytest.raises(InvalidConfig, match="there is no such file"):
        load(Path("model-runner.yaml"), environ={})
    with pytest.raises(InvalidConfig, match="there is no such file"):
        load(Path("other.yaml"), environ={"MODEL_PATH": "./weights"})


def test_without_file_and_model_path_the_missing_model_is_the_problem() -> None:
    with pytest.raises(InvalidConfig, match="the configuration: models: no model"):
        loaded(None, path=None)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read: is a directory"):
        load(tmp_path, environ={})
    with pytest.raises(InvalidConfig, match="cannot be read: embedded null"):
        load(Path("a\0b"), environ={})
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        load(tmp_path / "latin.yaml", environ={})


def test_model_runners_variables_keep_working() -> None:
    environ = {"MODEL_PATH": "/weights", "PORT": "9", "METAL_DEVICE": "cpu", "HF_TOKEN": "hf_${x}", "API_KEY": "k" * 32}
    appliance = loaded(None, environ, path=None).appliance
    assert appliance.models["default"].source == "/weights"
    assert appliance.server.port == 9
    assert appliance.metal.device == "cpu"
    assert appliance.huggingface.token is not None
    assert appliance.huggingface.token.get_secret_value() == "hf_${x}"
    assert appliance.auth.keys[0].sha256 == hashlib.sha256(b"k" * 32).hexdigest()


def test_empty_short_variables_count_as_unset() -> None:
    result = loaded(environ={"MODEL_PATH": "", "PORT": "", "METAL_DEVICE": "", "HF_TOKEN": "", "API_KEY": ""})
    assert result.appliance == loaded().appliance


def test_api_key_is_one_more_key_beside_those_of_the_file() -> None:
    text = f"auth: {{keys: [{{name: laptop, sha256: {HASH}}}]}}\n{MODEL}"
    result = loaded(text, {"API_KEY": "k" * 16})
    laptop, added = result.appliance.auth.keys
    assert (laptop.name, added.name) == ("laptop", "API_KEY")
    assert added.scopes == ("inference", "metrics")
    assert result.origin(("auth", "keys", 1, "sha256")) == "environment variable API_KEY"
    assert result.origin(("auth", "keys", 0)) == "model-runner.yaml:1:15"
    assert result.warnings == ()
    assert "k" * 16 not in repr(result)


def test_api_key_opens_the_server_to_other_machines() -> None:
    assert loaded(f"server: {{host: 0.0.0.0}}\n{MODEL}", {"API_KEY": "k" * 16}).appliance.server.host == "0.0.0.0"


def test_a_short_api_key_is_a_warning_because_model_runner_took_it() -> None:
    (warning,) = loaded(environ={"API_KEY": "secret"}).warnings
    assert warning.source == "environment variable API_KEY"
    assert "shorter than 16" in warning.message


def test_variables_reach_every_kind_of_field() -> None:
    result = loaded(
        "models: {Qwen2.5-0.5B: {source: ./q}}\nbackends: {own: {command: [a]}}\n",
        {
            "APPLIANCE_SERVER__METRICS": "true",
            "APPLIANCE_MEMORY__BUDGET": "24GiB",
            "APPLIANCE_MODELS__QWEN2_5_0_5B__IDLE_UNLOAD": "null",
            "APPLIANCE_MODELS__QWEN2_5_0_5B__SAMPLING__TEMPERATURE": "0.5",
            "APPLIANCE_MODELS__QWEN2_5_0_5B__ALIASES": "[a, b]",
            "APPLIANCE_MODELS__QWEN2_5_0_5B__ENGINE__ENFORCE_EAGER": "true",
            "APPLIANCE_MODELS__QWEN2_5_0_5B__ENV__OMP_NUM_THREADS": "4",
            "APPLIANCE_BACKENDS__OWN": "{health: /ok}",
            "APPLIANCE_BACKENDS__OWN__ENV__Mixed": "1",
            "APPLIANCE_HOME": "/var/lib/appliance",
            "APPLIANCES": "not ours",
        },
    )
    model = result.appliance.models["Qwen2.5-0.5B"]
    assert result.appliance.server.metrics is True
    assert result.appliance.memory.budget == 24 * 1024**3
    assert model.idle_unload is None
    assert model.sampling.temperature == 0.5
    assert model.aliases == ("a", "b")
    assert model.engine == {"enforce_eager": True}
    assert model.env["OMP_NUM_THREADS"].get_secret_value() == "4"
    assert result.appliance.backends["own"].health == "/ok"
    assert result.appliance.backends["own"].env["Mixed"].get_secret_value() == "1"


def test_a_variable_for_a_section_and_one_for_a_field_in_it_add_up() -> None:
    environ = {"APPLIANCE_SERVER": "{metrics: true}", "PORT": "9"}
    server = loaded(environ=environ).appliance.server
    assert (server.metrics, server.port) == (True, 9)
    with pytest.raises(InvalidConfig, match=r"PORT: server\.port: differs from APPLIANCE_SERVER"):
        loaded(environ={"APPLIANCE_SERVER": "{port: 8}", "PORT": "9"})
    with pytest.raises(InvalidConfig, match="APPLIANCE_SERVER: server: expected a mapping, got text"):
        loaded(environ={"APPLIANCE_SERVER": "yes please", "PORT": "9"})


def test_two_variables_that_agree_are_no_problem() -> None:
    assert loaded(environ={"PORT": "9", "APPLIANCE_SERVER__PORT": "9"}).appliance.server.port == 9


def test_a_variable_that_is_not_utf_8_is_a_problem() -> None:
    with pytest.raises(InvalidConfig, match="surrogate"):
        loaded(environ={"APPLIANCE_SERVER__PORT": "\udc80"})


def test_profile_by_variable_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.yml").write_text("server: {port: 5}\n")
    monkeypatch.chdir(tmp_path)
    assert loaded(environ={"APPLIANCE_PROFILE": "p.yml"}).appliance.server.port == 5


def test_a_profile_may_not_name_a_profile(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("profile: demo\n")
    with pytest.raises(InvalidConfig, match=r"p\.yaml:1:1: profile: a profile may not name a profile"):
        loaded(f"profile: p.yaml\n{MODEL}", path=tmp_path / "model-runner.yaml")


def test_problems_of_a_profile_are_reported_in_the_profile(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("server: {prot: 1}\n")
    with pytest.raises(InvalidConfig, match=r"p\.yaml:1:10: server\.prot: unknown key"):
        loaded(f"profile: p.yaml\n{MODEL}", path=tmp_path / "model-runner.yaml")
    (tmp_path / "p.yaml").write_text("server: [\n")
    with pytest.raises(InvalidConfig, match=r"p\.yaml:2:1: expected a value here"):
        loaded(f"profile: p.yaml\n{MODEL}", path=tmp_path / "model-runner.yaml")


def test_an_unknown_profile_far_from_any_lists_those_there_are() -> None:
    with pytest.raises(InvalidConfig, match=r"shipped profiles: .*demo"):
        loaded(f"profile: zzzzzz\n{MODEL}")


def test_what_the_caller_checks_is_reported_at_its_place() -> None:
    text = "models:\n  smollm2:\n    source: x\n    engine:\n      max_modle_len: 1\n"
    path = ("models", "smollm2", "engine", "max_modle_len")
    with pytest.raises(InvalidConfig) as caught:
        loaded(text, check=lambda _: [(path, "vLLM has no such argument", "did you mean `max_model_len`?")])
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (5, "vLLM has no such argument")
