"""How large each model runs on the target, and whether it starts with the appliance.

For each model: (1) weights, from the checkpoint where it is on this disk, else from its parameters; (2) bytes of cache
per token, from the checkpoint's config, else by parameters; (3) the longest context asked for that fits into what the
budget leaves beside the weights; (4) as many requests at once as fit with half of it each. If all models fit together
they start with the appliance; otherwise the later ones load on demand, each sized as if alone. A GGUF that would not
fit a Mac even alone is quantized anew where that helps: 16-bit weights, and those that 4-bit types keep at 6 bits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.engines.driver import Launch, Shape
from appliance.engines.vllm import VLLM
from appliance.engines.vllm_metal import VLLMMetal
from appliance.errors import ApplianceError, SourceError
from appliance.migrate.draft import Model
from appliance.migrate.importer import FLOATS
from appliance.migrate.repository_names import gguf_type, suggestion
from appliance.migrate.target import GIB, Target
from appliance.migrate.target import sized as machine_of
from appliance.migrate.words import integer
from appliance.models.convert.refused import Refused
from appliance.models.shape import shape
from appliance.models.sources import LocalSource, parse_source
from appliance.plan.desired import EngineSpec

SMALLEST_CONTEXT = 2048
LIKELY_CONTEXT = 8192
"""Tokens that nearly every model can do; vLLM refuses to start with more than a model's own."""
_BLOCK = 128
IDLE_UNLOAD = "10m"

_MACHINES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""GiB of memory that one can buy."""

# Parameters up to → bytes of keys and values per token at two bytes a value, by the usual layers and key-value heads.
_CACHE_PER_TOKEN = (
    (0.2e9, 23_040),
    (0.5e9, 40_960),
    (2e9, 114_688),
    (9e9, 147_456),
    (15e9, 196_608),
    (40e9, 262_144),
    (80e9, 327_680),
    (float("inf"), 524_288),
)


@dataclass(frozen=True, slots=True)
class Need:
    """`fixed` is bytes without cache. `measured` where the checkpoint itself was looked at."""

    fixed: int
    cache_per_token: int
    measured: bool = False
    longest: int | None = None
    """Tokens that the model can do at most, where that is known."""


class Estimator(Protocol):
    """What a model will need; the seam for a better estimate than a name's."""

    def __call__(self, model: Model, target: Target, folder: Path) -> Need | None: ...


@dataclass(frozen=True, slots=True)
class Size:
    """`problem` says what keeps the model from fitting; then the other figures are what was asked for."""

    model: Model
    context: int
    sequences: int
    load: str
    memory: int | None
    measured: bool = False
    asked: int | None = None
    """Tokens of context, where they are more than there can be."""
    own: bool = False
    """Whether it is the model that can do no more, and not the target."""
    cache: int | None = None
    """Bytes of cache for the engine, which takes one GiB unless told."""
    problem: str | None = None
    would_fit: str | None = None


def size_models(models: Sequence[Model], target: Target, folder: Path, estimate: Estimator) -> list[Size]:
    needs = [_need(model, target, folder, estimate) for model in models]
    together = sum(
        _least(need, _wanted(model, need, target)) for model, need in zip(models, needs, strict=True) if need
    )
    all_fit = together <= target.budget
    spare = max(target.budget - together, 0) // max(len(models), 1)
    sizes = []
    for index, (model, need) in enumerate(zip(models, needs, strict=True)):
        if need is None:
            sizes.append(_unknown(model, target, index))
            continue
        room = _least(need, _wanted(model, need, target)) + spare if all_fit else target.budget
        sizes.append(_sized(model, need, room, target, startup=all_fit or index == 0))
    return sizes


def _need(model: Model, target: Target, folder: Path, estimate: Estimator) -> Need | None:
    """What the model takes, quantized anew where it has to be."""
    model.quantize = None
    stored = estimate(model, target, folder)
    if stored is None or not target.apple or not _problem(model, stored, target):
        return stored
    for bits in _fewer(model.stored or ""):
        model.quantize = bits
        need = estimate(model, target, folder)
        if need is not None and not _problem(model, need, target):
            return need
    model.quantize = None
    return stored


def _fewer(stored: str) -> tuple[int, ...]:
    """Bits that a GGUF of this type may be quantized to: never to fewer than most of its weights have."""
    if stored in FLOATS:
        return (8, 4)
    return (4,) if re.fullmatch(r"Q[234]_K(_[SML])?|Q4_[01]", stored) else ()


def _problem(model: Model, need: Need, target: Target) -> bool:
    """Whether it does not fit even alone."""
    return (target.budget - need.fixed) // need.cache_per_token < min(SMALLEST_CONTEXT, _wanted(model, need, target))


def _sized(model: Model, need: Need, room: int, target: Target, *, startup: bool) -> Size:
    cache = room - need.fixed
    longest = cache // need.cache_per_token
    wanted = _wanted(model, need, target)
    load = _load(model, startup=startup)
    if longest < min(SMALLEST_CONTEXT, wanted):
        memory = need.fixed + min(SMALLEST_CONTEXT, wanted) * need.cache_per_token
        problem = f"needs {memory / GIB:.1f} GiB, and {target.name} leaves {target.budget / GIB:.1f} GiB"
        sequences = model.sequences or 1
        would = _would(model, memory, target)
        context = min(SMALLEST_CONTEXT, wanted)
        return Size(model, context, sequences, "on_demand", memory, need.measured, problem=problem, would_fit=would)
    context = wanted if wanted <= longest else max(longest // 1024 * 1024, min(longest, SMALLEST_CONTEXT))
    fitting = max(1, cache // (need.cache_per_token * max(context // 2, 1)))
    sequences = min(model.sequences or target.sequences, fitting)
    held = need.cache_per_token * max(context, min(sequences * (context // 2), longest))
    asked = model.context if model.context and model.context > context else None
    # vLLM keeps a block of its own, and rounds each request up to whole ones.
    least = -(-(held + 2 * _BLOCK * need.cache_per_token) // 2**20) * 2**20
    own = context == need.longest
    return Size(model, context, sequences, load, need.fixed + held, need.measured, asked, own, cache=least)


def _unknown(model: Model, target: Target, index: int) -> Size:
    """Nothing says how large it is: what was asked for, or the target's own figures, and no promise."""
    load = _load(model, startup=index == 0)
    return Size(model, _wanted(model, None, target), model.sequences or target.sequences, load, None)


def _load(model: Model, *, startup: bool) -> str:
    return model.load or ("on_demand" if model.optional or not startup else "startup")


def _wanted(model: Model, need: Need | None, target: Target) -> int:
    """What was asked for, else the target's own figure; no more than the model can do, or is likely to."""
    longest = need.longest if need else model.longest
    if model.context:
        return min(model.context, longest or model.context)
    return min(target.context, longest or LIKELY_CONTEXT)


def _least(need: Need, context: int) -> int:
    return need.fixed + need.cache_per_token * context


def _would(model: Model, memory: int, target: Target) -> str:
    larger = (
        machine_of(target.name, size * GIB, apple=target.apple) for size in _MACHINES if size * GIB > target.memory
    )
    enough = next((each for each in larger if memory <= each.budget), None)
    machine = f"a machine with {enough.memory // GIB} GiB" if enough else None
    smaller = "a smaller model of the family"
    if bits_per_weight(model) > 6:
        smaller = "weights in 4 bits"
        if target.apple and model.stored:
            smaller += " (`quantize: 4`)"
        elif target.apple and (model.source or "").startswith("hf:"):
            smaller += f", perhaps {suggestion(model.source or '', apple=True)}"
    return f"{smaller}, or {machine}" if machine else smaller


def by_name(model: Model, target: Target, folder: Path) -> Need | None:
    """From the checkpoint where its source is a path that is here; else from the parameters that a name tells."""
    if (local := _local(model, folder)) is not None and (need := of_checkpoint(local, target, model.quantize)):
        return need
    if model.parameters is None:
        return None
    weights = int(model.parameters * bits_per_weight(model, dequantized=not target.apple) / 8)
    return Need(_fixed(Shape(weights), target), _per_token(model.parameters), longest=model.longest)


def of_checkpoint(path: Path, target: Target, bits: int | None = None) -> Need | None:
    """From a checkpoint's own files, a GGUF quantized to so many bits; None where they do not say, or are not sound."""
    try:
        found = shape(path, "mlx" if target.apple else "hf", bits=bits)
    except (ApplianceError, Refused, OSError, ValueError, KeyError, TypeError):
        return None  # what is wrong with it is said when it is fetched or started
    if not found.weights:
        return None
    per_token = found.cache_per_token or _per_token(found.weights / 2)
    return Need(_fixed(found, target), per_token, measured=True, longest=found.context)


def _fixed(found: Shape, target: Target) -> int:
    """What the engine's driver says that it takes, its cache left out. Weights are not widened on a Mac."""
    driver = VLLMMetal(mac=True) if target.apple else VLLM()
    platform = "MetalPlatform" if target.apple else "CpuPlatform"
    spec = EngineSpec(model="sized", backend=driver.name, source="", engine=(("kv_cache_memory_bytes", "0"),))
    launch = Launch(python=None, model=Path(), directory=Path(), key="", platform=platform)
    return driver.memory(spec, launch, found) or found.weights


def _local(model: Model, folder: Path) -> Path | None:
    try:
        source = parse_source(model.source or "", base=folder)
    except SourceError:
        return None
    return source.path if isinstance(source, LocalSource) and source.path.exists() else None


def _per_token(parameters: float) -> int:
    return next(size for most, size in _CACHE_PER_TOKEN if parameters <= most)


def bits_per_weight(model: Model, *, dequantized: bool = False) -> float:
    """As the engine holds them, scales included. `dequantized`: it does not hold a GGUF's weights quantized."""
    name = (model.source or model.reference).lower()
    in_file = gguf_type(name.rpartition("/")[2]) if name.endswith(".gguf") or "#" in name else None
    if kind := model.stored or in_file:
        return 16 if dequantized else _held(kind, model.quantize)
    if name.startswith("pypi:"):
        return 16 if dequantized else 5
    if match := re.search(r"(?<![a-z0-9])([23468])[-_]?bit|(?<![a-z0-9])mxfp(4)|int([48])(?![0-9])|[-_]q([48])$", name):
        return (integer(next(filter(None, match.groups()))) or 16) + 0.5
    if re.search(r"awq|gptq|nvfp4|bnb|w4a16", name):
        return 4.5
    return 8.5 if "fp8" in name else 16


def _held(kind: str, quantize: int | None) -> float:
    """Bits of a weight of such a GGUF in MLX's form, of which a scale and a bias for each 32 are one."""
    if quantize:
        return quantize + 1
    if kind == "MXFP4":
        return 4.25
    match = re.match(r"I?Q(\d)", kind)
    if match is None:
        return 16
    bits = next(width for width in (4, 6, 8) if int(match[1]) <= width)
    mixed = 0.5 if bits == 4 and re.search(r"_K_[ML]$", kind) else 0  # a quarter of its weights have six bits
    return bits + 1 + mixed
