from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import appliance


def test_shim_imports_nothing_beyond_the_standard_library_and_little_of_it() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import appliance.process.shim.__main__; print(*sys.modules.keys() - before)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(Path(appliance.__file__).parents[1])]
    loaded = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"asyncio", "subprocess", "shutil", "pathlib", "logging", "dataclasses", "multiprocessing"}
    assert {name for name in loaded if name.startswith("appliance.")} >= {"appliance.process.shim.guard"}
    assert not any(name.startswith("appliance.") and not name.startswith("appliance.process") for name in loaded)


def test_shim_without_a_launch_document_ends_with_an_error() -> None:
    root = str(Path(appliance.__file__).parents[1])
    ours, theirs = socket.socketpair()
    with theirs:
        shim = subprocess.Popen([sys.executable, "-m", "appliance.process.shim"], cwd=root, stdin=theirs.fileno())
    ours.close()
    assert shim.wait(20) == 1
