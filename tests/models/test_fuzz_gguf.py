from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.refused import Refused
from tests.models.fuzz_gguf import fuzz
from tests.models.gguf_builder import tiny

DATA = tiny().encode()
HEADER = DATA.index(b"output_norm.weight") + 60


def test_a_thousand_mutated_files_convert_or_are_refused(tmp_path: Path) -> None:
    outcomes = fuzz(1000, 7, kept=tmp_path / "kept.gguf")
    assert outcomes.total() == 1000
    assert min(outcomes["converted"], outcomes["damaged"], outcomes["unsupported"]) > 10


@settings(max_examples=300, deadline=None)
@given(st.integers(0, HEADER), st.binary(max_size=16), st.integers(0, 16))
def test_any_splice_into_a_header_is_read_or_refused(at: int, inserted: bytes, removed: int) -> None:
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"splice-{os.getpid()}.gguf"
    path.write_bytes(DATA[:at] + inserted + DATA[at + removed :])
    try:
        header = read_header(path)
    except Refused:
        return
    finally:
        path.unlink()
    assert sum(tensor.size for tensor in header.tensors.values()) <= len(DATA) + 16
