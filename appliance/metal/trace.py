"""What a model's definition does with its caches, seen in forward passes of which nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .device import mlx
from .paged import LayerCache, LayerShape
from .recurrent import StateCache
from .seats import Seating, Turn
from .step import Span, Step

if TYPE_CHECKING:
    from .model import Model


class Unsupported(ValueError):
    """This model's definition does something that paged attention does not do; the message names it."""


def trace(model: Model) -> None:
    """Lazy forward passes of a prefill chunk and a decode row: nothing is computed, shapes and calls are seen.

    A second one, where there are recurrent states, goes on from those of the first.
    """
    probes = {id(cache): _Probe(cache) for cache in model.caches}

    def probed(layer: Any) -> Any:
        return tuple(map(probed, layer)) if isinstance(layer, tuple) else probes.get(id(layer), layer)

    layers = [probed(layer) for layer in model.layers]
    first = Step.build((Span(0, 1, (0,)), Span(0, 2, (0,))), block_size=16)
    first.seating = Seating(0, None, (Turn(0, 1, None), Turn(1, 3, None)))
    _pass(model, probes.values(), layers, first)
    if model.states:
        for state in model.states:
            state.form = _form(state)
        second = Step.build((Span(1, 1, (0,)), Span(2, 2, (0,))), block_size=16)
        second.seating = Seating(1, mlx().array([0]), (Turn(1, 3, 1),))
        _pass(model, probes.values(), layers, second)
        if any(_form(state) != state.form for state in model.states):
            raise Unsupported(f"`{model.kind}`: a recurrent state changes its form from step to step")
        model.forget()
    for cache in model.caches:
        cache.shape, cache.cap = probes[id(cache)].shape, probes[id(cache)].cap


def _pass(model: Model, probes: Iterable[_Probe], layers: list[Any], step: Step) -> None:
    mx = mlx()
    for probe in probes:
        probe.step, probe.attended = step, 0
    for state in model.states:
        assert step.seating is not None  # noqa: S101 - see trace
        state.begin(step.seating)
    model.trunk.select(mx.array([0, 2]))
    try:
        logits = model.module(mx.zeros((3, 1), dtype=mx.int32), cache=layers)
        for state in model.states:
            state.end()
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(f"`{model.kind}`: its definition in mlx-lm does not run on these caches: {error}") from error
    if logits.shape[:2] != (2, 1):
        raise Unsupported(f"`{model.kind}`: its head sees {logits.shape[0]} rows where 2 were selected")
    for probe in probes:
        if probe.attended != 1:
            raise Unsupported(
                f"`{model.kind}`: layer {probe.index} computes attention by itself ({probe.attended} calls of"
                " mlx-lm's scaled_dot_product_attention on its own cache, where 1 is expected)"
            )


def _form(state: StateCache) -> tuple[tuple[tuple[int, ...], Any], ...]:
    return tuple((array.shape[1:], array.dtype) for array in state.arrays)


class _Probe(LayerCache):
    """Takes the place of a layer's cache in the trace."""

    def __init__(self, cache: LayerCache) -> None:
        super().__init__(cache.index, cache.shape, cache.window)
        self.attended = 0

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        if keys.shape[:3] != values.shape[:3] or keys.shape[2] != 1:
            raise Unsupported(f"keys of {keys.shape} and values of {values.shape} are not one per head")
        self.shape = LayerShape(keys.shape[1], keys.shape[3], values.shape[3])
        self._fresh = keys, values
        return keys, values

    def attend(self, queries: Any, keys: Any, scale: float, mask: Any, sinks: Any) -> Any:  # noqa: ARG002 - as its base
        if self._fresh is None or keys is not self._fresh[0]:
            raise Unsupported(f"layer {self.index} attends to something else than what it cached")
        self.attended += 1
        return mlx().zeros((*queries.shape[:3], self.shape.value_size), dtype=queries.dtype)
