"""The soak's short form; `make soak` runs it for half an hour."""

from __future__ import annotations

import asyncio

from benchmarks.soak import KINDS, soak


def test_clients_of_every_kind_get_what_they_should() -> None:
    result = asyncio.run(soak(duration=6, clients=16, seed=7))
    assert result.errors == []
    assert result.answers.keys() == KINDS.keys()
    assert result.answers.total() > 100
    # Half an hour has a slope; six seconds can only show a leak of whole answers.
    assert result.resident[-1][1] - result.resident[1][1] < 30e6
