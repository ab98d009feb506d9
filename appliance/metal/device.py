"""MLX's device: which one, what it is called, how much memory it has. The first import of MLX goes through here."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger("vllm.appliance_metal")

VARIABLE = "METAL_DEVICE"
REPORT = "APPLIANCE_METAL_REPORT"
_CHOICES = ("default", "gpu", "cpu")
_OPENBLAS = "opencv_python_headless.libs/libopenblas*.so*"


@cache
def mlx() -> Any:
    """`mlx.core`, set to the device that METAL_DEVICE asks for. Raises ValueError where that is none or not there."""
    _load_blas()
    import mlx.core as mx

    wanted = os.environ.get(VARIABLE, "default") or "default"
    if wanted not in _CHOICES:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(_CHOICES)}, got `{wanted}`")
    if wanted == "gpu" and not _has_gpu(mx):
        raise ValueError(f"{VARIABLE} is `gpu`, and this build of MLX ({mx.__version__}) has no GPU here")
    if wanted != "default":
        mx.set_default_device(mx.gpu if wanted == "gpu" else mx.cpu)
    if mx.default_device() == mx.Device(mx.cpu):
        # What MLX fuses there goes through the system's C++ compiler at the first request, and is no faster.
        mx.disable_compile()
    return mx


def on_cpu() -> bool:
    mx = mlx()
    return bool(mx.default_device() == mx.Device(mx.cpu))


def name() -> str:
    """`Metal Apple M3 Max`, `CUDA NVIDIA H100`, `CPU`: what answers for the figures."""
    if on_cpu():
        return "CPU"
    mx = mlx()
    kind = "Metal" if mx.metal.is_available() else "CUDA"
    return f"{kind} {mx.device_info().get('device_name', '')}".strip()


def total_memory() -> int:
    """Bytes that weights and cache may take together: MLX's own figure where it has one, else the machine's."""
    mx = mlx()
    information = {} if on_cpu() else mx.device_info()
    for key in ("max_recommended_working_set_size", "total_memory", "memory_size"):
        if size := information.get(key):
            return int(size)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def release() -> None:
    """Give what nothing refers to any more back to the operating system."""
    gc.collect()
    mlx().clear_cache()
    # glibc keeps freed memory below the top of its heap.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def report(platform: str) -> None:
    """Write what this engine runs on to the file that the variable names, for whoever started it."""
    if path := os.environ.get(REPORT):
        Path(path).write_text(json.dumps({"platform": platform, "device": name(), "mlx": mlx().__version__}))


def _has_gpu(mx: Any) -> bool:
    return bool(mx.metal.is_available() or (hasattr(mx, "cuda") and mx.cuda.is_available()))


def _load_blas() -> None:
    """MLX's CPU back end for Linux links the reference BLAS: 2.5 GFLOP/s where OpenBLAS gives 80 on the same cores.

    Symbols of a library that is already there globally win over those of a library's own dependencies.
    """
    site = Path(sysconfig.get_path("purelib"))
    for library in sorted(site.glob(_OPENBLAS)):
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        return
    if (site / "mlx_cpu.libs").exists():
        logger.warning("no OpenBLAS in this environment: MLX on the CPU will be some thirty times slower")
