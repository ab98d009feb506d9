"""The shim's log and its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.process.logs import Tail, tail
from appliance.process.shim.log import LINES, LONGEST_LINE, Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


def test_log_is_rotated_when_it_reaches_its_size_and_the_oldest_is_dropped(path: Path) -> None:
    log = Log(str(path), size=10, count=3)
    for number in range(5):
        log.write(b"line %d....\n" % number)
    assert path.read_text() == ""
    assert path.with_suffix(".log.1").read_text() == "line 4....\n"
    assert path.with_suffix(".log.2").read_text() == "line 3....\n"
    assert not path.with_suffix(".log.3").exists()


def test_two_writers_of_one_path_rotate_it_once(path: Path) -> None:
    one, two = (Log(str(path), size=20, count=3) for _ in range(2))
    one.write(b"0123456789\n")
    two.write(b"0123456789\n")  # rotates
    one.write(b"still to the old file\n")  # notices
    one.write(b"new\n")
    assert path.read_text() == "new\n"
    assert path.with_suffix(".log.1").read_text() == "0123456789\n0123456789\nstill to the old file\n"
    assert not path.with_suffix(".log.2").exists()


def test_tail_keeps_the_last_lines_whatever_chunks_they_came_in(path: Path) -> None:
    log = Log(str(path), size=1 << 20, count=3)
    whole = b"".join(b"line %d\n" % number for number in range(LINES + 50)) + b"not whole yet"
    for start in range(0, len(whole), 7):
        log.write(whole[start : start + 7])
    assert log.tail() == [f"line {number}" for number in range(51, LINES + 50)] + ["not whole yet"]


def test_tail_bounds_a_line_without_end(path: Path) -> None:
    log = Log(str(path), size=1 << 20, count=3)
    for _ in range(10):
        log.write(b"x" * LONGEST_LINE)
    assert log.tail() == ["x" * LONGEST_LINE]


def test_full_disk_costs_log_lines_and_nothing_else() -> None:
    log = Log("/dev/full", size=1 << 20, count=3)
    log.write(b"lost on disk\n")
    assert log.tail() == ["lost on disk"]


def test_reader_gets_the_last_lines(path: Path) -> None:
    path.write_text("".join(f"{number} {'x' * 100}\n" for number in range(5000)) + "partial")
    assert [line.split()[0] for line in tail(path, 3)] == ["4997", "4998", "4999"]
    assert tail(path, 0) == []


def test_reader_of_an_empty_log_gets_nothing(path: Path) -> None:
    path.touch()
    assert tail(path, 10) == []


def test_follower_sees_every_line_once_across_a_rotation(path: Path) -> None:
    log = Log(str(path), size=30, count=3)
    log.write(b"before\n")
    with Tail(path, lines=1) as follower:
        got = [follower.read()]
        for data in (b"first\n", b"half ", b"of it\n", b"enough to rotate the file\n", b"after\n"):
            log.write(data)
            got.append(follower.read())
    assert got == [["before"], ["first"], [], ["half of it"], ["enough to rotate the file"], ["after"]]


def test_follower_misses_no_file_when_several_rotations_come_between_two_reads(path: Path) -> None:
    log = Log(str(path), size=10, count=5)
    log.write(b"zero\n")
    with Tail(path, lines=0) as follower:
        for number in range(1, 4):
            log.write(b"line number %d\n" % number)  # each fills a file
        assert follower.read() == ["line number 1", "line number 2", "line number 3"]


def test_last_lines_reach_back_into_the_file_before(path: Path) -> None:
    log = Log(str(path), size=10, count=3)
    for number in range(4):
        log.write(b"line number %d\n" % number)
    log.write(b"new\n")
    assert tail(path, 1) == ["new"]
    assert tail(path, 2) == ["line number 3", "new"]
