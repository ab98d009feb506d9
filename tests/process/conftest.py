from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, since unix socket paths have to be; pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="ap-"))
    yield path
    shutil.rmtree(path)
