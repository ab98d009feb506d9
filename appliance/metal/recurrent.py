"""Layers that keep a state of a sequence instead of its keys and values: convolutions, Mamba, gated delta nets.

A step is one forward pass of (tokens, 1), in which such a layer could not tell sequences apart. So it is called once
for all rows that go on by one token, as a batch with their states, and once for each other sequence.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .device import mlx
from .lora import Rows
from .seats import Seating


@dataclass(frozen=True)
class _Part:
    """Rows of a step that a layer sees together, and mlx-lm's cache with their states."""

    start: int
    stop: int
    chunk: bool
    cache: Any

    def cut(self, argument: Any, tokens: int) -> Any:
        """(tokens, 1, ...) to (rows, 1, ...), or to (1, rows, ...) of one sequence. None is what masks are."""
        if argument is None:
            return None
        if not isinstance(argument, mlx().array) or argument.shape[:2] != (tokens, 1):
            raise TypeError(f"a recurrent layer is given something that is not one row for each token: {argument!r}")
        rows = argument[self.start : self.stop]
        return rows.swapaxes(0, 1) if self.chunk else rows

    def joined(self, output: Any) -> Any:
        return output.swapaxes(0, 1) if self.chunk else output


class StateCache:
    """What mlx-lm takes for the cache of one recurrent layer.

    `arrays` are `size` arrays of (sequences, ...): the states of all that have one, in the order of their seats. Each
    step makes new ones, so nothing that is still being read is ever written to.
    """

    def __init__(self, size: int, rows: Rows) -> None:
        self.size = size
        self.form: tuple[tuple[tuple[int, ...], Any], ...] = ()
        """Of each array, what one sequence has: shape and type. Known once the model was traced."""
        self._adapted = rows
        self.arrays: tuple[Any, ...] = ()
        self._parts: list[_Part] = []
        self._rest: tuple[Any, ...] = ()

    def make_mask(self, count: int) -> None:
        """mlx-lm masks the padding of batches, of which there is none."""

    def begin(self, seating: Seating) -> None:
        """Lay out the states for a step."""
        self._rest = () if seating.rest is None else self._rows(seating.rest)
        self._parts = []
        if seating.decodes:
            states = self.arrays if seating.seats is None else self._rows(seating.seats)
            self._parts.append(_Part(0, seating.decodes, chunk=False, cache=self._cache(states)))
        for turn in seating.turns:
            states = () if turn.seat is None else self._rows(slice(turn.seat, turn.seat + 1))
            self._parts.append(_Part(turn.start, turn.stop, chunk=True, cache=self._cache(states)))

    def run(self, layer: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What the layer gives for each row of the step; it leaves the states behind it in the parts."""
        tokens = self._parts[-1].stop
        outputs = []
        for part in self._parts:

            def cut(argument: Any, part: _Part = part) -> Any:
                return part.cache if argument is self else part.cut(argument, tokens)

            with self._adapted.part(cut):
                output = layer(*map(cut, args), **{name: cut(each) for name, each in kwargs.items()})
            outputs.append(part.joined(output))
        return outputs[0] if len(outputs) == 1 else mlx().concatenate(outputs)

    def end(self) -> None:
        """Keep what the step left."""
        left = [part.cache.cache for part in self._parts] + ([self._rest] if self._rest else [])
        self.arrays = tuple(each[0] if len(each) == 1 else mlx().concatenate(each) for each in zip(*left, strict=True))
        self._parts, self._rest = [], ()

    def set_aside(self, seating: Seating) -> tuple[Any, ...]:
        """Leave the states of a step of decodes alone, in its order; what is returned is the rest."""
        rest = () if seating.rest is None else self._rows(seating.rest)
        if seating.seats is not None:
            self.arrays = self._rows(seating.seats)
        return rest

    def take_back(self, rest: tuple[Any, ...]) -> None:
        if rest:
            self.arrays = tuple(mlx().concatenate(each) for each in zip(self.arrays, rest, strict=True))

    def fill(self, sequences: int) -> None:
        """Empty states of so many."""
        self.arrays = tuple(mlx().zeros((sequences, *shape), dtype=dtype) for shape, dtype in self.form)

    @property
    def bytes(self) -> int:
        """Of one sequence."""
        return sum(math.prod(shape) * dtype.size for shape, dtype in self.form)

    def free(self) -> None:
        self.arrays, self._parts, self._rest = (), [], ()

    def _rows(self, rows: Any) -> tuple[Any, ...]:
        return tuple(array[rows] for array in self.arrays)

    def _cache(self, states: Sequence[Any]) -> Any:
        from mlx_lm.models.cache import ArraysCache

        own = ArraysCache(self.size)
        if states:
            own.cache = list(states)
        return own


def wrap(layers: Sequence[Any]) -> None:
    """Make these modules of mlx-lm's take a StateCache. By subclasses of their own: the tree of parameters stays."""
    kinds = {kind: _wrapped(kind) for kind in set(map(type, layers))}
    for each in layers:
        each.__class__ = kinds[type(each)]


def find(module: Any) -> list[Any]:
    """The modules that read or write a recurrent cache, whatever their definition calls them.

    Those that do in one forward pass on mlx-lm's own caches, of which nothing is computed.
    """
    from mlx_lm.models.cache import ArraysCache, make_prompt_cache

    found: dict[int, Any] = {}

    class Watched(ArraysCache):
        def __getitem__(self, index: int) -> Any:
            self._seen()
            return super().__getitem__(index)

        def __setitem__(self, index: int, value: Any) -> None:
            self._seen()
            super().__setitem__(index, value)

        def _seen(self) -> None:
            caller = _calling_module()
            found[id(caller)] = caller

    caches = make_prompt_cache(module)
    for each in flat(caches):
        if type(each) is ArraysCache:
            each.__class__ = Watched
    module(mlx().zeros((1, 2), dtype=mlx().int32), cache=caches)
    return list(found.values())


def flat(caches: Sequence[Any]) -> Iterator[Any]:
    """mlx-lm's caches of a model: a layer with attention and a recurrence beside it has two in one."""
    from mlx_lm.models.cache import CacheList

    for each in caches:
        yield from flat(each.caches) if isinstance(each, CacheList) else (each,)


def _calling_module() -> Any:
    from mlx import nn

    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, nn.Module):
            return caller
        frame = frame.f_back
    raise AssertionError("a cache was read outside any module")


def _wrapped(plain: Any) -> Any:
    class Recurrent(plain):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            for each in (*args, *kwargs.values()):
                if isinstance(each, StateCache):
                    return each.run(super().__call__, args, kwargs)
            return super().__call__(*args, **kwargs)

    Recurrent.__module__ = plain.__module__
    return Recurrent
