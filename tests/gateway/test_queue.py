"""Who comes next: properties of the queue alone."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.queue import Full, Queue

LANES = st.sampled_from(("a", "b", "c", "d"))
WEIGHTS = {"a": 1, "b": 1, "c": 3, "d": 2}
JOINS = st.lists(LANES, max_size=80)


def filled(joins: list[str], weights: dict[str, int] = WEIGHTS) -> Queue[tuple[str, int]]:
    queue: Queue[tuple[str, int]] = Queue()
    for number, lane in enumerate(joins):
        queue.join((lane, number), lane, weight=weights[lane], room=10_000)
    return queue


def drained(queue: Queue[tuple[str, int]]) -> list[tuple[str, int]]:
    found = []
    while (item := queue.next()) is not None:
        found.append(item)
    return found


@given(JOINS)
def test_everybody_has_exactly_one_turn_and_first_come_is_first_served_within_a_lane(joins: list[str]) -> None:
    turns = drained(filled(joins))
    assert sorted(turns, key=lambda turn: turn[1]) == list(zip(joins, range(len(joins)), strict=True))
    for lane in WEIGHTS:
        mine = [number for name, number in turns if name == lane]
        assert mine == sorted(mine)


@given(JOINS)
def test_between_two_turns_of_a_lane_every_other_has_no_more_than_its_weight(joins: list[str]) -> None:
    turns = [lane for lane, _ in drained(filled(joins))]
    for lane in set(turns):
        last = max(index for index, each in enumerate(turns) if each == lane)
        between: Counter[str] = Counter()
        for each in turns[: last + 1]:
            if each == lane:
                between.clear()
            else:
                between[each] += 1
                assert between[each] <= WEIGHTS[each]


@given(st.integers(1, 200), st.integers(1, 5))
def test_a_newcomer_waits_for_one_round_however_many_stand_before_it(flood: int, weight: int) -> None:
    queue = filled(["a"] * flood, {"a": weight})
    queue.join(("b", -1), "b", weight=1, room=10_000)
    assert ("b", -1) in [queue.next() for _ in range(weight + 1)]


@given(st.lists(st.one_of(LANES.map(lambda lane: ("join", lane)), st.just(("next", "")), st.just(("leave", "")))))
def test_joining_leaving_and_turns_in_any_order_agree_with_lists(steps: list[tuple[str, str]]) -> None:
    queue: Queue[object] = Queue()
    lanes: defaultdict[str, deque[object]] = defaultdict(deque)
    for step, lane in steps:
        if step == "join":
            item = object()
            queue.join(item, lane, weight=WEIGHTS[lane], room=10_000)
            lanes[lane].append(item)
        elif step == "next":
            item_ = queue.next()
            owner = next((name for name, items in lanes.items() if items and items[0] is item_), None)
            assert (owner is None) == (not any(lanes.values()))
            if owner is not None:
                lanes[owner].popleft()
        elif leaving := next((name for name, items in lanes.items() if items), None):
            item = lanes[leaving].pop()
            queue.leave(item, leaving)
            queue.leave(item, leaving)  # once more changes nothing
        assert len(queue) == sum(map(len, lanes.values()))


@given(st.integers(1, 60), JOINS)
def test_the_room_is_never_exceeded_and_nobody_is_refused_while_there_is_some_for_him(
    room: int, joins: list[str]
) -> None:
    queue: Queue[int] = Queue()
    admitted: Counter[str] = Counter()
    for number, lane in enumerate(joins):
        try:
            queue.join(number, lane, weight=1, room=room)
        except Full:
            assert admitted[lane] >= room - sum(admitted.values())
        else:
            admitted[lane] += 1
        assert len(queue) == sum(admitted.values()) <= room


@given(st.integers(2, 60))
def test_one_lane_leaves_half_of_the_room_to_others(room: int) -> None:
    queue: Queue[int] = Queue()
    for number in range((room + 1) // 2):
        queue.join(number, "a", weight=1, room=room)
    with pytest.raises(Full):
        queue.join(room, "a", weight=1, room=room)
    queue.join(room, "b", weight=1, room=room)


def test_without_keys_there_are_no_others_to_leave_room_to() -> None:
    queue: Queue[int] = Queue()
    for number in range(8):
        queue.join(number, None, weight=1, room=8)
    with pytest.raises(Full):
        queue.join(8, None, weight=1, room=8)
