"""A checkpoint as an mlx-lm model that runs on paged caches, or the reason why it cannot."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import kernels, linear, overrides, recurrent
from .device import mlx, on_cpu
from .lora import Rows
from .paged import LayerCache, LayerShape
from .recurrent import StateCache
from .seats import Seating
from .step import Step
from .trace import Unsupported, trace


@dataclass
class Model:
    """`rows` of the trunk's output are what the language model head sees; None: all of them.

    `caches` are paged, `states` recurrent, and `layers` both as mlx-lm's model takes them.
    """

    module: Any
    trunk: Any
    caches: list[LayerCache]
    kind: str
    states: list[StateCache] = field(default_factory=list)
    layers: list[Any] = field(default_factory=list)
    rows: Rows = field(default_factory=Rows)
    """Which adapter each has."""
    compiled: bool = False
    """Whether steps of decodes alone are compiled: one traced graph for each shape instead of a new one every step."""
    short: int = 0
    """Of chunks whose tokens times context are up to this, each token attends for itself."""
    _decode: Any = None
    _written: list[Any] = field(default_factory=list)
    _scattered: list[LayerCache] = field(default_factory=list)

    def logits(self, tokens: Any, step: Step, rows: Any) -> Any:
        """(tokens,) to (rows, vocabulary): the head is applied to the rows that need it only; None is all of them."""
        if rows is None and self.compiled and step.decodes_alone:
            return self._replay(tokens, step)
        return self._run(self.module, tokens, step, rows)

    def hidden(self, tokens: Any, step: Step) -> Any:
        """(tokens,) to (tokens, hidden size), after the last norm."""
        return self._run(self.trunk, tokens, step, None)

    def take_written(self) -> list[Any]:
        """What has to be computed, beside its output, for the last step's keys and values to be in the pools.

        Nothing is kept: a pool that somebody else refers to would be copied by the next step.
        """
        taken, self._written = self._written, []
        return taken

    def _replay(self, tokens: Any, step: Step) -> Any:
        """What `logits` gives, from a graph that was traced before. Pools go in, and come out where MLX writes to them:
        in place."""
        count, block_size, seating = len(step.arrays), step.block_size, step.seating
        stores: list[LayerCache | StateCache] = [*self.caches, *self.states]

        def forward(tokens: Any, *arrays: Any) -> tuple[Any, ...]:
            _put(arrays[count:], stores)
            again = Step.of_arrays(arrays[:count], block_size, Seating(len(tokens), None) if seating else None)
            logits = self._run(self.module, tokens, again, None)
            self._scattered = [cache for cache in self.caches if cache.attended is None]
            for cache in self.caches:
                cache.attended = None  # an array of the trace, which nobody may compute
            return (logits, *_taken([*self._scattered, *self.states]))

        self._decode = self._decode or mlx().compile(forward)
        rests = [state.set_aside(seating) for state in self.states if seating]
        before = _taken(stores)
        logits, *after = self._decode(tokens, *step.arrays, *before)
        _put(before, self.caches)
        _put(after, [*self._scattered, *self.states])
        for state, rest in zip(self.states, rests, strict=True):
            state.take_back(rest)
        self._written = after
        return logits

    def _run(self, part: Any, tokens: Any, step: Step, rows: Any) -> Any:
        for cache in self.caches:
            cache.step = step
        for state in self.states:
            assert step.seating is not None  # noqa: S101 - the runner seats everybody
            state.begin(step.seating)
        self.trunk.select(rows)
        output = part(tokens[:, None], cache=self.layers)[:, 0]
        for state in self.states:
            state.end()
        self._written = [array for cache in self.caches for array in cache.written]
        self._written += [array for state in self.states for array in state.arrays]
        return output

    def forget(self) -> None:
        """Let go of all recurrent states: nobody has one any more."""
        for state in self.states:
            state.free()

    def drop(self) -> None:
        """Refer to no array any more."""
        for cache in self.caches:
            cache.free()
        self.forget()
        self.module = self.trunk = self._decode = None
        self._written, self._scattered = [], []

    @property
    def state_bytes(self) -> int:
        """What all recurrent layers keep of one sequence."""
        return sum(state.bytes for state in self.states)

    @property
    def bytes(self) -> int:
        from mlx.utils import tree_flatten

        return sum(array.nbytes for _, array in tree_flatten(self.module.parameters()))


def load(path: Path, dtype: str, changes: Mapping[str, Any] | None = None) -> Model:
    """Weights in `dtype` (MLX's name) where they are not quantized; on the CPU all of them, dequantized.

    `changes` go before the checkpoint's own configuration. Raises Unsupported where mlx-lm has no such architecture or
    setting, or one that paged attention cannot drive.
    """
    from mlx_lm.utils import dequantize_model, load_config, load_model

    mx = mlx()
    try:
        module, config = load_model(path, lazy=True, model_config=overrides.merged(load_config(path), changes or {}))
    except ValueError as error:
        raise Unsupported(f"mlx-lm cannot load `{path}`: {error}") from error
    if changes and (left_out := overrides.unknown(changes, getattr(module, "args", None))):
        raise Unsupported(f"`hf_overrides`: mlx-lm's definition of `{config['model_type']}` has no `{left_out[0]}`")
    # Before anything is dequantized, which happens in the type of the scales.
    _cast(module, getattr(mx, dtype))
    if on_cpu():
        # A quantized matrix product on MLX's CPU costs as much again for every further row; a dense one does not.
        module = dequantize_model(module)
        _cast(module, getattr(mx, dtype))
    module.eval()
    model = adapt(module, str(config.get("model_type", type(module).__module__)))
    if not on_cpu():
        linear.flatten(module)
        model.compiled = True
        # Without the kernel, rows would each gather the context that they share.
        fits = kernels.enabled() and all(cache.layout(1, 1, cache.window) for cache in model.caches)
        model.short = kernels.SHORT if fits else 0
    mx.eval(module.parameters())
    return model


def adapt(module: Any, kind: str) -> Model:
    """Put caches of ours under a model of mlx-lm's, and trace forward passes to see that they are what it uses."""
    trunk = _trunk(module, kind)
    rows = Rows()
    caches, states, layers = _layers(module, kind, rows)
    if states:
        recurrent.wrap(recurrent.find(module))
    _select_rows(trunk)
    _replace_attention(module)
    _replace_soft_caps(module)
    model = Model(module, trunk, caches, kind, states, layers, rows)
    trace(model)
    return model


def _cast(module: Any, dtype: Any) -> None:
    """Floating-point weights in this type, except those that mlx-lm's definition keeps as they are stored."""
    from mlx.utils import tree_map_with_path

    mx = mlx()
    wanted = getattr(module, "cast_predicate", None) or (lambda _: True)

    def cast(path: str, weight: Any) -> Any:
        return weight.astype(dtype) if mx.issubdtype(weight.dtype, mx.floating) and wanted(path) else weight

    module.update(tree_map_with_path(cast, module.parameters()))


def _trunk(module: Any, kind: str) -> Any:
    """The part before the language model head: what holds the list of layers. Others have a property of that name."""
    for each in module.modules():
        if each is not module and any(isinstance(each.get(name), list) for name in ("layers", "h", "blocks")):
            return each
    raise Unsupported(f"`{kind}`: its definition in mlx-lm has no trunk apart from its head")


def _select_rows(trunk: Any) -> None:
    """Make the trunk return only the rows of its output that are selected. By a subclass of its own class: the tree of
    parameters, which checkpoints and adapters are matched with, stays as it is."""
    plain = type(trunk)

    class Selecting(plain):  # type: ignore[misc, valid-type]
        def select(self, rows: Any) -> None:
            object.__setattr__(self, "_selected", rows)  # an attribute set plainly would become a parameter

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            output = super().__call__(*args, **kwargs)
            return output if self._selected is None else output[self._selected]

    Selecting.__module__ = plain.__module__
    trunk.__class__ = Selecting


def _replace_attention(module: Any) -> None:
    """mlx-lm's models import `scaled_dot_product_attention` by name: the one seam that they all have."""
    from mlx_lm.models import base

    def attention(queries: Any, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: Any = None) -> Any:
        if isinstance(cache, LayerCache):
            return cache.attend(queries, keys, scale, mask, sinks)
        return base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)

    for name in {type(each).__module__ for each in module.modules()}:
        source = sys.modules[name]
        if getattr(source, "scaled_dot_product_attention", None) is base.scaled_dot_product_attention:
            source.scaled_dot_product_attention = attention  # type: ignore[attr-defined]


def _replace_soft_caps(module: Any) -> None:
    """Gemma 2 bounds its scores, which no function of MLX does, so that its definition computes attention by itself."""
    from mlx_lm.models import gemma2

    class SoftCapped(gemma2.Attention):
        def __call__(self, x: Any, mask: Any = None, cache: Any = None) -> Any:
            rows, count, _ = x.shape
            queries, keys, values = (
                project(x).reshape(rows, count, heads, -1).transpose(0, 2, 1, 3)
                for project, heads in (
                    (self.q_proj, self.n_heads),
                    (self.k_proj, self.n_kv_heads),
                    (self.v_proj, self.n_kv_heads),
                )
            )
            queries, keys = self.rope(queries, offset=cache.offset), self.rope(keys, offset=cache.offset)
            keys, values = cache.update_and_fetch(keys, values)
            cache.cap = self.attn_logit_softcapping
            output = cache.attend(queries, keys, self.scale, mask, None)
            return self.o_proj(output.transpose(0, 2, 1, 3).reshape(rows, count, -1))

    for each in module.modules():
        if type(each) is gemma2.Attention:
            each.__class__ = SoftCapped


def _layers(module: Any, kind: str, rows: Rows) -> tuple[list[LayerCache], list[StateCache], list[Any]]:
    """Paged caches with each layer's window, recurrent ones, and both in the places of mlx-lm's own."""
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache

    caches: list[LayerCache] = []
    states: list[StateCache] = []

    def ours(theirs: Any) -> Any:
        if type(theirs) is CacheList:
            return tuple(map(ours, theirs.caches))
        if type(theirs) is ArraysCache:
            states.append(StateCache(len(theirs.cache), rows))
            return states[-1]
        if type(theirs) is KVCache or (type(theirs) is RotatingKVCache and not theirs.keep):
            window = int(theirs.max_size) if type(theirs) is RotatingKVCache else None
            caches.append(LayerCache(len(caches), LayerShape(0, 0, 0), window))
            return caches[-1]
        raise Unsupported(
            f"`{kind}` needs a cache of the kind `{type(theirs).__name__}`; full attention, sliding windows and"
            " recurrent states are what this plug-in has"
        )

    layers = list(map(ours, make_prompt_cache(module)))
    return caches, states, layers


def _taken(stores: Sequence[LayerCache | StateCache]) -> list[Any]:
    return [array for store in stores for array in store.arrays]


def _put(arrays: Sequence[Any], stores: Sequence[LayerCache | StateCache]) -> None:
    """As many as each has."""
    start = 0
    for store in stores:
        count = len(store.arrays)
        store.arrays = tuple(arrays[start : start + count])
        start += count
