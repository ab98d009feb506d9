from __future__ import annotations

from tests.cli.conftest import machine as machine
