"""Which layers of an architecture attend and which keep a state, and how large that is, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Flag
from typing import TYPE_CHECKING

from appliance.engines.driver import LayerState

if TYPE_CHECKING:
    from appliance.models.architecture import Numbers


class Keeps(Flag):
    """What a layer keeps of a sequence: keys and values of each token, a state, both beside each other, or nothing."""

    NOTHING = 0
    TOKENS = 1
    STATE = 2
    BOTH = 3


_WORDS: Mapping[str, Keeps] = {
    **dict.fromkeys(("linear_attention", "mamba", "conv", "recurrent", "M"), Keeps.STATE),
    **dict.fromkeys(("mlp", "moe", "-", "E"), Keeps.NOTHING),
    "hybrid": Keeps.BOTH,
}
"""As families list their layers. Any other word is some kind of attention."""

_PURE = frozenset({"mamba", "mamba2", "falcon_mamba"})
_BESIDE = frozenset({"falcon_h1"})

# The numbers of one layer, in the names of the families that have them.
_MAMBA2: Sequence[tuple[str, ...]] = (
    ("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv"),
    ("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"),
    ("num_heads", "head_dim", "state_size", "n_groups", "conv_kernel"),
)


def kept(numbers: Numbers, layers: int) -> list[Keeps]:
    """Of each layer.

    (1) Families without attention, and such with a state beside it in each layer. (2) A list of the layers, or a
    pattern of letters. (3) Which of them attend: by number, or one in every so many.
    """
    text = numbers.text
    family = text.get("model_type")
    if family in _PURE | _BESIDE:  # (1)
        return [Keeps.STATE if family in _PURE else Keeps.BOTH] * layers
    for key in ("layer_types", "layers_block_type", "hybrid_override_pattern"):  # (2)
        words = text.get(key)
        if isinstance(words, list | str) and len(words) == layers:
            return [_WORDS.get(str(word), Keeps.TOKENS) for word in words]
    for key in ("full_attn_idxs", "attn_layer_indices"):  # (3)
        if isinstance(attending := text.get(key), list):
            return [Keeps.TOKENS if layer in attending else Keeps.STATE for layer in range(layers)]
    every, first = numbers.count("attn_layer_period"), text.get("attn_layer_offset")
    if every is None and _gated(numbers):
        every = numbers.count("full_attention_interval")
        first = every - 1 if every else None
    if every and isinstance(first, int):
        return [Keeps.TOKENS if layer % every == first else Keeps.STATE for layer in range(layers)]
    return [Keeps.TOKENS] * layers


def layer_state(numbers: Numbers, layers: int) -> LayerState | None:
    """What the layers with a state keep: the last inputs of a convolution, at two bytes a number, and a matrix for each
    head, in the type that it is computed in.

    None where there are none, or where the config does not say.
    """
    holding = sum(Keeps.STATE in each for each in kept(numbers, layers))
    size = _gated(numbers) or _convolution(numbers) or _mamba2(numbers) or _mamba(numbers)
    return LayerState(holding, size) if holding and size else None


def _gated(numbers: Numbers) -> int:
    """A gated delta net (Yang et al., 2024): float32 matrices. In bytes, as below; 0 where it is none."""
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
    found = _counts(numbers, [f"linear_{name}" for name in names])
    if not found:
        return 0
    key_heads, value_heads, key_dim, value_dim, kernel = found
    inputs = 2 * key_heads * key_dim + value_heads * value_dim
    return 2 * inputs * (kernel - 1) + 4 * value_heads * key_dim * value_dim


def _convolution(numbers: Numbers) -> int:
    """A short convolution alone, as LFM2 has it."""
    found = _counts(numbers, ("hidden", "conv_L_cache"))
    return 2 * found[0] * (found[1] - 1) if found else 0


def _mamba2(numbers: Numbers) -> int:
    """Dao and Gu, 2024: float32 matrices."""
    for names in _MAMBA2:
        if found := _counts(numbers, names):
            heads, width, state, groups, kernel = found
            return 2 * (heads * width + 2 * groups * state) * (kernel - 1) + 4 * heads * width * state
    return 0


def _mamba(numbers: Numbers) -> int:
    """Gu and Dao, 2023: as wide as activations are."""
    if found := _counts(numbers, ("mamba_d_state", "mamba_d_conv", "mamba_expand", "hidden")):
        state, kernel, expand, hidden = found
        return 2 * expand * hidden * (kernel - 1 + state)
    if found := _counts(numbers, ("state_size", "conv_kernel", "intermediate")):
        state, kernel, inner = found
        return 2 * inner * (kernel - 1 + state)
    return 0


def _counts(numbers: Numbers, names: Sequence[str]) -> list[int]:
    """All of them, or none."""
    found = [numbers.count(name) for name in names]
    return [each for each in found if each is not None] if None not in found else []
