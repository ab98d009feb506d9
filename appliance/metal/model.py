"""A checkpoint as an mlx-lm model that runs on paged caches, or the reason why it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import kernels, linear
from .device import mlx, on_cpu
from .paged import LayerCache, LayerShape
from .step import Span, Step


class Unsupported(ValueError):
    """This model's definition does something that paged attention does not do; the message names it."""


@dataclass
class Model:
    """`rows` of the trunk's output are what the language model head sees; None: all of them."""

    module: Any
    trunk: Any
    caches: list[LayerCache]
    kind: str
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
        count, block_size = len(step.arrays), step.block_size

        def forward(tokens: Any, *arrays: Any) -> tuple[Any, ...]:
            pools = iter(arrays[count:])
            for cache in self.caches:
                cache.arrays = next(pools), next(pools)
            logits = self._run(self.module, tokens, Step.of_arrays(arrays[:count], block_size), None)
            self._scattered = [cache for cache in self.caches if cache.attended is None]
            for cache in self.caches:
                cache.attended = None  # an array of the trace, which nobody may compute
            return (logits, *(array for cache in self._scattered for array in cache.arrays))

        self._decode = self._decode or mlx().compile(forward)
        before = [array for cache in self.caches for array in cache.arrays]
        logits, *after = self._decode(tokens, *step.arrays, *before)
        for pools, caches in ((before, self.caches), (after, self._scattered)):
            for index, cache in enumerate(caches):
                cache.arrays = pools[2 * index], pools[2 * index + 1]
        self._written = after
        return logits

    def _run(self, part: Any, tokens: Any, step: Step, rows: Any) -> Any:
        for cache in self.caches:
            cache.step = step
        self.trunk.select(rows)
        output = part(tokens[:, None], cache=self.caches)[:, 0]
        self._written = [array for cache in self.caches for array in cache.written]
        return output

    def drop(self) -> None:
        """Refer to no array any more."""
        for cache in self.caches:
            cache.free()
        self.module = self.trunk = self._decode = None
        self._written, self._scattered = [], []

    @property
    def bytes(self) -> int:
        from mlx.utils import tree_flatten

        return sum(array.nbytes for _, array in tree_flatten(self.module.parameters()))


def load(path: Path, dtype: str) -> Model:
    """Weights in `dtype` (MLX's name) where they are not quantized; on the CPU all of them, dequantized.

    Raises Unsupported where mlx-lm has no such architecture, or one that paged attention cannot drive.
    """
    from mlx_lm.utils import dequantize_model, load_model

    mx = mlx()
    try:
        module, config = load_model(path, lazy=True)
    except ValueError as error:
        raise Unsupported(f"mlx-lm cannot load `{path}`: {error}") from error
    # Before anything is dequantized, which happens in the type of the scales.
    module.set_dtype(getattr(mx, dtype))
    if on_cpu():
        # A quantized matrix product on MLX's CPU costs as much again for every further row; a dense one does not.
        module = dequantize_model(module)
        module.set_dtype(getattr(mx, dtype))
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
    """Put paged caches under a model of mlx-lm's, and trace one forward pass to see that they are what it uses."""
    trunk = _trunk(module, kind)
    _select_rows(trunk)
    _replace_attention(module)
    _replace_soft_caps(module)
    caches = [LayerCache(index, LayerShape(0, 0, 0), window) for index, window in enumerate(_windows(module, kind))]
    model = Model(module, trunk, caches, kind)
    _trace(model)
    return model


def _trunk(module: Any, kind: str) -> Any:
    """The part before the language model head: what holds the list of layers."""
    for each in module.modules():
        if each is not module and any(
            isinstance(getattr(each, name, None), list) for name in ("layers", "h", "blocks")
        ):
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


def _windows(module: Any, kind: str) -> Iterator[int | None]:
    """Of each layer's cache: how many tokens it keeps, None for all of them."""
    from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

    for cache in make_prompt_cache(module):
        if type(cache) is KVCache:
            yield None
        elif type(cache) is RotatingKVCache and not cache.keep:
            yield int(cache.max_size)
        else:
            raise Unsupported(
                f"`{kind}` needs a cache of the kind `{type(cache).__name__}`; full attention and sliding windows are"
                " what paged attention does"
            )


def _trace(model: Model) -> None:
    """One lazy forward pass of a prefill chunk and a decode row: nothing is computed, shapes and calls are seen."""
    mx = mlx()
    probes = [_Probe(cache) for cache in model.caches]
    step = Step.build((Span(0, 1, (0,)), Span(0, 2, (0,))), block_size=16)
    for probe in probes:
        probe.step = step
    model.trunk.select(mx.array([0, 2]))
    try:
        logits = model.module(mx.zeros((3, 1), dtype=mx.int32), cache=probes)
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(f"`{model.kind}`: its definition in mlx-lm does not run on paged caches: {error}") from error
    if logits.shape[:2] != (2, 1):
        raise Unsupported(f"`{model.kind}`: its head sees {logits.shape[0]} rows where 2 were selected")
    for probe in probes:
        if probe.attended != 1:
            raise Unsupported(
                f"`{model.kind}`: layer {probe.index} computes attention by itself ({probe.attended} calls of"
                " mlx-lm's scaled_dot_product_attention on its own cache, where 1 is expected)"
            )
        model.caches[probe.index].shape, model.caches[probe.index].cap = probe.shape, probe.cap


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
