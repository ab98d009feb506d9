from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from tests.gateway.served import Served


@pytest.fixture
def sdk(gateway: Served) -> Iterator[ollama.Client]:
    with ollama.Client(host=gateway.base) as client:
        yield client
