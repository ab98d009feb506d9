"""Whatever is put in: the output is valid, every key is accounted for once, and no secret comes out."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.cli.migrate import validated
from appliance.engines import vllm_arguments
from appliance.errors import ApplianceError
from appliance.migrate import report
from appliance.migrate.detect import Kind
from appliance.migrate.flags import llama_server_flags
from appliance.migrate.inputs import Input
from appliance.migrate.migration import Migration, Request, migrate
from appliance.migrate.rules import LEVELS, vocabulary
from appliance.migrate.target import named

EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TARGET = named("m2-16gb")

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
plain = st.one_of(st.booleans(), st.integers(-10, 10**6), st.floats(0, 2, allow_nan=False), words)
secrets = st.from_regex(r"sk-[a-zA-Z0-9]{24}", fullmatch=True)
models = st.sampled_from(
    [
        "ai/smollm2",
        "ai/qwen3:4B",
        "ai/llama3.2",
        "hf.co/Qwen/Qwen3-0.6B",
        "hf.co/a/b-GGUF:Q4_K_M",
        "ai/nobody",
        "x.io/y/z:1",
    ]
)


def run(text: str, kind: Kind, **more: Any) -> Migration:
    with TemporaryDirectory() as directory:
        source = Input("input", text, Path(directory), Path(directory) / "input.yaml")
        request = Request((source,), Path(directory), TARGET, kind=kind, backend="vllm-metal", **more)
        return migrate(request, validated)


def proved(migration: Migration) -> Migration:
    """`migrate` validates what it would write; here: it wrote what it found models for, and says everything once."""
    keys = Counter((row.place, row.key) for row in migration.rows)
    assert [key for key, count in keys.items() if count > 1] == []
    assert all(row.level in LEVELS and row.why for row in migration.rows)
    if migration.sizes:
        names = [output.path.name for output in migration.outputs]
        assert "model-runner.yaml" in names
        validated(migration.text, Path("model-runner.yaml"))
    assert report.as_text(migration)
    assert report.as_markdown(migration).count("\n## ") >= bool(migration.rows)
    json.dumps(report.as_json(migration, written=False))
    return migration


def read_or_refused(text: str, kind: Kind) -> None:
    """Anything but an ApplianceError would end the command as a bug."""
    with contextlib.suppress(ApplianceError):
        proved(run(text, kind))


def said(migration: Migration) -> str:
    """All that a person or another program gets to see."""
    printed = [report.as_text(migration), report.as_markdown(migration)]
    printed.append(json.dumps(report.as_json(migration, written=False)))
    ours = [output.text for output in migration.outputs if output.path.name in ("model-runner.yaml", "metal.yaml")]
    return "\n".join([*printed, *ours, migration.text])


vllm_values: Mapping[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-5, 200_000).map(str),
    "float": st.floats(0, 4, allow_nan=False).map(str),
    "json": st.sampled_from(['{"a": 1}', "[]", "{", "null"]),
    "list": st.lists(words.filter(lambda word: not word.startswith("-")), min_size=1, max_size=3),
}


def accounted(engine: str, argv: list[str], flags: list[str]) -> None:
    keys = [row.key for row in proved(run(shlex.join(argv), "shell")).rows]
    assert [keys.count(f"{engine} {flag}") for flag in flags] == [1] * len(flags), (flags, keys)


@st.composite
def vllm_commands(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A command line, and the names of its flags."""
    arguments = vllm_arguments.arguments()
    names = draw(st.lists(st.sampled_from(sorted(arguments)), unique=True, max_size=12))
    argv = ["vllm", "serve", draw(st.sampled_from(["Qwen/Qwen3-0.6B", "./weights", "a/b-AWQ", "gpt2", "/x/y.gguf"]))]
    spelled = []
    for name in names:
        argument = arguments[name]
        flag = argument["flag"]
        if argument["type"] == "bool":
            flag = draw(st.sampled_from([flag, argument.get("negative", flag)]))
            argv.append(flag)
        else:
            value = draw(vllm_values.get(argument["type"], words.filter(lambda word: not word.startswith("-"))))
            argv += [flag, *([value] if isinstance(value, str) else value)]
        spelled.append(flag)
    return argv, spelled


@EXAMPLES
@given(vllm_commands())
def test_any_command_line_of_vllm_gives_a_valid_file_and_a_row_for_each_flag(
    command: tuple[list[str], list[str]],
) -> None:
    accounted("vllm", *command)


@st.composite
def llama_commands(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    spellings = sorted(llama_server_flags())
    chosen = draw(
        st.lists(st.sampled_from(spellings), unique_by=lambda name: llama_server_flags()[name].word, max_size=12)
    )
    argv = ["llama-server", "-m", draw(st.sampled_from(["a.gguf", "./m/Qwen3-8B-Q8_0.gguf"]))]
    chosen = [name for name in chosen if llama_server_flags()[name].word != "--model"]
    for name in chosen:
        count = llama_server_flags()[name].operands
        value = st.one_of(
            st.integers(-3, 70_000).map(str), st.floats(0, 3).map(str), st.sampled_from(["on", "x", "auto"])
        )
        argv += [name, *(draw(value) for _ in range(1 if count is None else count))]
    return argv, chosen


@EXAMPLES
@given(llama_commands())
def test_any_command_line_of_llama_server_gives_a_valid_file_and_a_row_for_each_flag(
    command: tuple[list[str], list[str]],
) -> None:
    accounted("llama-server", *command)


names = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
runtime_flags = st.lists(
    st.sampled_from(
        [
            "--temp",
            "0.7",
            "--mlock",
            "--ctx-size",
            "4096",
            "-np",
            "2",
            "--no-such",
            "-ngl",
            "99",
            "stray",
            "--top-k",
            "0",
        ]
    ),
    max_size=6,
)


@st.composite
def compose_projects(draw: st.DrawFn) -> dict[str, Any]:
    declared = draw(
        st.dictionaries(
            names,
            st.fixed_dictionaries(
                {"model": models},
                optional={
                    "context_size": st.one_of(st.integers(-1, 200_000), words),
                    "runtime_flags": runtime_flags,
                    "name": words,
                    "x-extra": plain,
                },
            ),
            max_size=4,
        )
    )
    references = st.sampled_from([*declared, "nobody"])
    service = st.fixed_dictionaries(
        {
            "image": st.sampled_from(
                ["app", "nginx:1", "vllm/vllm-openai", "docker/model-runner", "ghcr.io/ggml-org/llama.cpp:server"]
            )
        },
        optional={
            "models": st.one_of(
                st.lists(references, unique=True, max_size=3), st.dictionaries(references, st.none(), max_size=2)
            ),
            "command": st.one_of(words, st.lists(plain, max_size=4)),
            "environment": st.one_of(
                st.dictionaries(names.map(str.upper), plain, max_size=3), st.lists(words, max_size=3, unique=True)
            ),
            "ports": st.lists(st.sampled_from(["8000:8000", "127.0.0.1:9000:80", 8080, "x"]), max_size=2, unique=True),
            "deploy": st.dictionaries(names, plain, max_size=2),
            "profiles": st.lists(names, max_size=1),
            "x-y": plain,
        },
    )
    services = draw(st.dictionaries(names, service, max_size=4))
    return {"services": services, **({"models": declared} if declared else {})}


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, str(name)))]
    return [path]


@EXAMPLES
@given(compose_projects())
@example({"services": {"a": {"image": "app", "models": ["m"]}}, "models": {"m": {"model": "ai/smollm2"}}})
def test_any_compose_file_gives_a_valid_file_and_every_key_is_accounted_for(project: dict[str, Any]) -> None:
    migration = proved(run(yaml.safe_dump(project, allow_unicode=True), "compose"))
    keys = [row.key for row in migration.rows]
    for leaf in leaves(project):
        if leaf[0] == "services" and len(leaf) < 2:
            continue  # no service at all
        above = [".".join(leaf[:length]) for length in range(1, len(leaf) + 1)]
        accounted = [
            key for key in keys if any(key == name or key.startswith((f"{name} ", f"{name}[")) for name in above)
        ]
        below = [key for key in keys if key.startswith(".".join(leaf) + ".")]  # a list's items have rows of their own
        assert accounted or below, leaf


@EXAMPLES
@given(compose_projects())
def test_a_rewritten_compose_file_has_no_models_left_and_migrates_to_itself(project: dict[str, Any]) -> None:
    migration = run(yaml.safe_dump(project, allow_unicode=True), "compose")
    rewritten = [output for output in migration.outputs if output.path.name.endswith(".appliance.yaml")]
    for output in rewritten:
        data = yaml.safe_load(output.text)
        assert "models" not in data
        assert not any("models" in service for service in data["services"].values())
        again = run(output.text, "compose")
        assert again.outputs == []


@EXAMPLES
@given(secrets, st.sampled_from(["command", "environment", "env_value", "url", "label", "unknown", "list"]), names)
def test_a_secret_comes_out_nowhere(secret: str, where: str, name: str) -> None:
    service: dict[str, Any] = {"image": "vllm/vllm-openai", "command": ["--model", "Qwen/Qwen3-0.6B"]}
    match where:
        case "command":
            service["command"] += ["--api-key", secret, "--hf-token", secret]
        case "environment":
            service["environment"] = {"VLLM_API_KEY": secret, "HF_TOKEN": secret, "MY_SECRET": secret}
        case "env_value":
            service["environment"] = {"VLLM_LOGGING_PREFIX": secret, "VLLM_METAL_THING": secret}
        case "url":
            service["environment"] = {"PROXY": f"http://me:{secret}@host/"}
            service["command"] += ["--otlp-traces-endpoint", f"http://me:{secret}@host/"]
        case "label":
            service["labels"] = {name: f"Bearer {secret}"}
        case "unknown":
            service[name] = secret
            service["command"] += [f"--{name}", secret, secret]
        case "list":
            service["command"] += ["--served-model-name", secret, "--middleware", secret]
    project = {"services": {"engine": service}}
    assert secret not in said(proved(run(yaml.safe_dump(project), "compose")))


@EXAMPLES
@given(
    st.text(max_size=300),
    st.sampled_from(["compose", "env", "dockerfile", "shell", "systemd", "modelfile", "litellm", "helm"]),
)
@example("${A:-${B:-${C}}}$$${", "compose")
@example("FROM x\\\n\\\n\\", "dockerfile")
@example("[Service]\nExecStart=-@\n", "systemd")
@example("docker run -e", "shell")
@example('FROM\nCMD ["vllm", "serve", {}]', "dockerfile")
def test_any_text_is_read_or_refused_and_never_a_bug(text: str, kind: Kind) -> None:
    read_or_refused(text, kind)


json_values = st.recursive(
    st.none() | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS: tuple[Kind, ...] = (
    "compose",
    "docker-agent",
    "docker-inspect",
    "helm",
    "litellm",
    "llama-swap",
    "model-runner",
    "vllm-config",
)
HEADS: Mapping[str, tuple[str, ...]] = {
    "compose": ("models", "services", "include"),
    "docker-agent": ("agents", "models", "providers"),
    "helm": ("modelInit", "env", "service"),
    "litellm": ("model_list", "general_settings"),
    "llama-swap": ("models", "apiKeys", "hooks"),
    "vllm-config": ("model", "port", "api-key"),
}


@EXAMPLES
@given(st.sampled_from(DOCUMENTS), st.data())
def test_any_document_is_read_or_refused_and_never_a_bug(kind: Kind, data: st.DataObject) -> None:
    heads = HEADS.get(kind, ())
    document: Any = {head: data.draw(json_values) for head in heads}
    if not heads:
        document = data.draw(
            st.lists(
                st.dictionaries(
                    st.sampled_from(["Id", "Config", "Model", "Mode", "tags", "Name", "HostConfig"]), json_values
                ),
                min_size=1,
                max_size=3,
            )
        )
    read_or_refused(json.dumps(document), kind)


def test_every_vocabulary_is_used_by_a_case() -> None:
    """A rule file that no reader asks for would be dead; the golden cases are real inputs."""
    found = (Path(__file__).parent / "cases").glob("*/expected/output.txt")
    text = "\n".join(path.read_text() for path in found)
    for name in ("vllm-flags", "llama-server-flags", "compose", "containers", "helm", "ollama", "systemd", "litellm"):
        assert any(rule.why[:40] in " ".join(text.split()) for rule in vocabulary(name).rules.values()), name
