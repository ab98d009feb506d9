"""The appliance's own log stays small, and nothing of it is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from appliance.cli.log_file import COUNT, SIZE, keep_small
from appliance.process.logs import Tail
from tests.cli.conftest import Machine
from tests.support import wait_until

WRITER = """
import os, sys
from pathlib import Path
import structlog
from appliance.cli.log import configure
from appliance.cli.log_file import keep_small

path, first = Path(sys.argv[1]), int(sys.argv[2])
keep_small(path, size=4000, count=4)
configure("json")
for number in range(first, first + 60):
    structlog.get_logger().info("said", number=number)
    print(f'{{"number": {number}.25}}', file=sys.stderr)
    os.write(1, b'{"number": %d.5}\\n' % number)
if first == 0:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], "60"])
raise SystemExit("error: the last words")
"""


def test_every_line_is_kept_through_rotations_and_a_restart_and_a_follower_sees_each_once(tmp_path: Path) -> None:
    path = tmp_path / "appliance.log"
    path.touch()
    done, seen = threading.Event(), list[str]()

    def follow() -> None:
        with Tail(path, lines=0) as log:
            while not done.is_set():
                seen.extend(log.read())
            seen.extend(log.read())

    follower = threading.Thread(target=follow)
    follower.start()
    with path.open("ab") as sink:
        argv = [sys.executable, "-c", WRITER, str(path), "0"]
        code = subprocess.run(argv, stdout=sink, stderr=sink, check=False, timeout=60).returncode
    done.set()
    follower.join()
    assert code == 1
    assert seen[-1] == "error: the last words"
    expected = [number + part for number in range(120) for part in (0, 0.25, 0.5)]
    assert [json.loads(line)["number"] for line in seen[:-1]] == expected
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["appliance.log", "appliance.log.1", "appliance.log.2", "appliance.log.3"]
    assert all(each.stat().st_size < 4200 for each in tmp_path.iterdir())


def test_what_is_not_the_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "appliance.log").write_text("x" * 100)
    before = sys.stderr
    keep_small(tmp_path / "appliance.log", size=10)
    keep_small(tmp_path / "missing.log", size=10)
    assert sys.stderr is before
    assert [each.name for each in tmp_path.iterdir()] == ["appliance.log"]


def test_an_appliance_in_a_terminal_has_no_log_and_says_where_it_writes(machine: Machine) -> None:
    machine.write()
    machine.up()
    asked = machine.run("logs")
    assert asked.returncode == 1
    assert "an appliance in a terminal writes there" in asked.stderr
    assert "`tiny`" in asked.stderr


def test_an_appliance_in_the_background_goes_on_in_a_new_file_also_after_a_restart(machine: Machine) -> None:
    machine.write()
    log = machine.home / "logs" / "appliance.log"
    log.parent.mkdir(parents=True)
    line = f"an old line {'x' * 80}\n"
    log.write_text(line * (SIZE // len(line)))
    assert machine.run("up", "-d").returncode == 0
    old = log.with_name("appliance.log.1")
    assert old.read_text().startswith(line)
    assert SIZE <= old.stat().st_size < SIZE + 4096
    assert "serving" in machine.run("restart").stderr
    told = (old.read_text() + log.read_text()).removeprefix(line * (SIZE // len(line)))
    events = [json.loads(each).get("event") for each in told.splitlines() if each.startswith("{")]
    assert events.count("engine adopted") == 1
    assert "starting engine" in events
    assert log.stat().st_size < 100_000
    shown = machine.run("logs", "-n", "1000").stdout.splitlines()
    assert len(shown) == 1000
    assert shown[0] == line.rstrip()
    wait_until(lambda: machine.status()["ready"], what="it serves")
    assert len(list(log.parent.glob("appliance.log*"))) <= COUNT
