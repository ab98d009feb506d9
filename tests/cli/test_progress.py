from __future__ import annotations

import os
import pty
import subprocess
import sys

from appliance.cli.progress import Transfers
from appliance.progress import Progress


def downloading(subject: str, done: int, total: int) -> Progress:
    return Progress(subject, "downloading", done, total, "bytes")


def test_several_transfers_are_added_up_and_one_is_not() -> None:
    transfers = Transfers()
    assert transfers.hear(downloading("model a", 10, 100)) is None
    assert transfers.hear(downloading("model b", 5, 50)) == Progress("in all", "", 15, 150, "bytes")
    assert transfers.hear(Progress("model a", "unpacking")) == Progress("in all", "", 105, 150, "bytes")
    assert transfers.hear(Progress("environment x", "installing", 3, 9)) == Progress("in all", "", 105, 150, "bytes")


def test_a_terminal_shows_the_sum_beside_each() -> None:
    ours, theirs = pty.openpty()
    program = (
        "from appliance.cli.progress import shown\n"
        "from appliance.progress import Progress\n"
        "with shown() as report:\n"
        "    for name, total in (('model a', 2**21), ('model b', 2**22)):\n"
        "        report(Progress(name, 'downloading', 2**20, total, 'bytes'))\n"
    )
    environ = {**os.environ, "COLUMNS": "120", "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], stderr=theirs, env=environ, check=True, timeout=60)
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert all(text in said for text in ("model a", "model b", "in all", "2.0 MiB of 6.0 MiB"))
