from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from appliance.errors import Conflict
from appliance.state import StateDirectory, write_atomic
from tests.support import wait_until

HOLD = """
import sys, time; from pathlib import Path; from appliance.state import StateDirectory
state = StateDirectory(Path(sys.argv[1])); state.prepare()
with state.hold():
    print("held", flush=True); time.sleep(60)
"""


def test_the_state_directory_is_private(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "home")
    state.prepare()
    for path in (state.root, state.run, state.models, state.environments, state.history, state.logs):
        assert path.stat().st_mode & 0o777 == 0o700


def test_sockets_stay_short_however_long_the_state_directory_is(tmp_path: Path) -> None:
    deep = StateDirectory(tmp_path / ("x" * 100) / "home")
    assert len(os.fsencode(deep.control_socket)) < 80
    assert deep.run != StateDirectory(tmp_path / ("y" * 100) / "home").run


def test_sockets_stay_short_however_long_the_temporary_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "var" / "folders" / "zz" / "zyxvpxvq6csfxvn_n0000000000000" / "T"
    monkeypatch.setattr(tempfile, "tempdir", str(users))
    mac = StateDirectory(Path("/Users/somebody/Library/Application Support/appliance"))
    longest = mac.run / "e-12345678" / "123e4567-e89b-12d3-a456-426614174000"
    assert len(os.fsencode(longest)) <= 103


def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    state = StateDirectory(tmp_path / "h")
    state.prepare()
    os.chown(state.run, 12345, 12345)
    with pytest.raises(Conflict, match="12345"):
        state.prepare()


def test_a_shared_run_directory_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "h")
    state.prepare()
    state.run.chmod(0o755)
    with pytest.raises(Conflict, match="755"):
        state.prepare()


def test_one_holder_at_a_time_and_kill_9_lets_go(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "h")
    state.prepare()
    assert state.holder() is None
    with subprocess.Popen([sys.executable, "-c", HOLD, str(state.root)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert state.holder() == other.pid
        with pytest.raises(Conflict, match=f"pid {other.pid}"), state.hold():
            pass
        other.send_signal(signal.SIGKILL)
    wait_until(lambda: state.holder() is None, what="the lock is free")
    with state.hold():
        assert state.holder() == os.getpid()


def test_an_atomic_write_replaces_the_whole_file_and_leaves_no_scrap(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_atomic_write_keeps_the_old_bytes(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(target, b"new")
    assert list(tmp_path.iterdir()) == [target]
