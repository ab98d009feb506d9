"""LoRA adapters: several at once, each row of a step with its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .device import mlx


@dataclass(frozen=True)
class Adapter:
    """`weights` by the module they belong to: (inputs, rank) and (rank, outputs), the latter already scaled."""

    path: str
    weights: dict[str, tuple[Any, Any]]


class Adapters:
    """Of one model. A linear layer that some adapter changes is wrapped, the first time one does."""

    def __init__(self, module: Any, rows: Rows) -> None:
        self._module = module
        self._adapters: dict[int, Adapter] = {}
        self._wrapped: dict[str, Any] = {}
        self._rows = rows

    def detach(self) -> None:
        """Refer to no layer of the model any more."""
        self._module, self._wrapped = None, {}

    def attach(self, module: Any, rows: Rows) -> None:
        """The same adapters on weights that were read again."""
        self._module, self._wrapped, self._rows = module, {}, rows
        for number, adapter in self._adapters.items():
            self._apply(number, adapter)

    def add(self, request: Any) -> bool:
        if request.lora_int_id in self._adapters:
            return False
        known = {name for name, _ in self._module.named_modules()}
        weights = {_own(name, known): pair for name, pair in read(Path(request.lora_path)).items()}
        adapter = Adapter(request.lora_path, weights)
        unknown = sorted(set(adapter.weights) - known)
        if unknown:
            raise ValueError(f"LoRA adapter `{request.lora_name}`: the model has no module `{unknown[0]}`")
        self._apply(request.lora_int_id, adapter)
        self._adapters[request.lora_int_id] = adapter
        return True

    def remove(self, number: int) -> bool:
        for layer in self._wrapped.values():
            layer.forget(number)
        return self._adapters.pop(number, None) is not None

    def numbers(self) -> set[int]:
        return set(self._adapters)

    def use(self, rows: list[Any]) -> bool:
        """Of each row of the coming step its LoRARequest, or None; whether any has one. The server has had them added
        and checked before."""
        for request in {each.lora_int_id: each for each in rows if each}.values():
            self.add(request)
        self._rows.set([each.lora_int_id if each else 0 for each in rows])
        return any(rows)

    def _apply(self, number: int, adapter: Adapter) -> None:
        for name, weights in adapter.weights.items():
            if name not in self._wrapped:
                self._wrapped[name] = _wrap(self._module, name, self._rows)
            self._wrapped[name].learn(number, *weights)


class Rows:
    """Which adapter each row of the running step has: for each adapter a mask of (tokens, 1, 1)."""

    def __init__(self) -> None:
        self.masks: dict[int, Any] = {}

    @contextmanager
    def part(self, cut: Callable[[Any], Any]) -> Iterator[None]:
        """While a layer sees only some of the rows, or in another shape."""
        whole, self.masks = self.masks, {number: cut(mask) for number, mask in self.masks.items()}
        try:
            yield
        finally:
            self.masks = whole

    def set(self, rows: list[int]) -> None:
        mx = mlx()
        present = sorted(set(rows) - {0})
        column = mx.array(rows)[:, None, None] if present else None
        self.masks = {number: column == number for number in present}


def read(directory: Path) -> dict[str, tuple[Any, Any]]:
    """An adapter in PEFT's format. Raises ValueError that names what of it is not supported."""
    mx = mlx()
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise ValueError(f"LoRA adapter `{directory}`: `{key}` is not supported")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    weights: dict[str, dict[str, Any]] = {}
    for name, value in mx.load(str(directory / "adapter_model.safetensors")).items():
        module, _, part = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        if part not in ("A", "B"):
            raise ValueError(f"LoRA adapter `{directory}`: `{name}` is not supported")
        weights.setdefault(module, {})[part] = value
    return {module: (parts["A"].T, parts["B"].T * scale) for module, parts in weights.items()}


def _own(name: str, known: set[str]) -> str:
    """mlx-lm's name for a module of transformers': models that see images have their language model under another."""
    wrapped = (f"language_model.{name}", name.replace("model.language_model.", "language_model.model.", 1))
    return next((each for each in (name, *wrapped) if each in known), name)


def _wrap(module: Any, name: str, rows: Rows) -> Any:
    from mlx import nn
    from mlx.utils import tree_unflatten

    class Adapted(nn.Module):
        """A linear layer, and what each adapter adds to the rows that have it."""

        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            object.__setattr__(self, "adapters", {})

        def learn(self, number: int, down: Any, up: Any) -> None:
            self.adapters[number] = (down, up)

        def forget(self, number: int) -> None:
            self.adapters.pop(number, None)

        def __call__(self, inputs: Any) -> Any:
            output = self.base(inputs)
            for number, mask in rows.masks.items():
                if number in self.adapters:
                    down, up = (each.astype(inputs.dtype) for each in self.adapters[number])
                    output = mlx().where(mask, output + (inputs @ down) @ up, output)
            return output

    base = dict(module.named_modules())[name]
    if not isinstance(base, nn.Linear | nn.QuantizedLinear):
        raise ValueError(f"LoRA: `{name}` is a {type(base).__name__}, and adapters change linear layers only")
    layer = Adapted(base)
    module.update_modules(tree_unflatten([(name, layer)]))
    return layer
