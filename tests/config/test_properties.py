"""Any configuration survives being written down; any bytes are either one or a ConfigError."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.dump import to_plain, to_yaml
from appliance.config.fields import every_field
from appliance.config.load import Loaded, interpret, load
from appliance.config.models import Appliance
from appliance.config.scalars import format_duration, format_size, parse_duration, parse_size
from appliance.errors import ConfigError
from tests.config.support import FILE

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
words = st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc"]), min_size=1, max_size=20)
durations = st.integers(1, 10**10).map(lambda milliseconds: format_duration(timedelta(milliseconds=milliseconds)))
sizes = st.integers(1, 2**53).map(format_size)
shares = st.integers(1, 1000).map(lambda permille: f"{permille / 10:g}%")
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15)
arguments = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
secrets = st.just("${env:SECRET}")


def optional(**entries: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=entries)


models = st.fixed_dictionaries(
    {"source": words},
    optional={
        "backend": st.sampled_from(["vllm", "auto"]),
        "load": st.sampled_from(["startup", "on_demand"]),
        "idle_unload": durations | st.none(),
        "engine": st.dictionaries(names, arguments, max_size=3),
        "sampling": optional(
            temperature=st.floats(0, 2),
            top_p=st.floats(0.01, 1),
            top_k=st.integers(-1, 100),
            max_tokens=st.integers(1, 9),
        ),
        "env": st.dictionaries(words, secrets, max_size=2),
        "rollout": optional(strategy=st.sampled_from(["auto", "surge"]), ready_timeout=durations, probe=st.booleans()),
    },
)
keys = st.builds(
    lambda name, index, expires: {"name": f"{name}{index}", "sha256": f"{index:064x}", "expires": expires},
    st.sampled_from(["a", "b"]),
    st.integers(0, 10**6),
    st.none() | st.dates(date(2020, 1, 1), date(2100, 1, 1)).map(date.isoformat),
)
files = st.fixed_dictionaries(
    {"models": st.dictionaries(names, models, min_size=1, max_size=3)},
    optional={
        "version": st.just(1),
        "server": optional(
            port=st.integers(0, 65535),
            metrics=st.booleans(),
            max_body=sizes,
            host=st.sampled_from(["127.0.0.1", "::1"]),
        ),
        "auth": optional(keys=st.lists(keys, max_size=3, unique_by=lambda key: key["sha256"])),
        "memory": optional(budget=sizes | shares),
        "environment": optional(
            python=words.map(lambda word: f"/{word}"), accelerator=st.sampled_from(["cpu", "cuda"])
        ),
        "backends": st.dictionaries(
            names.filter(lambda name: name not in ("auto", "vllm")),
            st.fixed_dictionaries({"command": st.lists(words, min_size=1, max_size=3)}, optional={"env": st.just({})}),
            max_size=2,
        ),
        "huggingface": optional(token=secrets),
    },
)


def printable(error: ConfigError) -> None:
    assert error.message.splitlines()[1:]
    assert error.message.replace("\n", "").isprintable()


def read(text: str) -> Loaded:
    return interpret(text, FILE, environ={"SECRET": "s3cret"}, backends=frozenset({"vllm"}))


@given(files)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_configuration_survives_being_written_as_yaml_and_as_json(data: dict[str, Any]) -> None:
    appliance = read(json.dumps(data)).appliance
    plain = to_plain(appliance)
    assert "s3cret" not in json.dumps(plain)
    assert read(json.dumps(plain)).appliance == appliance
    assert read(to_yaml(appliance)).appliance == appliance
    assert to_plain(read(json.dumps(plain)).appliance) == plain


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_configuration_or_a_config_error(tmp_path_factory: Any, content: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzzed.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(load(path, environ={}).appliance, Appliance)
    except ConfigError as error:
        printable(error)


FRAGMENTS = """
models: | a: | source: x | server: | port: 1 | {|}|[|]| &a | *a | <<: | !!set |'|"|#| ? | : |>| --- | ... |%|@| ~
null | no | 1.5 | 0x1 | auth: | keys: | env: |${env:X}|${| engine: | profile: demo | version: 1 | aliases: [a] | -
huggingface: | token: | | \t
"""
fragments = st.sampled_from([*re.split(r"[|\n]", FRAGMENTS), "\n", "\n  ", "\n    ", "|"])


@given(
    st.lists(fragments, max_size=30).map("".join),
    st.dictionaries(
        st.sampled_from(
            [
                "PORT",
                "API_KEY",
                "APPLIANCE_SERVER",
                "APPLIANCE_MODELS__A__ENGINE",
                "APPLIANCE_X",
                "HF_TOKEN",
                "MODEL_PATH",
            ]
        ),
        st.text(max_size=10),
        max_size=3,
    ),
)
@settings(max_examples=400, deadline=None)
def test_anything_that_looks_like_a_file_is_a_configuration_or_a_config_error(
    text: str, environ: dict[str, str]
) -> None:
    try:
        interpret(text, FILE, environ=environ, backends=frozenset({"vllm"}))
    except ConfigError as error:
        printable(error)


KEYS = sorted({part for path, _ in every_field() for part in path})
wild = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(wild)
@settings(max_examples=400, deadline=None)
def test_well_formed_nonsense_is_a_config_error_with_places(data: Any) -> None:
    try:
        interpret(json.dumps(data), FILE, environ={}, backends=frozenset({"vllm"}))
    except ConfigError as error:
        printable(error)


@given(st.text(max_size=12))
def test_scalar_parsers_refuse_with_value_error_only(text: str) -> None:
    for parser in (parse_duration, parse_size):
        try:
            parser(text)
        except ValueError:
            continue
