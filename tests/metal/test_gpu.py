"""What CI proves of the plug-in on a CPU, on the GPU that MLX has: `make test-metal-gpu`.

On a Mac the shipped environment has Metal. For CUDA, METAL_TEST_PYTHON names an interpreter with vLLM, mlx-lm and
`mlx-cuda-13`. METAL_TEST_DEVICE=cpu runs the same on the CPU, to prove these tests themselves.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.demo_model import demo_model
from tests.metal.support import run
from tests.metal.test_architectures import ARCHITECTURES, QUANTIZED
from tests.metal.test_parity import TIE
from tests.metal.test_sampling import highest

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("METAL_TEST_DEVICE", "gpu")
EXACT = {"METAL_DEVICE": DEVICE, "MLX_ENABLE_TF32": "0"}
"""By default CUDA multiplies float32 with eleven bits of each number."""
ROUNDED = 0.5
"""Logits of the demo model spread over twenty; at such a size neighbours in bfloat16 are an eighth apart."""


@pytest.fixture(scope="module")
def python(metal_python: Path) -> Path:
    """The interpreter that runs the scripts; skips where its MLX has no GPU."""
    python = Path(os.environ.get("METAL_TEST_PYTHON") or metal_python)
    found = run(python, "device.py", environ={"METAL_DEVICE": "default" if DEVICE == "gpu" else DEVICE})
    if found["device"] == "CPU" and DEVICE == "gpu":
        pytest.skip(f"MLX {found['mlx']} of `{python}` has no GPU on this machine")
    return python


@pytest.fixture(scope="module")
def plain(engine_home: Path, metal_python: Path) -> Path:
    """The demo model as a Hugging Face directory, made without vLLM's CPU environment: no Mac has one."""
    return demo_model(engine_home, "hf", metal_python)


@pytest.fixture(scope="module")
def checkpoints(
    python: Path, plain: Path, smollm2_mlx: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    eight = tmp_path_factory.mktemp("mlx") / "8bit"
    run(python, "quantize.py", plain, eight, 8)
    return {"4-bit": smollm2_mlx, "8-bit": eight, "plain": plain}


@pytest.fixture(scope="module", params=["on", "off"])
def kernels(request: pytest.FixtureRequest) -> dict[str, str]:
    return {**EXACT, "METAL_KERNELS": request.param}


@pytest.mark.parametrize(
    ("weights", "dtype", "tie"),
    [
        ("4-bit", "float32", TIE),
        ("8-bit", "float32", TIE),
        ("plain", "float32", TIE),
        ("4-bit", "bfloat16", ROUNDED),
        ("plain", "bfloat16", ROUNDED),
    ],
)
def test_greedy_tokens_are_mlx_lms_but_for_ties(
    python: Path, checkpoints: dict[str, Path], kernels: dict[str, str], weights: str, dtype: str, tie: float
) -> None:
    modes = ["alone", "preempted", f"dtype={dtype}", *(["few", "short"] if DEVICE == "cpu" else [])]
    found = run(python, "parity.py", checkpoints[weights], 6 if DEVICE == "cpu" else 24, *modes, environ=kernels)
    assert set(found["differences"]) == {"batched", "prefix-cached", "alone", "preempted"}
    assert found["preemptions"] > 0 or DEVICE == "cpu"  # where a few short questions leave blocks enough
    untied = {mode: [each for each in all_ if each["gap"] > tie] for mode, all_ in found["differences"].items()}
    assert not any(untied.values()), untied


@pytest.fixture(scope="module")
def tiny(python: Path, kernels: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(python, "architectures.py", tmp_path_factory.mktemp("tiny"), environ=kernels)


@pytest.mark.parametrize(
    ("kind", "name"), [*(("worst", name) for name in ARCHITECTURES), *(("quantized", name) for name in QUANTIZED)]
)
def test_logits_are_mlx_lms_at_every_step(tiny: dict[str, Any], kind: str, name: str) -> None:
    worst = tiny[kind][name]
    assert worst["difference"] < 1e-3 * worst["spread"]
    assert worst["ruined"] > 1e-2 * worst["spread"]


def test_the_kernel_is_the_reference_for_random_tables(python: Path) -> None:
    cases = run(python, "kernel_model.py", environ={**EXACT, "METAL_KERNELS": "off"})["cases"]
    differences = [each["kernel"] if DEVICE == "gpu" else each["difference"] for each in cases]
    assert max(differences) < 1e-4


def test_draws_follow_the_distribution_of_vllms_own_masks(python: Path) -> None:
    found = run(python, "sampling.py", environ=EXACT)
    wrong = {name: each for name, each in found["chi_square"].items() if each["value"] >= highest(each["freedom"])}
    assert not wrong
    assert not any(each["outside"] for each in found["chi_square"].values())
    assert all(holds for part in ("seeds", "reference", "grammar") for holds in found[part].values())


def test_a_warm_up_leaves_no_trace(python: Path, kernels: dict[str, str], tmp_path: Path) -> None:
    found = run(python, "warming.py", tmp_path, environ=kernels)
    for kind in ("generating", "embedding by a decoder", "embedding by an encoder"):
        assert found[kind]["on"]["zero"]
        assert found[kind]["on"].get("tokens") == found[kind]["off"].get("tokens")


def test_quantized_products_are_flattened_rightly(python: Path) -> None:
    assert max(run(python, "products.py", environ=EXACT)["differences"]) < 1e-3
