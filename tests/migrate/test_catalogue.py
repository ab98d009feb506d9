"""What a name tells of a model, and what becomes of it on a machine that is no Mac."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from appliance.cli.migrate import validated
from appliance.migrate import catalogue
from appliance.migrate.draft import Model
from appliance.migrate.importer import WHOLE, architectures, reads_tokenizer, unread
from appliance.migrate.inputs import Input
from appliance.migrate.migration import Migration, Request, migrate
from appliance.migrate.rules import shipped_migrations
from appliance.migrate.sizing import bits_per_weight
from appliance.migrate.target import GIB, Target, named, sized
from appliance.models.convert.mlx_form import mlx_bits
from appliance.models.convert.refused import Refused
from appliance.models.convert.tokenizer import tokenizer_files

SHIPPED = yaml.safe_load((shipped_migrations() / "models.yaml").read_text())
LINUX = sized("this-machine", 24 * GIB, apple=False)


def known(reference: str) -> catalogue.Known | None:
    source = catalogue.registry_source(reference)
    assert source is not None
    return catalogue.known(source)


def compose(reference: str, target: Target, folder: Path, **answers: str) -> Migration:
    text = f'services: {{app: {{image: app, models: [llm]}}}}\nmodels: {{llm: {{model: "{reference}"}}}}\n'
    source = Input("compose.yaml", text, folder, folder / "compose.yaml")
    backend = "vllm-metal" if target.apple else "vllm"
    return migrate(Request((source,), folder, target, kind="compose", backend=backend, answers=answers), validated)


def model_row(migration: Migration) -> tuple[str, str]:
    (row,) = [each for each in migration.rows if each.key == "models.llm.model"]
    return row.level, row.became


@pytest.mark.parametrize("name", SHIPPED["models"])
def test_every_name_of_the_catalogue_leads_to_its_latest_size_and_to_safetensors(name: str) -> None:
    entry = SHIPPED["models"][name]
    latest = known(name)
    assert latest is not None
    assert latest.parameters in [float(size["parameters"]) for size in entry["sizes"].values()]
    assert latest.stored
    assert entry["latest"].endswith(latest.stored)
    for size, facts in entry["sizes"].items():
        found = known(f"{name}:{size}")
        assert found is not None
        assert found.origin == facts["origin"]
        assert catalogue.acceptable(facts["origin"])
        assert catalogue.acceptable(f"oci:{name}:{facts.get('tag', size)}")


@pytest.mark.parametrize(
    ("reference", "architecture", "stored"),
    [
        ("ai/smollm2", "llama", "Q4_K_M"),
        ("smollm2:135M-Q4_0", "llama", "Q4_0"),
        ("registry.example.com:5000/ai/smollm2:135M-F16", "llama", "F16"),
        ("ai/qwen3:30B-A3B-F16", "qwen3moe", "F16"),
        ("ai/gemma3:270M-Q8_0", "gemma3", "Q8_0"),
        ("team/mistral-7b-instruct:Q5_K_M", "llama", "Q5_K_M"),
        ("team/gemma-3n-e4b", "gemma3n", None),
        ("team/smollm3", "smollm3", None),
    ],
)
def test_architecture_and_type_follow_from_a_name(reference: str, architecture: str, stored: str | None) -> None:
    found = known(reference)
    assert found is not None
    assert (found.architecture, found.stored) == (architecture, stored)


def test_a_name_that_tells_nothing_is_not_guessed_at() -> None:
    assert known("team/house") is None
    assert catalogue.registry_source("354bf30d0aa3") is None
    assert catalogue.registry_source("./model.gguf") is None


def test_a_mixture_of_experts_is_told_whatever_its_family() -> None:
    for reference in ("team/qwen3:235B-A22B-Q4_K_M", "ai/qwen3:235B-A22B-Q4_K_M", "team/mixtral:8x7B", "team/x-16x3b"):
        assert "experts" in (unread(known(reference), None) or ""), reference


def test_the_importer_is_asked_which_tokenizers_it_rebuilds() -> None:
    assert all(map(reads_tokenizer, ("llama", "smollm", "llama-bpe", "qwen2")))
    assert not reads_tokenizer("no-such-tokenizer")
    for word in WHOLE:
        with pytest.raises(Refused, match="tokens` is missing"):  # and not that there is no such tokenizer
            tokenizer_files({"tokenizer.ggml.model": word})
    assert {"llama", "qwen2", "qwen3", "gemma3", "phi3"} <= set(architectures())


@pytest.mark.parametrize(
    "kind", ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "F16"]
)
@pytest.mark.parametrize("wanted", [None, 4, 8])
def test_a_weight_is_sized_as_the_converter_stores_it(kind: str, wanted: int | None) -> None:
    model = Model("m", "model-runner", Path(), stored=kind, quantize=wanted)
    bits = mlx_bits(kind, (32, 32), wanted)
    assert bits_per_weight(model) == (bits + 1 if bits else 16)
    assert bits_per_weight(model, dequantized=True) == 16


def test_on_linux_an_artifact_is_kept_and_counted_as_bfloat16(tmp_path: Path) -> None:
    migration = compose("ai/smollm2:360M-Q4_K_M", LINUX, tmp_path)
    assert model_row(migration) == ("kept", "oci:ai/smollm2:360M-Q4_K_M")
    (size,) = migration.sizes
    assert size.memory
    assert size.memory > 360e6 * 2
    large = compose("ai/qwen3:14B-Q6_K", LINUX, tmp_path)
    assert large.sizes[0].problem
    assert "quantize" not in large.text  # there it says nothing


def test_encoders_are_kept_where_the_engine_runs_them(tmp_path: Path) -> None:
    mac = named("m2-16gb")
    assert model_row(compose("ai/all-minilm", LINUX, tmp_path)) == ("kept", "oci:ai/all-minilm")
    assert model_row(compose("ai/all-minilm", mac, tmp_path)) == ("kept", "oci:ai/all-minilm")
    assert model_row(compose("ai/nomic-embed-text-v1.5", LINUX, tmp_path))[0] == "kept"
    assert model_row(compose("ai/nomic-embed-text-v1.5", mac, tmp_path))[0] == "manual"
    assert model_row(compose("team/bge-reranker-base", LINUX, tmp_path))[0] == "kept"
    assert model_row(compose("team/bge-reranker-base", mac, tmp_path))[0] == "manual"


def test_what_does_not_fit_is_quantized_to_the_most_bits_that_do(tmp_path: Path) -> None:
    def bits(reference: str, target: str) -> int | None:
        return compose(reference, named(target), tmp_path).sizes[0].model.quantize

    assert bits("ai/llama3.2:3B-F16", "m2-16gb") is None
    assert bits("ai/qwen3:8B-F16", "m2-16gb") == 8
    assert bits("ai/qwen3:8B-F16", "m1-8gb") is None  # nothing helps
    assert bits("ai/qwen3:4B-F16", "m1-8gb") == 4
    assert bits("ai/qwen2.5-coder:14B", "m2-17gb") == 4
    assert bits("ai/qwen3:8B-Q8_0", "m1-8gb") is None  # never to fewer bits than its weights have


def test_no_more_context_is_asked_for_than_the_model_can_do(tmp_path: Path) -> None:
    text = "services: {app: {models: [e]}}\nmodels: {e: {model: ai/all-minilm, context_size: 2048}}\n"
    source = Input("compose.yaml", text, tmp_path, tmp_path / "compose.yaml")
    migration = migrate(Request((source,), tmp_path, named("m2-16gb"), kind="compose"), validated)
    (row,) = [each for each in migration.rows if each.key == "models.e.context_size"]
    assert (row.level, row.became) == ("mapped", "512")
    assert row.why.endswith("The model can do no more.")
    assert migration.sizes[0].context == 512


def test_an_answer_that_names_a_registry_is_sized_like_one(tmp_path: Path) -> None:
    migration = compose("ai/gpt-oss", named("m2-16gb"), tmp_path, **{"ai/gpt-oss": "oci:ai/smollm2:135M-F16"})
    assert model_row(migration) == ("mapped", "oci:ai/smollm2:135M-F16")
    assert migration.sizes[0].model.parameters == 135e6
