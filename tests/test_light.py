"""The control process has no library of an engine's, and no command of it needs one."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys

for name in ("numpy", "torch", "mlx", "mlx_lm", "vllm", "transformers"):
    sys.modules[name] = None  # as where it is not installed

import appliance

ELSEWHERE = ("appliance.metal", "appliance.process.zygote", "appliance.models.convert")
imported = 0
for module in pkgutil.walk_packages(appliance.__path__, "appliance.", onerror=lambda name: None):
    if module.name.startswith(ELSEWHERE) or module.name.endswith("__main__"):
        continue
    importlib.import_module(module.name)
    imported += 1
print(imported)
"""


def test_every_module_of_the_control_process_is_imported_without_an_engine_s_libraries() -> None:
    argv = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200
