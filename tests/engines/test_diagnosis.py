"""What vLLM 0.32 printed when it failed, and the line of it that says why: `cases/*.log`, the line first."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.engines.diagnosis import diagnose

CASES = sorted((Path(__file__).parent / "cases").glob("*.log"))


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_real_failure_is_told_by_its_one_useful_line(case: Path) -> None:
    expected, *lines = case.read_text().splitlines()
    assert diagnose(lines) == expected.removeprefix("expect: ")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["INFO 11-23 06:02:19 [core.py:1] all is well"], None),
        (
            [
                "(EngineCore pid=7) ERROR 11-23 06:02:19 [multiproc_executor.py:9] RuntimeError: Worker failed with "
                "error 'Available memory on node 0 (11.33/13.21 GiB) is less than requested', please check the stack",
                "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
                "/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There "
                "appear to be 1 leaked semaphore objects to clean up at shutdown",
            ],
            "Available memory on node 0 (11.33/13.21 GiB) is less than requested",
        ),
        (["RuntimeError: Not enough NUMA nodes"], "RuntimeError: Not enough NUMA nodes"),
        (["ValueError: first", "OSError: second", "more text"], "OSError: second"),
        (["\x1b[0;36m(APIServer pid=1)\x1b[0;0m KeyError: 'x'"], "KeyError: 'x'"),
        (["server.py: error: bad thing", "ValueError: later"], "bad thing"),
        (["llama_model_load: error loading model: tensor missing"], None),
    ],
)
def test_line_is_chosen_in_the_order_of_what_it_tells(lines: list[str], expected: str | None) -> None:
    assert diagnose(lines) == expected


def test_only_the_last_lines_count() -> None:
    assert diagnose(["ValueError: long ago", *["fine"] * 200]) is None
