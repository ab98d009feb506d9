"""How many sequences the cache's memory has recurrent states for."""

from __future__ import annotations

import pytest

from appliance.metal.seats import seats_for


@pytest.mark.parametrize(
    ("size", "state", "whole", "most", "seats"),
    [
        (1000, 10, 0, 16, 16),  # all that may run
        (1000, 10, 0, 256, 100),  # no keys and values beside them
        (1000, 10, 90, 256, 50),  # half of it is for states
        (1000, 10, 5, 256, 66),  # all of the longest length, which are more
        (1000, 100, 850, 256, 1),  # the longest sequence has room in any case
    ],
)
def test_states_leave_room_for_keys_and_values(size: int, state: int, whole: int, most: int, seats: int) -> None:
    assert seats_for(size, state=state, whole=whole, most=most) == seats


def test_memory_without_room_for_one_sequence_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="raise `kv_cache_memory_bytes` or lower `max_model_len`"):
        seats_for(64 << 20, state=32 << 20, whole=33 << 20, most=8)
