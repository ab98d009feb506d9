from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.reconcile.history import Entry, History

FILE = Path("/etc/model-runner.yaml")


def begin(history: History, text: str, **changes: str) -> Entry:
    return history.begin(text, FILE, time="2026-01-01T00:00:00+00:00", changes=changes, revisions={"m": "abc"})


def test_generations_count_up_and_keep_the_text(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.last() is None
    begin(history, "one")
    begin(history, "two", **{"models.m.engine": "restart"})
    assert [entry.generation for entry in history.entries()] == [1, 2]
    assert history.get(1).text == "one"
    assert history.get(2).changes == {"models.m.engine": "restart"}


def test_the_same_text_again_is_the_same_generation(tmp_path: Path) -> None:
    history = History(tmp_path)
    first = begin(history, "one")
    history.finish(first.generation, "ready")
    assert begin(history, "one").generation == 1
    assert history.get(1).result == "ready"


def test_a_generation_overtaken_while_applying_is_superseded(tmp_path: Path) -> None:
    history = History(tmp_path)
    begin(history, "one")
    begin(history, "two")
    history.finish(1, "ready")
    assert [entry.result for entry in history.entries()] == ["superseded", "applying"]


def test_the_way_back_leads_to_the_last_other_text_that_was_ready(tmp_path: Path) -> None:
    history = History(tmp_path)
    for text, result in (("good", "ready"), ("bad", "degraded"), ("worse", "degraded")):
        history.finish(begin(history, text).generation, result)
    previous = history.previous_good()
    assert previous is not None
    assert previous.text == "good"


def test_an_unknown_generation_and_a_broken_record_are_errors(tmp_path: Path) -> None:
    history = History(tmp_path)
    with pytest.raises(ApplianceError, match="no generation 7"):
        history.get(7)
    (tmp_path / "000001.json").write_text("{")
    with pytest.raises(ApplianceError, match="not a history record"):
        history.entries()


DYING = """
import os, sys
import signal
import subprocess
import sys
from pathlib import Path
from appliance.reconcile.history import History

events = int(sys.argv[2])

def die_at(event, arguments):
    # Every write of the history opens, syncs by way of a descriptor, and renames: each is an instant to die at.
    global events
    if event in ("open", "os.rename", "os.chmod", "tempfile.mkstemp"):
        events -= 1
        if events < 0:
            os.kill(os.getpid(), 9)

history, file = History(Path(sys.argv[1])), Path("/etc/model-runner.yaml")
sys.addaudithook(die_at)
for text, result in (("one", "ready"), ("two", "degraded"), ("three", "ready")):
    entry = history.begin(text, file, time="2026-01-01T00:00:00+00:00", changes={"x": "live"}, revisions={})
    history.finish(entry.generation, result)
"""


def test_kill_9_between_any_two_writes_leaves_a_history_that_reads_and_goes_on(tmp_path: Path) -> None:
    survived = False
    for instant in range(200):
        root = tmp_path / str(instant)
        root.mkdir()
        run = subprocess.run([sys.executable, "-c", DYING, str(root), str(instant)], check=False, capture_output=True)
        assert run.returncode in (0, -signal.SIGKILL), run.stderr.decode()
        entries = History(root).entries()
        assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry.text for entry in entries] == ["one", "two", "three"][: len(entries)]
        after = begin(History(root), "after", x="live")
        assert after.generation == len(entries) + 1
        if run.returncode == 0:
            survived = True
            break
    assert survived
    assert instant > 20
