"""`url:` sources, and archives that mean harm."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from appliance.errors import SourceError, SourceNotFound, TransferFailed
from appliance.models.archive import extract
from appliance.models.say import Failed
from appliance.models.sources import LinkSource, parse_source
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.checkpoint_builder import hf_files
from tests.models.gguf_builder import tiny


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine and the directory that it serves."""
    root = tmp_path / "site"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", root
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def store(tmp_path: Path, environ: dict[str, str]) -> Store:
    return Store(tmp_path / "models", environ=environ)


def link(base: str, name: str, data: bytes) -> LinkSource:
    source = parse_source(f"url:{base}/{name}#sha256={hashlib.sha256(data).hexdigest()}", base=Path("/"))
    assert isinstance(source, LinkSource)
    return source


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"{}", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def test_linked_gguf_is_a_checkpoint(site: tuple[str, Path], store: Store) -> None:
    base, root = site
    data = tiny().encode()
    (root / "m.gguf").write_bytes(data)
    checkpoint = asyncio.run(store.pull(link(base, "m.gguf", data), silent, subject="model m"))
    assert (checkpoint.kind, checkpoint.path.name, checkpoint.path.read_bytes()) == ("gguf", "m.gguf", data)


def test_linked_archive_is_unpacked_without_its_outer_directory(site: tuple[str, Path], store: Store) -> None:
    base, root = site
    files = hf_files() | {"modeling.py": b"raise", "README.md": b"#"}
    data = tar(*(member(f"model/{name}", content) for name, content in files.items()), mode="w:gz")
    (root / "m.tar.gz").write_bytes(data)
    checkpoint = asyncio.run(store.pull(link(base, "m.tar.gz", data), silent, subject="model m"))
    assert {path.name: path.read_bytes() for path in checkpoint.path.iterdir()} == hf_files()


def test_other_bytes_than_promised_are_not_kept(site: tuple[str, Path], store: Store, tmp_path: Path) -> None:
    base, root = site
    (root / "m.gguf").write_bytes(tiny().encode())
    with pytest.raises(TransferFailed, match="another SHA-256"):
        asyncio.run(store.pull(link(base, "m.gguf", b"other"), silent, subject="model m"))
    assert not list((tmp_path / "models" / "blobs").iterdir())
    with pytest.raises(SourceNotFound, match="404"):
        asyncio.run(store.pull(link(base, "n.gguf", b"other"), silent, subject="model m"))


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([member("../evil.json")], "evil"),
        ([member("/etc/evil.json")], "evil"),
        ([member("a/../../evil.json")], "evil"),
        ([member("link.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "link or a device"),
        ([member("hard.json", type=tarfile.LNKTYPE, linkname="config.json")], "link or a device"),
        ([member("pipe.json", type=tarfile.FIFOTYPE)], "link or a device"),
        ([member("config.json"), member("config.json", b"[]")], "twice"),
        ([member("a.json"), member("a.json/b.json")], "twice"),
    ],
)
def test_hostile_archive_writes_nothing_outside(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], named: str
) -> None:
    archive = tmp_path / "in" / "a.tar"
    archive.parent.mkdir()
    archive.write_bytes(tar(*members))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Failed, match=named):
        extract(archive, out, "`m`")
    assert {each.name for each in tmp_path.iterdir()} == {"in", "out"}


def test_archive_that_would_expand_beyond_reason_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.tar.gz"
    archive.write_bytes(tar(member("model.safetensors", bytes(64 * 1024 * 1024)), mode="w:gz"))
    assert archive.stat().st_size < 100_000
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Failed, match="expand"):
        extract(archive, out, "`m`")
    assert not list(out.iterdir())


@pytest.mark.parametrize("data", [b"", b"not a tar", tar(member("config.json", b"x" * 5000))[:3000]])
def test_torn_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(Failed, match="archive"):
        extract(archive, tmp_path / "out", "`m`")


def test_unencrypted_link_and_missing_digest_are_refused() -> None:
    for text, named in (
        (f"url:http://example.com/m.gguf#sha256={'0' * 64}", "not encrypted"),
        ("url:https://example.com/m.gguf", "is no link"),
        ("https://example.com/m.gguf", "bare link"),
        (f"url:https://example.com/m.bin#sha256={'0' * 64}", "neither"),
    ):
        with pytest.raises(SourceError, match=named):
            parse_source(text, base=Path("/"))
