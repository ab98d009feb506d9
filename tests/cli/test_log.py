from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import structlog
from appliance.cli.log import configure

def answer(headers):
    raise RuntimeError("broken")

configure(sys.argv[1])
headers = [(b"authorization", b"Bearer sk-secret")]
try:
    answer(headers)
except RuntimeError:
    structlog.get_logger().exception("bug")
"""


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_a_traceback_says_where_and_not_with_which_key(form: str) -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, check=True).stderr
    assert "broken" in said
    assert "answer" in said
    assert "sk-secret" not in said
