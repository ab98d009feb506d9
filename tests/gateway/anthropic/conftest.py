from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.gateway.served import Served


@pytest.fixture
def sdk(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.base, api_key="none", max_retries=0) as client:
        yield client
