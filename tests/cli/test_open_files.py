from __future__ import annotations

import resource
from collections.abc import Iterator

import psutil
import pytest

from tests.cli.conftest import Machine


@pytest.fixture
def few_files() -> Iterator[int]:
    """The limit that macOS gives by default; what is started within has it too. Yields the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_appliance_may_open_more_connections_than_the_shell_lets_it(machine: Machine, few_files: int) -> None:
    machine.write()
    machine.up()
    soft, hard = psutil.Process(machine.status()["pid"]).rlimit(psutil.RLIMIT_NOFILE)
    assert hard == few_files
    assert soft > 1024
