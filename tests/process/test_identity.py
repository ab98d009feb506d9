"""A process is its id and its start time together."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from appliance.process.shim import processes, segments
from appliance.process.shim.trace import Trace


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as process:
        yield process
        process.kill()


def test_successor_under_the_same_id_is_not_killed(stranger: subprocess.Popen[bytes]) -> None:
    now = processes.identify(stranger.pid)
    assert now is not None
    processes.kill(now._replace(started="1"))
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.2)
    processes.kill(now)
    assert stranger.wait(20) == -9


def test_zombie_counts_as_gone(stranger: subprocess.Popen[bytes]) -> None:
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(stranger.pid) is None


def test_session_number_that_was_reused_proves_nothing(stranger: subprocess.Popen[bytes]) -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    trace = Trace("/nowhere")
    trace.leader = processes.Process(me.session, 1, me.session, me.session, "an earlier process")
    assert trace.look(session=False) == set()


def test_descendants_are_found_at_any_depth() -> None:
    def process(pid: int, parent: int) -> processes.Process:
        return processes.Process(pid, parent, pid, pid, "0")

    table = {pid: process(pid, parent) for pid, parent in [(1, 0), (10, 1), (11, 10), (12, 11), (20, 1)]}
    assert {found.pid for found in processes.descendants(table, 10)} == {11, 12}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /dev/shm")
def test_semaphore_is_found_although_its_map_bears_another_name() -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    trace = Trace("/nowhere")
    trace.spare = set()
    trace.known = {me for me in (processes.identify(os.getpid()),) if me is not None}
    before = trace.data()
    trace.look()
    assert any(path.startswith("/dev/shm/sem.mp-") for path in trace.segments)
    assert trace.data() != before
    assert segments.unused(trace.segments) == []
    del lock
